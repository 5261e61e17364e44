"""Find the layers behind gates in the public base: their signs before locking, and their biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from keylatch.audit._centers import gate_channels
from keylatch.audit._target import Target
from keylatch.audit.attacks._layer_matching import matching_signs
from keylatch.audit.attacks._sign_chain import gates_with_layers
from keylatch.audit.attacks._weight_layers import WeightLayer, weight_layers, weight_matrix
from keylatch.audit.attacks._withheld import folded
from keylatch.audit.onnx_network import OnnxNetwork

FOUND = 0.5  # least similarity of a layer to its own base; unrelated ones are below 0.3


@dataclass(frozen=True, slots=True)
class Match:
    """A gate whose layers were looked for in the base.

    Attributes:
        signs: (channels,) in {-1, +1}; ones if the base has no layer of this shape.
        similarity: Cosine of the most similar layers' weights after turning, 0 to 1.
        biases: Name of each layer's bias to the base's own; empty unless all layers were found and have one.
    """

    signs: torch.Tensor
    similarity: float
    biases: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Likeness:
    signs: torch.Tensor
    similarity: float
    bias: torch.Tensor


def match_gates(target: Target, base: OnnxNetwork, image: torch.Tensor) -> list[Match]:
    """Match each gate's layers with the most similar ones of the base, in the network's order.

    Names are not looked at: exporters change them, and weights that were fine-tuned from each other stand out.

    Args:
        target: The locked model.
        base: The public network.
        image: (1, *shape), to compute weights that are not initializers.
    """
    locked = target.network().float()
    candidates = [folded(base, layer, image) for layer in weight_layers(base)]
    behind = gates_with_layers(target)
    channels = gate_channels(locked, target.gates, image)
    matches = []
    for gate, count in zip(target.gates, channels, strict=True):
        layers = behind.get(gate, ())
        likest = [_likest(weight_matrix(locked, layer, image), candidates) for layer in layers]
        matches.append(_match(locked, layers, [each for each in likest if each is not None], count))
    return matches


def _likest(weight: torch.Tensor, candidates: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> _Likeness | None:
    fitting = [(other, bias) for other, bias in candidates if other.shape == weight.shape]
    likenesses = [_Likeness(*matching_signs(weight, other), bias) for other, bias in fitting]
    return max(likenesses, key=lambda each: each.similarity, default=None)


def _match(network: OnnxNetwork, layers: Sequence[WeightLayer], likest: Sequence[_Likeness], channels: int) -> Match:
    fitting = [each for each in likest if len(each.signs) == channels]
    if not fitting:
        return Match(torch.ones(channels), 0.0)
    best = max(fitting, key=lambda each: each.similarity)
    known = len(fitting) == len(layers) and min(each.similarity for each in fitting) >= FOUND
    names = [layer.bias for layer in layers if layer.bias in network.initializer_names]
    if not known or len(names) < len(layers):
        return Match(best.signs, best.similarity)
    shapes = [network.initializer(str(name)).shape for name in names]
    biases = {
        str(name): each.bias.float().reshape(shape) for name, each, shape in zip(names, fitting, shapes, strict=True)
    }
    return Match(best.signs, best.similarity, biases)
