"""One way through a network: recover a gate's signs, put them in place, go on to the next gate."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from keylatch.audit._attack import Case
from keylatch.audit._gates import Gate
from keylatch.audit._target import Target
from keylatch.audit.attacks._choice import unlabeled_merit
from keylatch.audit.attacks._free_gates import attacked_network, constant, fix_controls, put_centers
from keylatch.audit.attacks._gated_inputs import input_samples
from keylatch.audit.attacks._sign_statistics import GatedLayer, Objective, gated_layer
from keylatch.audit.attacks._weight_layers import WeightLayer, effective_value, weight_layers, weight_matrix
from keylatch.audit.onnx_network import Node, OnnxNetwork

_MOST_PATHS = 2
_CARRIERS = frozenset({"Identity", "Cast", "Pad", "Dropout", "QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True, slots=True)
class Chain:
    """What is assumed about the lock, and what is looked at.

    Attributes:
        name: In words.
        statistic: What it looks at: ``level``, ``covariance`` or ``both``.
        centered: Whether the lock is thought to center what it flips.
        alignment: 1: the right signs make outputs vary much; -1: little; 0: whatever.
    """

    name: str
    statistic: str
    centered: bool
    alignment: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Recovered:
    """A network with recovered signs in place.

    Attributes:
        network: It.
        chain: How it was recovered.
        signs: For each of the target's gates (channels,) signs; ones where nothing could be recovered.
        truncated: Whether the clock left gates out.
    """

    network: OnnxNetwork
    chain: Chain
    signs: tuple[torch.Tensor, ...]
    truncated: bool


CHAINS = (
    Chain("means alike, not centered", "level", centered=False, alignment=0.0),
    Chain("biases alike, centered", "level", centered=True, alignment=0.0),
    Chain("largest variances, not centered", "covariance", centered=False),
    Chain("largest variances, centered", "covariance", centered=True),
    Chain("smallest variances, not centered", "covariance", centered=False, alignment=-1.0),
    Chain("smallest variances, centered", "covariance", centered=True, alignment=-1.0),
    Chain("largest variances and means alike, not centered", "both", centered=False),
    Chain("largest variances and biases alike, centered", "both", centered=True),
)


def gates_with_layers(target: Target) -> dict[Gate, tuple[WeightLayer, ...]]:
    """The multiplying gates of a model whose data goes straight into layers, with these."""
    network = target.network()
    layers = weight_layers(network, target.gates)
    found = {gate: _layers_behind(network, gate, layers) for gate in target.gates if gate.op == "Mul"}
    return {gate: behind for gate, behind in found.items() if behind}


def recover(case: Case, chain: Chain) -> Recovered:
    """Recover the signs of all gates, in the network's order.

    A variance is the same for all signs of a gate inverted. Several candidates are followed, each both ways around:
    behind a wrong one the next gated layer looks less trained, whatever its signs; behind the last gate, predictions
    decide.

    Args:
        case: With images.
        chain: How.
    """
    network, layers = attacked_network(case), gates_with_layers(case.target)
    fix_controls(network, list(layers), constant(1.0), case.images[:1])
    paths, truncated = [_Path(network, (), 0.0)], False
    for gate in case.target.gates:
        truncated = truncated or (gate in layers and case.clock.expired)
        if gate in layers and not truncated:
            measured = [_measured(path, case, chain, gate, layers[gate]) for path in paths]
            kept = sorted(measured, key=lambda each: each[0].merit, reverse=True)[:_MOST_PATHS]
            paths = [_child(path, case, gate, signs, center) for path, ways, center in kept for signs in ways]
        else:
            paths = [_passed(path, case, chain, gate) for path in paths]
    merit = unlabeled_merit(case.images)
    best = max(paths, key=lambda path: merit(path.network)) if len(paths) > 1 else paths[0]
    return Recovered(best.network, chain, best.signs, truncated)


@dataclass(frozen=True, slots=True, eq=False)
class _Path:
    """A network with the first gates recovered; how trained these look together."""

    network: OnnxNetwork
    signs: tuple[torch.Tensor, ...]
    merit: float


def _child(path: _Path, case: Case, gate: Gate, signs: torch.Tensor, center: torch.Tensor | None) -> _Path:
    """The path with one more gate's signs in place, and its center, if the lock is thought to center."""
    network = copy.deepcopy(path.network)
    control = effective_value(network, gate.control, case.images[:1])
    network.substitute(gate.control, signs.to(control.dtype).reshape(control.shape))
    if gate.center is not None and center is not None:
        network.substitute(gate.center, center)
    return _Path(network, (*path.signs, signs), path.merit)


