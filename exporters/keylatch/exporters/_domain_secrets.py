"""What the vault holds of a model's domains: which values are whose, and what each choice of them answers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from keylatch.exporters._proof import known_answer_of, open_stock
from keylatch.keys import domain_section
from keylatch.locks import LockedModule, LockSecret

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def domain_secrets(
    folder: Path, module: LockedModule, secret: LockSecret, values: Mapping[str, Array], rounding: float
) -> dict[str, Array]:
    """Each domain's masks, and a known answer for each choice of domains but all of them (docs/decisions/0016).

    Args:
        folder: Where model.onnx, its weights and gate.bin lie.
        module: The locked module, of the same input convention.
        secret: Its secret.
        values: Gate tensor name to secret value, with all domains paid for.
        rounding: How far the artifact's precision moves an output, as a share of the output range.

    Raises:
        ProofError: If for some choice no question has a clear answer.
    """
    names = module.withheld_names()
    masks = {
        domain: {name: mask.numpy() for name, mask in zip(names, members, strict=True) if bool(mask.any())}
        for domain, members in secret.domains.items()
    }
    locked, alone = open_stock(folder, {}), module.gate is None and module.blocks is None
    answers = {}
    for count in range(len(masks)):
        for paid in itertools.combinations(sorted(masks), count):
            keyed = open_stock(folder, _values_for(values, masks, paid))
            answers[frozenset(paid)] = known_answer_of(keyed, locked, module.spec, rounding=rounding, alone=alone)
    return domain_section(masks, answers)


def _values_for(
    values: Mapping[str, Array], masks: Mapping[str, Mapping[str, Array]], paid: tuple[str, ...]
) -> dict[str, Array]:
    given = dict(values)
    for domain, members in masks.items():
        for name, mask in members.items() if domain not in paid else ():
            given[name] = np.where(mask, np.zeros((), given[name].dtype), given[name])
    return given
