"""Weights that a lock keeps out of the file, and what a public base says of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from keylatch.audit._gates import Gate
from keylatch.audit._target import Target
from keylatch.audit.attacks._block_key import block_tensors
from keylatch.audit.attacks._sign_chain import gates_with_layers
from keylatch.audit.attacks._weight_layers import (
    WeightLayer,
    effective_value,
    initializers_behind,
    weight_layers,
    weight_matrix,
)
from keylatch.audit.onnx_network import Node, OnnxNetwork


def withheld_weights(target: Target) -> tuple[str, ...]:
    """Names of the gate tensors that are weights or biases of layers."""
    # A block transform may stand in the first layer's weights; its key is no weight.
    network, names = target.network(), set(target.gate_names) - block_tensors(target)
    read = [value for layer in weight_layers(network, target.gates) for value in (layer.weight, layer.bias) if value]
    found = {name for value in read for name in initializers_behind(network, value)} & names
    return tuple(name for name in target.gate_names if name in found)


def withheld_gates(target: Target, weights: Collection[str]) -> tuple[Gate, ...]:
    """Gates whose layers are all among some withheld weights: whoever replaces these needs no signs."""
    network, known = target.network(), set(weights)
    return tuple(
        gate
        for gate, layers in gates_with_layers(target).items()
        if all(initializers_behind(network, layer.weight) & known for layer in layers)
    )


def weights_from_base(target: Target, base: OnnxNetwork, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """The base's weights for the withheld ones, its normalizations folded.

    Layers of a shape are taken to stand in the same order in both networks.

    Args:
        target: The locked model.
        base: The public network.
        image: (1, *shape), to compute weights that are not initializers.

    Returns:
        Gate tensor name to float32 value in its shape; without those that the base has no layer for.
    """
    network, withheld = target.network().float(), set(withheld_weights(target))
    ours, theirs = _by_shape(network, image, target.gates), _by_shape(base, image)
    found: dict[str, torch.Tensor] = {}
    for shape, layers in ours.items():
        for layer, other in zip(layers, theirs.get(shape, ()), strict=False):
            weight, bias = folded(base, other, image)
            weights = initializers_behind(network, layer.weight) & withheld
            _enter(found, weights, _in_form(weight, network, layer, image))
            if layer.bias:
                # A block transform in a layer's weights makes the bias follow from them too.
                _enter(found, initializers_behind(network, layer.bias) & withheld - weights, bias)
    shapes = {name: network.initializer(name).shape for name in found}
    # Of a layer that is withheld in parts the base would have to be matched weight by weight.
    return {
        name: value.float().reshape(shapes[name])
        for name, value in found.items()
        if value.numel() == shapes[name].numel()
    }


def folded(network: OnnxNetwork, layer: WeightLayer, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(outputs, inputs, taps) weights and (outputs,) bias of a layer and the batch normalization behind it, float64."""
    weight = weight_matrix(network, layer, image)
    bias = (
        effective_value(network, layer.bias, image).double().flatten() if layer.bias else weight.new_zeros(len(weight))
    )
    norm = normalization_behind(network, layer.node)
    if norm is None:
        return weight, bias
    scale, shift, mean, variance = (network.initializer(name).detach().double() for name in norm.inputs[1:5])
    factor = scale / (variance + float(norm.attributes.get("epsilon", 1e-5))).sqrt()
    return weight * factor.view(-1, 1, 1), (bias - mean) * factor + shift


def normalization_behind(network: OnnxNetwork, layer: Node) -> Node | None:
    """The batch normalization that takes a layer's output, if there is one whose numbers are in the file."""
    for node in network.consumers(layer.outputs[0]):
        if node.op == "BatchNormalization" and set(node.inputs[1:5]) <= set(network.initializer_names):
            return node
    return None


def _by_shape(
    network: OnnxNetwork, image: torch.Tensor, gates: Sequence[Gate] = ()
) -> dict[tuple[int, ...], list[WeightLayer]]:
    found: dict[tuple[int, ...], list[WeightLayer]] = {}
    for layer in weight_layers(network, gates):
        found.setdefault(tuple(weight_matrix(network, layer, image).shape), []).append(layer)
    return found


def _enter(found: dict[str, torch.Tensor], names: set[str], value: torch.Tensor) -> None:
    found.update(dict.fromkeys(names, value))


def _in_form(weight: torch.Tensor, network: OnnxNetwork, layer: WeightLayer, image: torch.Tensor) -> torch.Tensor:
    """(outputs, inputs, taps) weights in the order of axes that a layer's own have."""
    form = effective_value(network, layer.weight, image).shape
    if layer.node.op == "Conv":
        groups = int(layer.node.attributes.get("group", 1))
        blocks = weight.reshape(groups, -1, groups, weight.shape[1] // groups, weight.shape[2])
        return torch.stack([blocks[group, :, group] for group in range(groups)]).reshape(form)
    return (weight if layer.node.attributes.get("transB", 0) else weight.transpose(0, 1)).reshape(form)
