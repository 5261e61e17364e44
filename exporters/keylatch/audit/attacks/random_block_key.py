"""A block transform's key drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target
from keylatch.audit.attacks._block_key import lone_block_key, opened_with_blocks, required_block_key


@dataclass(frozen=True, slots=True)
class RandomBlockKey:
    """Opens the model with a random permutation, random negations and a random table; new ones for each seed."""

    name: str = "random-block-key"
    needs: str = "the artifact only"
    summary: str = "Opens the model with a block transform's key that was drawn as its owner draws one."
    version: int = 1

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """One, for locks that are a block transform; beside a code, random-key draws both."""
        del resources
        if lone_block_key(target) is None:
            return []
        return [Variant(Given(key="a random key"), weight=0.2)]

    def run(self, case: Case) -> Outcome:
        """Draw a key and put it in."""
        transform = required_block_key(case.target).random(case.generator)
        return Outcome(opened_with_blocks(case.target, transform))
