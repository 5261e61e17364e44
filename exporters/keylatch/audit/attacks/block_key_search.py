"""Search for a block transform's key by queries: exchange entries, keep what is not worse (arXiv 2103.03525)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._clock import Clock
from keylatch.audit._target import Target
from keylatch.audit.attacks._block_key import (
    Behind,
    BlockKey,
    block_key,
    opened_with_blocks,
    pixels_of,
    required_block_key,
)
from keylatch.locks import BlockTransform

_BATCH = 128
_SWEEPS = 10
# Ten sweeps over blocks of 2 x 2 are 900 of the paper's queries; over larger ones even the first has more.
_QUERIES = 1000


@dataclass(frozen=True, slots=True)
class Climb:
    """Where a search led.

    Attributes:
        transform: The key.
        start: Share of right answers with the key it began with, 0 to 1.
        reached: With this one.
        queries: How often the batch was run.
    """

    transform: BlockTransform
    start: float
    reached: float
    queries: int


@dataclass(frozen=True, slots=True)
class BlockKeySearch:
    """The key estimation attack of the transform's own authors (arXiv 2103.03525, section on key estimation).

    It begins with a random key and tries all exchanges of two entries of the permutation, then all flips of single
    entries of the other steps, ten times over; it keeps a change if the accuracy on one batch is not worse. The
    password of ffx cannot be climbed to: its table stays random.

    Attributes:
        queries: At most; ten whole sweeps over blocks of 4 x 4 take 11,281.
        version: As for all attacks.
    """

    name: str = "block-key-search"
    needs: str = "labeled images"
    summary: str = "Exchanges and flips entries of a random block key, keeping what does not hurt accuracy on a batch."
    version: int = 1
    queries: int = _QUERIES

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """With the most labels; for block transforms, beside a closed code lock too."""
        if block_key(target) is None:
            return []
        settings = {"sweeps": _SWEEPS, "queries": self.queries}
        return [Variant(Given(labeled=count), settings=settings, weight=6) for count in resources.labeled[-1:]]

    def run(self, case: Case) -> Outcome:
        """Search, and open with the key found."""
        key, settings = required_block_key(case.target), case.variant.settings
        queries = int(settings["queries"])
        merit = batch_accuracy(case.target, case.images[:_BATCH], case.labels[:_BATCH])
        changes = itertools.chain.from_iterable(moves(key, case.generator) for _ in range(int(settings["sweeps"])))
        found = climb(merit, key.random(case.generator), changes, case.clock, queries)
        return Outcome(
            opened_with_blocks(case.target, found.transform),
            cost={"queries": found.queries},
            note=f"from {found.start:.0%} to {found.reached:.0%} of the batch",
            truncated=case.clock.expired and found.queries < queries,
        )


Move = Callable[[BlockTransform], BlockTransform]


def climb(
    merit: Callable[[BlockTransform], float], start: BlockTransform, changes: Iterator[Move], clock: Clock, queries: int
) -> Climb:
    """Take one change after another if the merit is not worse, until changes, queries or time are spent."""
    best, first = start, merit(start)
    reached, used = first, 1
    for change in changes:
        if used >= queries or clock.expired:
            break
        changed = change(best)
        value = merit(changed)
        used += 1
        if value >= reached:
            best, reached = changed, value
    return Climb(best, first, reached, used)


def batch_accuracy(target: Target, images: torch.Tensor, labels: torch.Tensor) -> Callable[[BlockTransform], float]:
    """The share of a batch that the network behind the transform gets right with a key, 0 to 1."""
    behind, pixels = Behind(target), pixels_of(target.spec, images)

    def merit(transform: BlockTransform) -> float:
        with torch.no_grad():
            return float((behind(transform.values(pixels)).argmax(1) == labels).double().mean())

    return merit


def moves(key: BlockKey, generator: torch.Generator) -> Iterator[Move]:
    """All changes of one sweep, in random order within each step: of a large block only some are tried."""
    if key.has("shf"):
        pairs = torch.combinations(torch.arange(key.entries))
        for place in torch.randperm(len(pairs), generator=generator).tolist():
            yield _exchanging(*pairs[place].tolist())
    for step, field in (("np", "negated"), ("ffx", "encrypted")):
        if key.has(step):
            for entry in torch.randperm(key.entries, generator=generator).tolist():
                yield _flipping(field, entry)


def _exchanging(first: int, second: int) -> Move:
    def change(transform: BlockTransform) -> BlockTransform:
        order = transform.permutation.clone()
        order[[first, second]] = order[[second, first]]
        return replace(transform, permutation=order)

    return change


def _flipping(field: str, entry: int) -> Move:
    def change(transform: BlockTransform) -> BlockTransform:
        mask = getattr(transform, field).clone()
        mask[entry] = ~mask[entry]
        return replace(transform, **{field: mask})

    return change
