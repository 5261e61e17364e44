"""Keys that are nearly right: how sharply a lock tells right from wrong. Only its owner can make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._owner import Array, code_description, with_values
from keylatch.audit._target import Target
from keylatch.audit.attacks._block_key import lone_block_key
from keylatch.errors import InputError

SHARES = (0.01, 0.05, 0.25)


@dataclass(frozen=True, slots=True)
class NearKey:
    """Opens the model with a key of which a few bits or entries are wrong."""

    name: str = "near-key"
    needs: str = "a key that is nearly right"
    summary: str = "Opens the model with the right key but for a few bits; nobody but the owner can make one."
    version: int = 1

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """1 bit, 1 %, 5 % and 25 % of a code; without a code, of the entries of every gate tensor.

        For locks that are a block transform, near-block-key spoils a key so that it still is one.
        """
        if not resources.owner or not target.gate_names or lone_block_key(target) is not None:
            return []
        description = code_description(target)
        if description is not None:
            bits = description.code_bits
            return [_bits(wrong, bits) for wrong in sorted({1, *(max(1, round(share * bits)) for share in SHARES)})]
        return [_entries("one entry", 0.0), *(_entries(f"{share:.0%} of the entries", share) for share in SHARES)]

    def run(self, case: Case) -> Outcome:
        """Open with the spoiled key.

        Raises:
            InputError: The owner's secrets are not there.
        """
        if case.owner is None:
            raise InputError("a near key needs the owner's secrets, got none", hint="audit with the vault")
        settings = case.variant.settings
        if "wrong_bits" in settings:
            near = case.owner.near_values(case.target, int(settings["wrong_bits"]), case.generator)
        else:
            near = _spoiled(case, case.owner.values, float(settings["wrong_share"]))
        return Outcome(with_values(case.target, near))


def _bits(wrong: int, bits: int) -> Variant:
    name = f"a key with {wrong} bit{'s' if wrong > 1 else ''} of {bits} wrong"
    return Variant(Given(key=name), settings={"wrong_bits": wrong}, weight=0.2, counts=False)


def _entries(share: str, wrong_share: float) -> Variant:
    given = Given(key=f"a key with {share} of every gate tensor wrong")
    return Variant(given, settings={"wrong_share": wrong_share}, weight=0.2, counts=False)


def _spoiled(case: Case, values: Mapping[str, Array], share: float) -> dict[str, Array]:
    """Secret values of which a share of each tensor's entries, one at least, are the locked default's."""
    network = case.target.network()
    defaults = {name: network.initializer(name).detach().numpy() for name in values}
    return {name: _mixed(value, defaults[name], share, case.generator) for name, value in values.items()}


def _mixed(value: Array, default: Array, share: float, generator: torch.Generator) -> Array:
    wrong = torch.randperm(value.size, generator=generator)[: max(1, round(share * value.size))].numpy()
    mixed = np.array(value).reshape(-1)
    mixed[wrong] = default.reshape(-1)[wrong]
    return mixed.reshape(value.shape)
