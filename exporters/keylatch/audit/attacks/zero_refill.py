"""Training what a lock has taken out: weights that are zero, and weights that a license brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target
from keylatch.audit._training import FINE_TUNE_STEPS
from keylatch.audit.attacks._fitting import Build, Start, at_rates, fit_best
from keylatch.audit.attacks._free_gates import attacked_network, constant, free_gates
from keylatch.audit.attacks._weight_layers import effective_value, upstream, weight_layers
from keylatch.audit.onnx_network import OnnxNetwork

_LEAST_ZEROS = 0.01  # of a layer's weights: a few zeros are chance, or rounding
_RATES = (1e-3, 5e-3)


@dataclass(frozen=True, slots=True)
class ZeroRefill:
    """Trains withheld weights alone; all others keep their values."""

    name: str = "zero-refill"
    needs: str = "labeled images"
    summary: str = "Trains the weights that are zero or that a license brings, on clean labeled images."
    version: int = 2

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """Each number of labeled images; none where no weights are withheld."""
        image = torch.zeros((1, *target.spec.shape), dtype=target.spec.torch_dtype)
        if not _withheld(target.network().float(), target, image):
            return []
        return [
            Variant(Given(labeled=count), settings={"steps": FINE_TUNE_STEPS}, weight=4.0)
            for count in resources.labeled
        ]

    def run(self, case: Case) -> Outcome:
        """Train at each rate, keep the best."""
        builds = {"gates as they are": _build(case, free=False)}
        if case.target.gates:
            builds["gates free"] = _build(case, free=True)
        return fit_best(case, at_rates(builds, _RATES))


class Refilled(nn.Module):
    """A weight of which only some entries are trained.

    Args:
        weight: As it is.
        free: Which entries, bool.
    """

    weight: torch.Tensor
    free: torch.Tensor

    def __init__(self, weight: torch.Tensor, free: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("free", free)
        self.filling = nn.Parameter(torch.zeros_like(weight))

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        """The weight, with what was trained added in the free entries."""
        return self.weight + torch.where(self.free, self.filling, 0.0)


def _build(case: Case, free: bool) -> Build:
    """The withheld weights, and the gates from +1 on if they are free."""

    def start() -> Start:
        network, image = attacked_network(case), case.images[:1]
        trained = list(free_gates(network, case, constant(1.0)).parameters) if free else []
        for name, withheld in _withheld(network, case.target, image).items():
            refilled = Refilled(_guessed(effective_value(network, name, image), withheld), withheld)
            network.insert_after(name, refilled)
            trained.append(refilled.filling)
        return Start(network, trained)

    return start


def _guessed(weight: torch.Tensor, withheld: torch.Tensor) -> torch.Tensor:
    """A weight with the mean of what is left in the place of what is withheld: better than the noise in the file."""
    left = weight[~withheld]
    return torch.where(withheld, left.mean(), weight) if len(left) and (weight[withheld] != 0).any() else weight.clone()


def _withheld(network: OnnxNetwork, target: Target, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Layers' weights with what is withheld of them: zeros, or what a gate tensor is a part of."""
    gate_names, found = set(target.gate_names), {}
    for layer in weight_layers(network, target.gates):
        weight = effective_value(network, layer.weight, image)
        zeros = weight == 0
        behind = upstream(network, [layer.weight]) & gate_names
        if behind:
            found[layer.weight] = zeros if zeros.any() else _moved(network, layer.weight, weight, behind, image)
        elif float(zeros.float().mean()) >= _LEAST_ZEROS:
            found[layer.weight] = zeros
    return found


def _moved(
    network: OnnxNetwork, value: str, weight: torch.Tensor, behind: set[str], image: torch.Tensor
) -> torch.Tensor:
    """Which entries of a weight change with the gate tensors behind it: their places are public. All if none do."""
    for name in sorted(behind):
        tensor = network.initializer(name).detach()
        if tensor.is_floating_point():
            network.substitute(name, tensor + 1)
    moved = effective_value(network, value, image) != weight
    for name in behind:
        network.substitute(name, name)
    return moved if bool(moved.any()) else torch.ones_like(moved)
