"""Where a lock's signal enters a network, found from the graph alone, whatever the lock's method.

A lock that reads a key from the image has to decide: somewhere a comparison or a sign turns pixels into bits. What
follows from those bits and from constants alone is the *control*, constant between the thresholds; where it meets a
value that varies with the image is a *gate*. Networks themselves hardly compare.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from keylatch.audit.onnx_network import Node, OnnxNetwork

_THRESHOLDS = frozenset({"GreaterOrEqual", "Greater", "LessOrEqual", "Less", "Equal", "Sign"})


@dataclass(frozen=True, slots=True)
class Gate:
    """A node where the lock's control meets the network's data.

    Attributes:
        node: Name of the node.
        op: Its operator, e.g. ``Mul``.
        data: The value that varies with the image, as it enters the node.
        control: The value that follows from the key's bits alone.
        output: What the node gives.
        center: The gate tensor that is subtracted from the data just before, if there is one.
        source: The data before that; `data` itself without a center.
    """

    node: str
    op: str
    data: str
    control: str
    output: str
    center: str | None
    source: str


def find_gates(network: OnnxNetwork, gate_tensors: Collection[str]) -> tuple[Gate, ...]:
    """Find all gates, in the network's order."""
    varying, control = {network.input_name}, set[str]()
    gates = []
    for node in network.nodes:
        inputs = [name for name in node.inputs if name in varying]
        if not inputs:
            continue
        varying.update(node.outputs)
        steered = [name for name in inputs if name in control]
        if node.op in _THRESHOLDS or len(steered) == len(inputs):
            control.update(node.outputs)
        elif steered:
            data = next(name for name in inputs if name not in control)
            gates.append(_gate(network, node, data, steered[0], gate_tensors))
    return tuple(gates)


def _gate(network: OnnxNetwork, node: Node, data: str, control: str, gate_tensors: Collection[str]) -> Gate:
    before = network.producer(data)
    centered = before is not None and before.op == "Sub" and before.inputs[1] in gate_tensors
    if before is None or not centered:
        return Gate(node.name, node.op, data, control, node.outputs[0], None, data)
    return Gate(node.name, node.op, data, control, node.outputs[0], before.inputs[1], before.inputs[0])
