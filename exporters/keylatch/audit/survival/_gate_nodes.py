"""Which nodes are the gate's own, found from the graph alone."""

from __future__ import annotations

from typing import Any

from keylatch.audit._target import Target


def gate_node_names(model: Any, target: Target) -> frozenset[str]:
    """Nodes that make the lock's control, apply it, or read a gate tensor; by name.

    Locks without a control, such as withheld weights, have only the last kind.
    """
    wanted = {gate.control for gate in target.gates}
    places, tensors = {gate.node for gate in target.gates}, set(target.gate_names)
    found = set()
    for node in reversed(model.graph.node):
        upstream = wanted.intersection(node.output)
        if upstream:
            wanted.update(node.input)
        if upstream or node.name in places or tensors.intersection(node.input):
            found.add(node.name)
    return frozenset(found)


def gates_note(target: Target) -> str:
    """What a row says of gates: in a graph that was changed they do not fold into their layers when it is opened."""
    return "; gates computed for each image" if target.gates else ""
