"""No key at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target


@dataclass(frozen=True, slots=True)
class NoKey:
    """Runs the artifact as it is."""

    name: str = "no-key"
    needs: str = "the artifact only"
    summary: str = "Runs the artifact as it is, with its locked defaults."
    version: int = 1

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """One, for every locked model."""
        del target, resources
        return [Variant(Given(), weight=0.1)]

    def run(self, case: Case) -> Outcome:
        """The locked network."""
        return Outcome(case.target.network())
