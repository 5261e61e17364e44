"""What the masks of some domains must be, how they add up, and how far they overlap."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping
from typing import TypeAlias

import torch

from keylatch.errors import LockError

Masks: TypeAlias = Mapping[str, Mapping[str, torch.Tensor]]
"""Domain to parameter name to bool of the parameter's shape, True where a weight is withheld."""

# Each choice of paid domains has a known answer of its own in the vault: 2 ** domains (docs/decisions/0016).
MAX_DOMAINS = 6
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


def check_domain_names(names: Collection[str]) -> None:
    """Refuse domains that cannot be sold, before anything long is done for them.

    Raises:
        LockError: No domain or too many, or a name that no command line takes.
    """
    if not 1 <= len(names) <= MAX_DOMAINS:
        raise LockError(
            f"got masks of {len(names)} domains, expected 1 to {MAX_DOMAINS}",
            hint="every choice of domains is proved at export; put domains that are sold together into one",
        )
    for name in names:
        if not _NAME.fullmatch(name):
            raise LockError(
                f"{name!r:.60} is no name for a domain", hint="use lower-case letters, digits, - and _, e.g. mnist_m"
            )


def check_masks(masks: Masks) -> None:
    """Refuse masks that cannot be sold.

    Raises:
        LockError: No domain or too many, a name no command line takes, other than bools, a domain without a weight.
    """
    check_domain_names(masks)
    for domain, own in masks.items():
        odd = next((name for name, mask in own.items() if mask.dtype != torch.bool), None)
        if odd is not None:
            raise LockError(f"domain {domain} has a mask of {odd} that is not bool", hint="give mask.bool()")
        if not any(bool(mask.any()) for mask in own.values()):
            raise LockError(
                f"domain {domain} is empty: its masks withhold no weight", hint="train its mask, or leave it out"
            )


def merged_masks(masks: Masks) -> dict[str, torch.Tensor]:
    """By parameter name what any domain's mask covers, on the CPU; parameters that none covers are left out."""
    merged: dict[str, torch.Tensor] = {}
    for own in masks.values():
        for name, mask in own.items():
            covered = mask.detach().cpu()
            if name in merged and merged[name].shape != covered.shape:
                raise LockError(f"the masks of {name} have different shapes", hint="give one bool for each weight")
            merged[name] = merged[name] | covered if name in merged else covered.clone()
    return {name: mask for name, mask in merged.items() if bool(mask.any())}


def mask_overlaps(masks: Masks) -> tuple[tuple[str, str, float], ...]:
    """For each two domains the weights that both withhold, as a share of those that either does (Jaccard)."""
    overlaps = []
    for first, second in itertools.combinations(sorted(masks), 2):
        both = either = 0
        for name in {*masks[first], *masks[second]}:
            found = [own[name].detach().cpu() for own in (masks[first], masks[second]) if name in own]
            both += int((found[0] & found[1]).sum()) if len(found) == 2 else 0
            either += int(torch.stack(found).any(0).sum())
        overlaps.append((first, second, both / max(1, either)))
    return tuple(overlaps)
