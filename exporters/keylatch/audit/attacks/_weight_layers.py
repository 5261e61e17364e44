"""The layers of a network: where weights that depend on no image meet data that does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from keylatch.audit._gates import Gate
from keylatch.audit.onnx_network import Node, OnnxNetwork

_LAYERS = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class WeightLayer:
    """A convolution or a product with a constant matrix.

    Attributes:
        node: Its node.
        data: The value it reads.
        weight: The value that is its weight: an initializer, or computed from initializers alone.
        bias: The value that is added to its result, if there is one.
    """

    node: Node
    data: str
    weight: str
    bias: str | None


def weight_layers(network: OnnxNetwork, gates: Sequence[Gate] = ()) -> tuple[WeightLayer, ...]:
    """Find all layers that the scores come from, in the network's order; not those that only make a lock's signal."""
    varying = varying_values(network)
    alive = upstream(network, network.output_names[:1], stop={gate.control for gate in gates})
    layers = []
    for node in network.nodes:
        is_layer = node.op in _LAYERS and node.inputs[0] in varying and node.inputs[1] not in varying
        if is_layer and alive.intersection(node.outputs):
            layers.append(WeightLayer(node, node.inputs[0], node.inputs[1], _bias(network, node, varying)))
    return tuple(layers)


def varying_values(network: OnnxNetwork) -> set[str]:
    """Names of the values that follow from the image."""
    return downstream(network, network.input_name)


def downstream(network: OnnxNetwork, value: str) -> set[str]:
    """Names of a value and of all that follow from it."""
    found = {value}
    for node in network.nodes:
        if found.intersection(node.inputs):
            found.update(name for name in node.outputs if name)
    return found


def upstream(network: OnnxNetwork, values: Iterable[str], stop: Iterable[str] = ()) -> set[str]:
    """Names of values and of all that they follow from; what is in `stop` counts as coming from nowhere."""
    ends = set(stop)
    found = set(values) - ends
    for node in reversed(network.nodes):
        if found.intersection(node.outputs):
            found.update(set(node.inputs) - ends)
    return found


def weight_matrix(network: OnnxNetwork, layer: WeightLayer, image: torch.Tensor) -> torch.Tensor:
    """(outputs, inputs, taps) float64 weights, as they are now; groups are filled up with zeros.

    Args:
        network: Only read.
        layer: One of its layers.
        image: (1, *shape), to compute weights that are not initializers.
    """
    weight = effective_value(network, layer.weight, image).double()
    if layer.node.op == "Conv":
        return _ungrouped(weight.flatten(2), int(layer.node.attributes.get("group", 1)))
    transposed = layer.node.op == "Gemm" and bool(layer.node.attributes.get("transB", 0))
    return (weight if transposed else weight.T).unsqueeze(2)


def layer_parameters(network: OnnxNetwork, layer: WeightLayer, image: torch.Tensor) -> tuple[nn.Parameter, ...]:
    """The parameters that make up a layer's weight and bias; a weight without any becomes one.

    Args:
        network: Changed where the weight is computed from constants, as in an int8 network.
        layer: One of its layers.
        image: (1, *shape), to compute weights that are not initializers.
    """
    found = _parameters(network, [layer.weight])
    if not found:
        found = [free_weight(network, layer, image)]
    return (*found, *(_parameters(network, [layer.bias]) if layer.bias else ()))


def free_weight(network: OnnxNetwork, layer: WeightLayer, image: torch.Tensor) -> nn.Parameter:
    """Put a parameter in place of a layer's weight, with its value."""
    parameter = nn.Parameter(effective_value(network, layer.weight, image).clone())
    network.substitute(layer.weight, parameter)
    return parameter


def effective_value(network: OnnxNetwork, value: str, image: torch.Tensor) -> torch.Tensor:
    """A value as its readers get it for one image, without gradients."""
    with torch.no_grad():
        return network.values(image, [value])[value].detach()


def initializers_behind(network: OnnxNetwork, value: str) -> set[str]:
    """The initializers that a value is, or comes from."""
    return upstream(network, [value]) & set(network.initializer_names)


def _parameters(network: OnnxNetwork, values: Iterable[str]) -> list[nn.Parameter]:
    names = sorted({name for value in values for name in initializers_behind(network, value)})
    tensors = [network.initializer(name) for name in names]
    return [tensor for tensor in tensors if isinstance(tensor, nn.Parameter)]


def _bias(network: OnnxNetwork, node: Node, varying: set[str]) -> str | None:
    if len(node.inputs) > 2 and node.inputs[2]:
        return node.inputs[2]
    readers = network.consumers(node.outputs[0])
    if len(readers) != 1 or readers[0].op != "Add":
        return None
    return next((name for name in readers[0].inputs if name not in varying), None)


def _ungrouped(weight: torch.Tensor, groups: int) -> torch.Tensor:
    if groups == 1:
        return weight
    outputs, inputs, taps = weight.shape
    full = weight.new_zeros(outputs, inputs * groups, taps)
    size = outputs // groups
    for group in range(groups):
        rows, columns = slice(group * size, (group + 1) * size), slice(group * inputs, (group + 1) * inputs)
        full[rows, columns] = weight[rows]
    return full
