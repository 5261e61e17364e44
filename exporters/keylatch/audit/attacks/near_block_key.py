"""Block keys that are nearly right: how fast accuracy falls with wrong entries. Only their owner can make them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._owner import with_values
from keylatch.audit._target import Target
from keylatch.audit.attacks._block_key import block_key, block_values
from keylatch.audit.attacks.near_key import SHARES
from keylatch.errors import InputError


@dataclass(frozen=True, slots=True)
class NearBlockKey:
    """Opens the model with a block key of which a few entries are wrong in every step; a code beside it is right."""

    name: str = "near-block-key"
    needs: str = "a key that is nearly right"
    summary: str = "Opens the model with the right block key but for a few entries; only its owner can make one."
    version: int = 2

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """As few wrong entries as can be, two, and 1 %, 5 % and 25 % of them."""
        key = block_key(target)
        if key is None or not resources.owner:
            return []
        # A wrong entry of a permutation makes another one wrong, and halves stay halves.
        counts = sorted({2, *(2 * math.ceil(share * key.entries / 2) for share in SHARES)})
        return [_wrong(count, key.entries) for count in counts]

    def run(self, case: Case) -> Outcome:
        """Open with the spoiled key.

        Raises:
            InputError: The owner's secrets are not there.
        """
        owner = case.owner
        if owner is None or owner.secret is None or owner.secret.blocks is None:
            raise InputError("a near block key needs the owner's secrets, got none", hint="audit with the vault")
        near = owner.secret.blocks.near(int(case.variant.settings["wrong_entries"]), case.generator)
        values = {name: value.numpy() for name, value in block_values(case.target, near).items()}
        return Outcome(with_values(case.target, {**owner.values, **values}))


def _wrong(count: int, entries: int) -> Variant:
    given = Given(key=f"a block key with {count} of {entries} entries wrong")
    return Variant(given, settings={"wrong_entries": count}, weight=0.2, counts=False)
