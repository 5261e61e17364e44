"""The target's architecture with fresh weights and without its gates.

Batch normalizations are folded into a locked network's convolutions, and what is left hardly trains from the usual
initial weights. So each layer is scaled until its output has unit variance on a few images: LSUV, Mishkin and Matas,
"All you need is a good init", arXiv 1511.06422, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import nn

from keylatch.audit._linear_layers import LINEAR_OPS, linear_layers, readers
from keylatch.audit._target import Target
from keylatch.audit.onnx_network import Node, OnnxNetwork

_BATCH = 16
_MULTIPLYING = frozenset({"Mul", "Div"})
_NORMALIZING = frozenset(
    {"BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization", "RMSNormalization"}
)
_RUNNING_MEAN, _RUNNING_VARIANCE = 3, 4  # positions among a batch normalization's inputs
_PRELU_SLOPE = 0.25
_EMBEDDING_STD = 0.02
_LEAST_STD = 1e-6


def fresh_network(target: Target, images: torch.Tensor, generator: torch.Generator) -> OnnxNetwork:
    """Make a network like the target's that knows nothing of its weights.

    Args:
        target: The locked model. Weights that a license brings are fresh and trained like all others.
        images: (n, *shape) that it will be trained on; the first few set the scales.
        generator: Draws the weights.
    """
    network = target.network().float()
    for gate in target.gates:
        network.substitute(gate.output, gate.source)
    weights = _trainable(network, target.gate_names)
    with torch.no_grad():
        for name, weight in weights.items():
            _draw(weight, readers(network, name), generator)
        _forget_statistics(network)
        _scale_layers(network, weights, images[:_BATCH])
    return network


def _trainable(network: OnnxNetwork, gate_names: Collection[str]) -> dict[str, nn.Parameter]:
    """All weights. Those that a license brings are buffers in the file, and become parameters here."""
    weights = {}
    for name in network.initializer_names:
        value = network.initializer(name)
        if isinstance(value, nn.Parameter):
            weights[name] = value
        elif name in gate_names and any(node.op in LINEAR_OPS and place for node, place in readers(network, name)):
            weights[name] = nn.Parameter(value.clone())
            network.substitute(name, weights[name])
    return weights


def _draw(weight: nn.Parameter, read_by: Sequence[tuple[Node, int]], generator: torch.Generator) -> None:
    if any(node.op in LINEAR_OPS and place == 1 for node, place in read_by) and weight.ndim > 1:
        rows = torch.empty_like(weight, memory_format=torch.contiguous_format)
        weight.copy_(nn.init.orthogonal_(rows, generator=generator))
    elif weight.numel() > max(weight.shape, default=1):  # tables: embeddings of positions
        nn.init.trunc_normal_(weight, std=_EMBEDDING_STD, generator=generator)
    else:
        nn.init.constant_(weight, max((_neutral(node.op, place) for node, place in read_by), default=0.0))


def _neutral(op: str, place: int) -> float:
    """The value of a scale, slope or bias that changes nothing much."""
    if op in _MULTIPLYING or (op in _NORMALIZING and place == 1):
        return 1.0
    return _PRELU_SLOPE if op == "PRelu" else 0.0


def _forget_statistics(network: OnnxNetwork) -> None:
    for node in network.nodes:
        if node.op == "BatchNormalization":
            network.initializer(node.inputs[_RUNNING_MEAN]).zero_()
            network.initializer(node.inputs[_RUNNING_VARIANCE]).fill_(1.0)


class _UnitVariance(nn.Module):
    """Divides what it is given by its standard deviation, and remembers that."""

    std = 1.0

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        self.std = max(float(value.std()), _LEAST_STD)
        return value / self.std


def _scale_layers(network: OnnxNetwork, weights: Mapping[str, nn.Parameter], images: torch.Tensor) -> None:
    """One pass for all layers: biases are zero, so that a layer's output and its weight scale alike."""
    layers = {layer.weight: layer for layer in linear_layers(network, weights)}
    scales = {name: _UnitVariance() for name in layers}
    for name, layer in layers.items():
        network.insert_after(layer.node.outputs[0], scales[name])
    network(images)
    for name, layer in layers.items():
        output = layer.node.outputs[0]
        network.substitute(output, output)
        weights[name].div_(scales[name].std)
