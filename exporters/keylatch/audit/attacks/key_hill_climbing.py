"""Search for the code by queries: flip bits, keep what helps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._clock import Clock
from keylatch.audit._target import Target
from keylatch.audit.attacks._code_key import code_key, opened_with_signs
from keylatch.audit.attacks._sign_search import SignObjective, at_once

_BATCH = 128
_UNLABELED = 200
_QUERIES = 500
_PAIR_SWEEPS = 4  # pairs tried before a climb is given up, for each bit

Loss = Callable[[torch.Tensor], float]


@dataclass(frozen=True, slots=True)
class Found:
    """The best of a search.

    Attributes:
        code: (d,) in {-1, +1}.
        loss: On the attacker's images.
        queries: How often the network was run.
    """

    code: torch.Tensor
    loss: float
    queries: int


@dataclass(frozen=True, slots=True)
class KeyHillClimbing:
    """Flips bits of a random code, one or two at a time, as long as that helps, and starts again at the top.

    The attacker has the graph, so he needs no patch: he enters it behind the code. His loss is the cross-entropy of
    labeled images, or the information loss of unlabeled ones (`_sign_search`).
    """

    name: str = "key-hill-climbing"
    needs: str = "unlabeled or labeled images"
    summary: str = "Searches the code bit by bit, keeping the flips that make the outputs better."
    version: int = 2

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """With the most labels, and without any; for code locks."""
        if code_key(target) is None:
            return []
        unlabeled = [Given(unlabeled=min(_UNLABELED, resources.pool))] if resources.pool else []
        labeled = [Given(labeled=count) for count in resources.labeled[-1:]]
        return [Variant(given, settings={"queries": _QUERIES}, weight=6) for given in (*unlabeled, *labeled)]

    def run(self, case: Case) -> Outcome:
        """Search, and open with the best code found."""
        key = code_key(case.target)
        assert key is not None, "variants() gives none for other locks"  # noqa: S101
        count = at_once(case.images, _BATCH)
        objective = SignObjective(case.target, case.images[:count], case.labels[:count] if len(case.labels) else None)
        everything = torch.arange(len(objective))

        def loss(code: torch.Tensor) -> float:
            with torch.no_grad():
                return float(objective(key.signs(code), everything))

        queries = int(case.variant.settings["queries"])
        found = search(loss, lambda: key.random_code(case.generator), case.generator, case.clock, queries)
        signs = key.signs(found.code)
        return Outcome(
            opened_with_signs(case.target, signs, case.images, key),
            cost={"queries": found.queries},
            note=f"the best code's loss is {found.loss:.3f}",
            signs=tuple(signs),
            truncated=found.queries < queries,
        )


def search(
    loss: Loss, start: Callable[[], torch.Tensor], generator: torch.Generator, clock: Clock, queries: int
) -> Found:
    """Climb from one start after another until queries or time are spent; gives the best of all."""
    best = climb(loss, start(), generator, clock, queries)
    used = best.queries
    while used < queries and not clock.expired:
        found = climb(loss, start(), generator, clock, queries - used)
        used += found.queries
        best = min(best, found, key=lambda each: each.loss)
    return Found(best.code, best.loss, used)


def climb(loss: Loss, code: torch.Tensor, generator: torch.Generator, clock: Clock, queries: int) -> Found:
    """Climb from one code: the best single flips first, all bits or random pairs where none helps, until none does."""
    query = Query(loss, clock, queries)
    found = Found(code, query(code), query.used)
    while not query.spent:
        better = (
            _best_flips(query, found, generator) or _inverted(query, found) or _better_pair(query, found, generator)
        )
        if better is None:
            break
        found = better
    return Found(found.code, found.loss, query.used)


class Query:
    """A loss that counts.

    Args:
        loss: Of a code.
        clock: When to stop asking.
        most: How often it may be asked.
    """

    def __init__(self, loss: Loss, clock: Clock, most: int) -> None:
        self._loss, self._clock, self._most, self.used = loss, clock, most, 0

    @property
    def spent(self) -> bool:
        """Whether it should not be asked again."""
        return self.used >= self._most or self._clock.expired

    def __call__(self, code: torch.Tensor) -> float:
        """The loss."""
        self.used += 1
        return self._loss(code)


def _best_flips(query: Query, found: Found, generator: torch.Generator) -> Found | None:
    """Try all single flips, then put those that helped together, the best first, as long as that helps."""
    losses: list[tuple[float, int]] = []
    for bit in torch.randperm(len(found.code), generator=generator).tolist():
        if query.spent:
            break
        losses.append((query(_flipped(found.code, [bit])), bit))
    best = found
    for value, bit in sorted(entry for entry in losses if entry[0] < found.loss):
        if best is not found and query.spent:
            break
        code = _flipped(best.code, [bit])
        together = value if best is found else query(code)
        if together < best.loss:
            best = Found(code, together, query.used)
    return None if best is found else best


def _inverted(query: Query, found: Found) -> Found | None:
    """All bits at once: the inverted code inverts all signs, and searches without labels are drawn to it too."""
    if query.spent:
        return None
    value = query(-found.code)
    return Found(-found.code, value, query.used) if value < found.loss else None


def _better_pair(query: Query, found: Found, generator: torch.Generator) -> Found | None:
    """The first of some random pairs of flips that helps."""
    pairs = torch.combinations(torch.arange(len(found.code)))
    chosen = torch.randperm(len(pairs), generator=generator)[: _PAIR_SWEEPS * len(found.code)]
    for pair in pairs[chosen].tolist():
        if query.spent:
            return None
        code = _flipped(found.code, pair)
        value = query(code)
        if value < found.loss:
            return Found(code, value, query.used)
    return None


def _flipped(code: torch.Tensor, bits: list[int]) -> torch.Tensor:
    flipped = code.clone()
    flipped[bits] *= -1
    return flipped
