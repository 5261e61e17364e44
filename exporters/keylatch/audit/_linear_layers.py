"""Linear layers and convolutions of an ONNX network, with their weights."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import nn

from keylatch.audit.onnx_network import Node, OnnxNetwork

LINEAR_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_CARRIERS = frozenset({"Identity", "Cast", "Transpose"})  # exporters put these between a weight and its layer


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """A node that multiplies data by a trainable weight.

    Attributes:
        node: Its operator is one of `LINEAR_OPS`.
        weight: Name of the initializer.
    """

    node: Node
    weight: str


def linear_layers(network: OnnxNetwork, also: Collection[str] = ()) -> tuple[LinearLayer, ...]:
    """All linear layers and convolutions with a weight of their own, in the network's order.

    Args:
        network: The network.
        also: Initializers that are taken for weights although they are not trained in the file.
    """
    trained = {name for name in network.initializer_names if isinstance(network.initializer(name), nn.Parameter)}
    weights = {name: name for name in trained.union(also)}
    layers = []
    for node in network.nodes:
        if node.op in _CARRIERS and node.inputs[0] in weights:
            weights[node.outputs[0]] = weights[node.inputs[0]]
        elif node.op in LINEAR_OPS and node.inputs[1] in weights:
            layers.append(LinearLayer(node, weights[node.inputs[1]]))
    return tuple(layers)


def readers(network: OnnxNetwork, name: str) -> list[tuple[Node, int]]:
    """The nodes that read an initializer, directly or through carriers, and the positions they read it at."""
    found = []
    for node in network.consumers(name):
        if node.op in _CARRIERS:
            found.extend(readers(network, node.outputs[0]))
        else:
            found.append((node, node.inputs.index(name)))
    return found
