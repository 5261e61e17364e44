"""Fitting numbers in place of what the gates take from the key."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target
from keylatch.audit._training import FINE_TUNE_STEPS
from keylatch.audit.attacks._choice import unlabeled_merit
from keylatch.audit.attacks._fitting import TRIAL_SHARE, Build, Recipe, Start, at_rates, fit_best, fit_unlabeled
from keylatch.audit.attacks._free_gates import (
    FreeGates,
    attacked_network,
    constant,
    free_gates,
    random_signs,
    steered_gates,
)
from keylatch.audit.attacks._free_gates import Start as Controls

_RATES = (6e-4, 2.5e-3)  # times GATE_SPEED: a control goes 0.05 in a step at most
_COUNT = 1000


@dataclass(frozen=True, slots=True)
class GateFitting:
    """Fits free gates by gradient."""

    name: str = "gate-fitting"
    needs: str = "unlabeled or labeled images"
    summary: str = "Fits the gates' controls and centers by gradient, from +1, 0 and random signs, weights untouched."
    version: int = 3

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """With labels, and without."""
        network, image = target.network().float(), torch.zeros((1, *target.spec.shape), dtype=target.spec.torch_dtype)
        if not resources.pool or not steered_gates(network, target.gates, image):
            return []
        steps = {"steps": FINE_TUNE_STEPS}
        unlabeled = Given(unlabeled=min(_COUNT, resources.pool))
        return [
            Variant(unlabeled, "sharp and balanced predictions", steps, 4.0),
            *(Variant(Given(labeled=count), settings=steps, weight=6.0) for count in resources.labeled),
        ]

    def run(self, case: Case) -> Outcome:
        """Fit from every start, keep the best."""
        starts = {"+1": constant(1.0), "0": constant(0.0), "random signs": random_signs(case.generator)}
        if len(case.labels):
            return fit_best(case, _recipes(case, starts))
        return _fit_unlabeled(case, starts)


def _fit_unlabeled(case: Case, starts: dict[str, Controls]) -> Outcome:
    """Try every start for a quarter of the steps, as with labels; train the best in full."""
    merit, steps = unlabeled_merit(case.images), FINE_TUNE_STEPS
    trial = round(TRIAL_SHARE * steps)
    tried: list[tuple[tuple[float, float], str, Start]] = []
    done = 0
    for name, controls in starts.items():
        if tried and case.clock.expired:
            break
        start = _build(case, controls, signs=False)()
        done += fit_unlabeled(case, start, _RATES[-1], steps=trial)
        tried.append((merit(start.network), name, start))
    reached, name, best = max(tried, key=lambda each: each[0])
    kept = copy.deepcopy(best.network)
    done += fit_unlabeled(case, best, _RATES[-1], steps=steps)
    network = best.network if merit(best.network) >= reached else kept
    wanted = steps + trial * len(starts)
    return Outcome(network, {"steps": done}, f"best: from {name}", truncated=done < wanted)


def _recipes(case: Case, starts: dict[str, Controls]) -> dict[str, Recipe]:
    free = {f"from {name}": _build(case, controls, signs=False) for name, controls in starts.items()}
    rounded = {f"from {name}, rounded": _build(case, controls, signs=True) for name, controls in starts.items()}
    return at_rates(free, _RATES) | at_rates(rounded, _RATES[-1:])


def _build(case: Case, controls: Controls, signs: bool) -> Build:
    def start() -> Start:
        network = attacked_network(case)
        free: FreeGates = free_gates(network, case, controls)
        return Start(network, free.parameters, free.round_to_signs if signs else lambda: None)

    return start
