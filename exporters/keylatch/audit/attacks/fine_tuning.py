"""Fine-tuning a locked network on clean labeled images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import nn

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target
from keylatch.audit._training import FINE_TUNE_STEPS
from keylatch.audit.attacks._all_weights import all_weights
from keylatch.audit.attacks._fitting import Build, Start, at_rates, fit_best
from keylatch.audit.attacks._free_gates import (
    attacked_network,
    constant,
    free_gates,
    remove_gates,
    steered_gates,
)
from keylatch.audit.attacks._weight_layers import layer_parameters, weight_layers
from keylatch.audit.onnx_network import OnnxNetwork

Part: TypeAlias = Literal["last", "gates", "all"]
Prepare: TypeAlias = Callable[[OnnxNetwork, Case], tuple[nn.Parameter, ...]]

_RATES: Mapping[Part, tuple[float, ...]] = {"last": (1e-3, 1e-2), "gates": (3e-4, 1e-3), "all": (3e-4, 1e-3)}
_WHAT: Mapping[Part, str] = {
    "last": "the last layer",
    "gates": "the gates' controls and centers",
    "all": "all weights, and the gates' controls and centers",
}
_WEIGHT: Mapping[Part, float] = {"last": 5.0, "gates": 5.0, "all": 8.0}


@dataclass(frozen=True, slots=True)
class FineTuning:
    """Trains a part of the network, gates cut open.

    Attributes:
        part: What is trained.
        version: As for all attacks.
    """

    part: Part
    version: int = 1

    @property
    def name(self) -> str:
        """The attack's name."""
        return f"fine-tune-{self.part}"

    @property
    def needs(self) -> str:
        """What the attacker is given."""
        return "labeled images"

    @property
    def summary(self) -> str:
        """What it does."""
        return f"Trains {_WHAT[self.part]} on clean labeled images, from gates held at +1 and from gates cut out."

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """Each number of labeled images."""
        image = torch.zeros((1, *target.spec.shape), dtype=target.spec.torch_dtype)
        if self.part == "gates" and not steered_gates(target.network(), target.gates, image):
            return []
        steps = {"steps": FINE_TUNE_STEPS}
        return [Variant(Given(labeled=count), settings=steps, weight=_WEIGHT[self.part]) for count in resources.labeled]

    def run(self, case: Case) -> Outcome:
        """Train from each start at each rate, keep the best."""
        builds = {name: _build(case, self.part, start) for name, start in _starts(case, self.part).items()}
        return fit_best(case, at_rates(builds, _RATES[self.part]))


def _starts(case: Case, part: Part) -> dict[str, Prepare]:
    if not case.target.gates:
        return {"as it is": _as_it_is}
    held: dict[str, Prepare] = {"gates held at +1": _held}
    return held if part == "gates" else {**held, "gates cut out": _removed}


def _build(case: Case, part: Part, prepare: Prepare) -> Build:
    def start() -> Start:
        network = attacked_network(case)
        gates = prepare(network, case)
        if part == "gates":
            return Start(network, gates)
        if part == "last":
            last = weight_layers(network, case.target.gates)[-1]
            return Start(network, layer_parameters(network, last, case.images[:1]))
        return Start(network, all_weights(network, case.target))

    return start


def _held(network: OnnxNetwork, case: Case) -> tuple[nn.Parameter, ...]:
    return free_gates(network, case, constant(1.0)).parameters


def _removed(network: OnnxNetwork, case: Case) -> tuple[nn.Parameter, ...]:
    remove_gates(network, case.target.gates, case.images)
    return ()


def _as_it_is(network: OnnxNetwork, case: Case) -> tuple[nn.Parameter, ...]:
    del network, case
    return ()
