"""Which steps a block transform may have, and how many keys there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from keylatch.errors import LockError

Step = Literal["shf", "np", "ffx"]

STEPS: tuple[Step, ...] = ("shf", "np", "ffx")
# The password of the format-preserving encryption, an AES-256 key.
PASSWORD_BITS = 256


def require_steps(steps: Sequence[str], *, block_size: int, channels: int) -> None:
    """Refuse a sequence of steps that is no lock.

    Args:
        steps: In the order applied.
        block_size: M.
        channels: Image channels.

    Raises:
        LockError: If there is none, one is unknown or repeated, ffx is not last, or the keys are few enough to try.
    """
    named = f"expected one or more of {', '.join(STEPS)}"
    if not steps:
        raise LockError(f"a block transform without steps does nothing, {named}", hint="take ['shf', 'np']")
    unknown = next((step for step in steps if step not in STEPS), None)
    if unknown is not None:
        raise LockError(f"unknown step {unknown!r}, {named}", hint="give a list such as ['shf', 'np']")
    if len(set(steps)) < len(steps):
        raise LockError(f"steps {'+'.join(steps)} repeat one, {named}", hint="name each step once: twice adds no key")
    if "ffx" in steps[:-1]:
        raise LockError(f"steps {'+'.join(steps)} go on after ffx, whose numbers are no bytes", hint="name ffx last")
    _require_enough_keys(steps, block_size, channels)


def _require_enough_keys(steps: Sequence[str], block_size: int, channels: int) -> None:
    if tuple(steps) == ("np",) and block_size == 2:
        bits = log2_key_space(steps, channels * block_size**2)
        raise LockError(
            f"np alone with blocks of 2 x 2 has {bits:.1f} bits of keys, few enough to try them all",
            hint="take blocks of 4 x 4 or larger, or add shf",
        )


def log2_key_space(steps: Sequence[str], entries: int) -> float:
    """Bits of key: log2 of the number of keys, all equally likely (docs/locks.md, section 2).

    An upper bound on the work of an attacker: one image and its transform give away shf and np at once.

    Args:
        steps: In any order.
        entries: p, the length of a block's vector.
    """
    passwords = PASSWORD_BITS * sum(step == "ffx" for step in steps)
    return passwords + sum((_log2_choices(step, entries) for step in steps), 0.0)


def log2_chance_near(steps: Sequence[str], entries: int, wrong: int) -> float:
    """log2 of the chance that a random key has at most so many entries wrong in every step.

    An entry of a permutation is wrong if it comes from another place; of the steps that take half of the entries, if it
    is taken and should not be, or the other way round. The password of ffx does not count: a network hardly looks at
    what is encrypted, and any table opens it far once the entries are right (docs/results.md).

    Args:
        steps: In any order.
        entries: p, the length of a block's vector.
        wrong: From 0 to p.
    """
    return sum((_log2_near(step, entries, wrong) for step in steps), 0.0)


def _log2_near(step: str, entries: int, wrong: int) -> float:
    if step == "shf":
        near = sum(math.comb(entries, moved) * _derangements(moved) for moved in range(wrong + 1))
    else:
        half = entries // 2
        near = sum(math.comb(half, pairs) * math.comb(entries - half, pairs) for pairs in range(wrong // 2 + 1))
    return math.log2(near) - _log2_choices(step, entries)


def _derangements(number: int) -> int:
    """Permutations that leave nothing in its place."""
    count = 1
    for size in range(1, number + 1):
        count = size * count + (-1) ** size
    return count


def _log2_choices(step: str, entries: int) -> float:
    """Of entries: what moves where, or which half is taken."""
    if step == "shf":
        return _log2_factorial(entries)
    half = entries // 2
    return _log2_factorial(entries) - _log2_factorial(half) - _log2_factorial(entries - half)


def _log2_factorial(number: int) -> float:
    return math.lgamma(number + 1) / math.log(2)
