"""What a block transform's images are worth to who sees them before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target
from keylatch.audit.attacks._assignment import greedy_assignment
from keylatch.audit.attacks._block_key import (
    BlockKey,
    block_key,
    opened_with_blocks,
    pixels_of,
    required_block_key,
)
from keylatch.errors import InputError
from keylatch.locks import BlockTransform
from keylatch.locks._block_layout import space_to_depth

_COUNTS = (1, 10)
_BYTES = 256
_LARGEST = 999  # three digits
_WHOLE = 1e-3  # a number this near to a whole one is it; float32 is ten times finer
_MOST_POSITIONS = 4096  # of blocks that entries are compared at


@dataclass(frozen=True, slots=True)
class KnownPair:
    """Reads the key out of images that were seen before and after the transform.

    One pair gives shf and np away at once, as for every permutation; of ffx's table the bytes that occur. A pair
    never leaves a Keylatch runtime, where the transform runs inside the graph and often inside the first layer's
    weights: to have one takes a key holder's access to memory. So it is shown and is no break of the artifact.
    """

    name: str = "known-pair"
    needs: str = "a key holder's inputs, before and after"
    summary: str = (
        "Reads the block key off images before and after the transform; pairs never leave a Keylatch runtime, so it "
        "is shown but is no break."
    )
    version: int = 1

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """One pair, and ten, for block transforms."""
        if block_key(target) is None or not resources.owner:
            return []
        givens = [Given(pairs=count) for count in _COUNTS if count <= resources.pool]
        return [Variant(given, label="a key holder's access", weight=0.3, counts=False) for given in givens]

    def run(self, case: Case) -> Outcome:
        """Recover the key, and open with it.

        Raises:
            InputError: The owner's secrets are not there.
        """
        if case.owner is None or case.owner.secret is None or case.owner.secret.blocks is None:
            raise InputError("pairs need the owner's secrets, got none", hint="audit with the vault")
        before = pixels_of(case.target.spec, case.images[: case.variant.given.pairs])
        after = case.owner.secret.blocks.values(before)
        found, seen = recovered_transform(required_block_key(case.target), before, after)
        note = f"{seen} of {_BYTES} table entries were seen" if not found.is_linear else ""
        return Outcome(opened_with_blocks(case.target, found), note=note)


def recovered_transform(key: BlockKey, before: torch.Tensor, after: torch.Tensor) -> tuple[BlockTransform, int]:
    """The key that turns images into others.

    Args:
        key: Its public side.
        before: (n, channels, height, width) pixels in [0, 1].
        after: The same images, transformed.

    Returns:
        The key, and how many of its table's entries were seen; with ffx, one that does the same to images may be
        given: a negated entry that is encrypted is another table's plain one.
    """
    size = key.description.block_size
    plain, shown = (_entries(images, size) for images in (before, after))
    return _recover_linear(key, plain, shown) if key.is_linear else _recover_table(key, plain, shown)


def _entries(images: torch.Tensor, block_size: int) -> torch.Tensor:
    """(p, positions) float64 values of each of a block's entries; positions spread evenly over all blocks."""
    values = space_to_depth(images, block_size).movedim(1, 0).flatten(1).double()
    return values[:, :: max(1, values.shape[1] // _MOST_POSITIONS)]


def _recover_linear(key: BlockKey, plain: torch.Tensor, shown: torch.Tensor) -> tuple[BlockTransform, int]:
    kept, turned = torch.cdist(shown, plain, p=1), torch.cdist(shown, 1 - plain, p=1)
    distance = torch.minimum(kept, turned) if key.has("np") else kept
    order = greedy_assignment(-distance) if key.has("shf") else torch.arange(key.entries)
    rows = torch.arange(key.entries)
    negated = (turned[rows, order] < kept[rows, order]) & key.has("np")
    return replace(key.nothing(), permutation=order, negated=negated), 0


def _recover_table(key: BlockKey, plain: torch.Tensor, shown: torch.Tensor) -> tuple[BlockTransform, int]:
    """Whatever a table does, equal bytes stay equal and others different: that tells which entry went where."""
    plain = (plain * (_BYTES - 1)).round().long()
    divisor = _divisor(shown)
    numbers = (shown * divisor).round().long()
    same = -torch.cdist(_firsts(numbers).double(), _firsts(plain).double(), p=0)
    order = greedy_assignment(same) if key.has("shf") else torch.arange(key.entries)
    moved = plain[order]
    kept, turned = (numbers == moved).all(1), (numbers == _BYTES - 1 - moved).all(1)
    encrypted, negated = ~(kept | turned), turned & ~kept
    table, seen = _table(key, numbers, moved, encrypted, negated)
    if divisor not in table.tolist():
        table[(~seen).nonzero()[-1]] = divisor  # the transform divides by the table's largest entry
    found = replace(key.nothing(), permutation=order, negated=negated, encrypted=encrypted, table=table)
    return found, int(seen.sum())


def _table(
    key: BlockKey, numbers: torch.Tensor, moved: torch.Tensor, encrypted: torch.Tensor, negated: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The table and what of it was seen, entry by entry; sets in `negated` which entries read it the other way."""
    table, seen = torch.arange(_BYTES), torch.zeros(_BYTES, dtype=torch.bool)
    for entry in encrypted.nonzero().flatten().tolist():
        ways = [moved[entry], _BYTES - 1 - moved[entry]] if key.has("np") else [moved[entry]]
        wrong = [int((seen[read] & (table[read] != numbers[entry])).sum()) for read in ways]
        negated[entry] = len(ways) > 1 and wrong[1] < wrong[0]
        read = ways[int(negated[entry])]
        table[read], seen[read] = numbers[entry], True
    return table.to(torch.int16), seen


def _divisor(shown: torch.Tensor) -> int:
    """What whole numbers were divided by: the least that makes all of them whole again."""
    values = torch.unique(shown)
    divisors = torch.arange(_BYTES - 1, _LARGEST + 1).view(-1, 1)
    products = values * divisors
    whole = ((products - products.round()).abs() < _WHOLE).all(1)
    return int(divisors[whole][0]) if whole.any() else _BYTES - 1


def _firsts(values: torch.Tensor) -> torch.Tensor:
    """For each value of a row the position where it occurs first: the same for all tables.

    Args:
        values: (p, positions) whole numbers in 0..999.
    """
    first = torch.full((len(values), _LARGEST + 1), values.shape[1])
    places = torch.arange(values.shape[1]).expand_as(values)
    first.scatter_reduce_(1, values, places, "amin")
    return first.gather(1, values)
