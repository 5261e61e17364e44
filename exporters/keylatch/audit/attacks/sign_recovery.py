"""Recovering gate signs by statistics, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target
from keylatch.audit._training import FINE_TUNE_STEPS
from keylatch.audit.attacks._all_weights import all_weights
from keylatch.audit.attacks._choice import labeled_merit, unlabeled_merit
from keylatch.audit.attacks._fitting import Build, Start, at_rates, fit_best, own_labels
from keylatch.audit.attacks._free_gates import free_fixed, steered_gates
from keylatch.audit.attacks._sign_chain import CHAINS, Chain, Recovered, gates_with_layers, recover

_UNLABELED = (100, 1000)
_TO_TRAIN = 300  # more images hardly help the statistics
_RATES = (3e-4, 1e-3)
_STATISTICS = {
    "level": "means or biases alike",
    "covariance": "outputs vary much, or little",
    "both": "outputs vary much, means or biases alike",
}
_WEIGHTS = {"level": 2.0, "covariance": 4.0, "both": 6.0}  # of their time


@dataclass(frozen=True, slots=True)
class SignRecovery:
    """Guesses the signs that make gated layers look trained."""

    name: str = "sign-recovery"
    needs: str = "unlabeled, perhaps labeled images"
    summary: str = "Recovers gate signs layer by layer from what trained layers' biases and weights look like."
    version: int = 2

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """Each statistic on few and many images; training without labels and with labels from the best on."""
        counts = sorted({min(count, resources.pool) for count in _UNLABELED} - {0})
        if not counts or not gates_with_layers(target):
            return []
        most = min(_TO_TRAIN, resources.pool)
        statistical = [
            Variant(Given(unlabeled=count), meaning, {"statistic": statistic}, _WEIGHTS[statistic])
            for statistic, meaning in _STATISTICS.items()
            for count in (counts if statistic == "level" else [most])
        ]
        steps: dict[str, int | str] = {"statistic": "best", "steps": FINE_TUNE_STEPS}
        trained = Variant(Given(most), "then trained on its own predictions", steps, 8.0)
        tuned = [Variant(Given(most, count), "then fine-tuned", steps, 8.0) for count in resources.labeled[-1:]]
        return [*statistical, trained, *tuned]

    def run(self, case: Case) -> Outcome:
        """Recover."""
        statistic, labels = case.variant.settings["statistic"], len(case.labels)
        found, truncated = _recover_all(case, _chains(statistic))
        merit = labeled_merit(case.images[:labels], case.labels) if labels else unlabeled_merit(case.images)
        best = max(found, key=lambda each: merit(each.network))
        if statistic != "best":
            return Outcome(best.network, note=f"best: {best.chain.name}", signs=best.signs, truncated=truncated)
        recipes = at_rates({best.chain.name: _build(case, best)}, _RATES)
        tuned = fit_best(case, recipes, own=own_labels(case, best.network))
        return Outcome(tuned.predict, tuned.cost, tuned.note, best.signs, truncated or tuned.truncated)


def _chains(statistic: float | int | str) -> list[Chain]:
    if statistic == "best":
        return [chain for chain in CHAINS if chain.statistic != "covariance"]  # which the others contain
    return [chain for chain in CHAINS if chain.statistic == statistic]


def _recover_all(case: Case, chains: Sequence[Chain]) -> tuple[list[Recovered], bool]:
    found: list[Recovered] = []
    for chain in chains:
        if found and case.clock.expired:
            return found, True
        found.append(recover(case, chain))
    return found, any(each.truncated for each in found)


def _build(case: Case, recovered: Recovered) -> Build:
    """All weights, and the gates with their centers from the recovered ones on."""

    def start() -> Start:
        network, image = copy.deepcopy(recovered.network), case.images[:1]
        free_fixed(network, steered_gates(network, case.target.gates, image), image)
        return Start(network, all_weights(network, case.target))

    return start