def _passed(path: _Path, case: Case, chain: Chain, gate: Gate) -> _Path:
    """The path behind a gate whose signs are not looked for."""
    network = copy.deepcopy(path.network)
    if chain.centered:
        put_centers(network, case, [gate])
    channels = effective_value(network, gate.control, case.images[:1]).numel()
    return _Path(network, (*path.signs, torch.ones(channels)), path.merit)


def _measured(
    path: _Path, case: Case, chain: Chain, gate: Gate, layers: Sequence[WeightLayer]
) -> tuple[_Path, list[torch.Tensor], torch.Tensor | None]:
    """The path with how trained the gate's layer can look, and candidates for its (channels,) signs.

    The gate's center becomes zero; what it should be, if the lock is thought to center, comes third.
    """
    network, image = path.network, case.images[:1]
    channels = effective_value(network, gate.control, image).numel()
    center = _uncenter(network, case, gate, estimate=chain.centered)
    fitting = [layer for layer in layers if weight_matrix(network, layer, image).shape[1] == channels]
    if not fitting:
        return path, [torch.ones(channels)], center
    found = torch.zeros(1, dtype=torch.float64) if center is None else center.flatten().double()
    measured = _measure(network, case, fitting, found.expand(channels) if chain.centered else None)
    if chain.alignment <= 0:
        signs = Objective(measured, chain.alignment, chain.statistic == "level").best(case.generator)[1].float()
        return path, [signs], center
    (_, aligned), (value, level) = (Objective(measured, 1.0, each).best(case.generator) for each in (False, True))
    ways = [aligned.float()] if chain.statistic == "covariance" else [aligned.float(), level.float()]
    better = replace(path, merit=path.merit + value / len(measured.bias))
    return better, [*ways, *(-signs for signs in ways)], center


def _uncenter(network: OnnxNetwork, case: Case, gate: Gate, *, estimate: bool) -> torch.Tensor | None:
    """Make a gate's center zero; gives its estimate, if it has a center and the estimate is wanted."""
    if gate.center is None:
        return None
    if estimate:
        put_centers(network, case, [gate])
    center = effective_value(network, gate.center, case.images[:1])
    network.substitute(gate.center, torch.zeros_like(center))
    return center if estimate else None


def _measure(
    network: OnnxNetwork, case: Case, layers: Sequence[WeightLayer], center: torch.Tensor | None
) -> GatedLayer:
    """One layer of all outputs of the layers that read the same value as the first, and are shaped like it."""
    first, image = layers[0], case.images[:1]
    alike = [layer for layer in layers if layer.data == first.data and layer.node.attributes == first.node.attributes]
    weights = [weight_matrix(network, layer, image) for layer in alike]
    biases = [
        _flat_bias(network, layer, image).expand(len(weight)) for layer, weight in zip(alike, weights, strict=True)
    ]
    samples = input_samples(network, first, case.images, weights[0].shape[2], case.generator)
    return gated_layer(torch.cat(weights), torch.cat(biases), samples, center)


def _flat_bias(network: OnnxNetwork, layer: WeightLayer, image: torch.Tensor) -> torch.Tensor:
    if layer.bias is None:
        return torch.zeros(1, dtype=torch.float64)
    return effective_value(network, layer.bias, image).flatten().double()


def _layers_behind(network: OnnxNetwork, gate: Gate, layers: Sequence[WeightLayer]) -> tuple[WeightLayer, ...]:
    """Layers that read a gate's output, directly or through nodes that keep its channels."""
    carried = {gate.output}
    for node in network.nodes:
        if _carries(node) and node.inputs[0] in carried:
            carried.update(node.outputs)
    return tuple(layer for layer in layers if layer.data in carried)


def _carries(node: Node) -> bool:
    return node.op in _CARRIERS
