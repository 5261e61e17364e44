"""Re-centering the scores: undoes a lock that adds a constant to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target
from keylatch.audit._training import scores
from keylatch.audit.attacks._free_gates import attacked_network

_COUNTS = (100, 1000)


@dataclass(frozen=True, slots=True)
class LogitRecentering:
    """Subtracts each class's mean score."""

    name: str = "logit-recentering"
    needs: str = "unlabeled images"
    summary: str = "Subtracts each class's mean score over unlabeled images, and divides by its spread or not."
    version: int = 1

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """Few and many images, with and without the division."""
        del target
        counts = sorted({min(count, resources.pool) for count in _COUNTS} - {0})
        labels = {0: "means", 1: "means and spreads"}
        return [
            Variant(Given(unlabeled=count), label, {"divide": divide}, weight=0.2)
            for divide, label in labels.items()
            for count in counts
        ]

    def run(self, case: Case) -> Outcome:
        """Measure the scores, and correct them."""
        network = attacked_network(case)
        seen = scores(network, case.images).double()
        mean, spread = seen.mean(0), seen.std(0, correction=0).clamp(min=1e-12)
        divisor = spread if case.variant.settings["divide"] else torch.ones_like(spread)

        def predict(images: torch.Tensor) -> torch.Tensor:
            corrected: torch.Tensor = (network(images).double() - mean) / divisor
            return corrected

        return Outcome(predict)
