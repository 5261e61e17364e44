"""The rules by which attacks are judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from keylatch.audit._attack import Given
from keylatch.audit._baselines import PUBLIC_BASE
from keylatch.audit._result import AttackResult, BaselineResult, NearKey, NotRun, Verdict

MARGIN_POINTS = 5.0
# Each guess is an inference, and the code has to be guessed whole: 2^80 of them are out of anybody's reach.
LEAST_KEY_BITS = 80
_DECIMALS = 9  # differences of floats: 55.1 - 50.1 is more than 5
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Judgment:
    """A verdict, and a sentence that says it in plain words."""

    verdict: Verdict
    summary: str


def beats(recovered: float, baseline: float) -> bool:
    """Whether an accuracy is more than five points above another; exactly five is not. Both in percent."""
    return round(recovered - baseline, _DECIMALS) > MARGIN_POINTS


def better_baseline(given: Given, baselines: Iterable[BaselineResult], chance: BaselineResult) -> BaselineResult:
    """The best that somebody with the same things gets without the locked weights.

    Chance for who has no labels; the public base as it is, if it is at hand; and what trained on as many images.
    """
    counts = {given.labeled} - {0} | ({0} if given.base or given.labeled else set())
    fitting = [row for row in baselines if row.labeled in counts and (row.labeled or row.name == PUBLIC_BASE)]
    return max([chance, *fitting], key=lambda row: row.accuracy)


@dataclass(frozen=True, slots=True)
class KeySpace:
    """How many keys there are, and how near each other.

    Attributes:
        unit: What a key has, ``bits`` or ``entries``.
        size: How many.
        log2_chance: For a number of wrong ones, log2 of the chance that a random key is as near.
    """

    unit: str
    size: int
    log2_chance: Callable[[int], float]


def near_keys(
    measured: Mapping[int, Sequence[float]], space: KeySpace, chance: float
) -> tuple[tuple[NearKey, ...], float | None]:
    """Judge keys that are nearly right.

    Args:
        measured: Number of wrong bits or entries to accuracies, one for each seed.
        space: All keys.
        chance: Accuracy of a guess, in percent.

    Returns:
        The rows, nearest first; and the effective key length in bits, None if nothing was measured: -log2 of the
        chance to come as near as the farthest key that still opens. Only an unbroken run from the nearest key on
        counts, for among many far keys one may be lucky on the images at hand.
    """
    rows, opens = [], True
    for wrong, accuracies in sorted(measured.items()):
        mean = sum(accuracies) / len(accuracies)
        opens = opens and beats(mean, chance)
        range_ = (mean, min(accuracies), max(accuracies), len(accuracies))
        rows.append(NearKey(wrong, space.unit, 100 * wrong / space.size, *range_, space.log2_chance(wrong), opens))
    if not rows:
        return (), None
    farthest = max((row.wrong for row in rows if row.opens), default=0)
    return tuple(rows), -space.log2_chance(farthest)


def judge(attacks: Sequence[AttackResult], key_bits: float | None, not_run: Sequence[NotRun]) -> Judgment:
    """Come to a verdict.

    Args:
        attacks: All attacks, near keys among them.
        key_bits: Effective key length, if it is known and the key is all that a thief lacks: whoever guesses a code
            still has no withheld weights.
        not_run: What is missing.
    """
    breaks = sorted((row for row in attacks if row.broken), key=lambda row: row.baseline - row.recovered)
    if breaks:
        return Judgment("broken", _broken(breaks))
    if key_bits is not None and key_bits < LEAST_KEY_BITS:
        found = f"Broken: keys that are nearly right open it, and the key is worth {key_bits:.0f} bits"
        return Judgment("broken", f"{found}, less than {LEAST_KEY_BITS}.")
    open_ends = [f"{row.name} ({row.variant})" for row in not_run if row.matters]
    cut_short = [f"{row.name} ({row.variant})" for row in attacks if row.counts and row.truncated]
    if open_ends or cut_short:
        return Judgment("incomplete", _incomplete(open_ends, cut_short))
    return Judgment("holds", _holds(attacks))


def _broken(breaks: Sequence[AttackResult]) -> str:
    worst = breaks[0]
    others = f"; {len(breaks) - 1} more beat theirs" if len(breaks) > 1 else ""
    return (
        f"Broken: {worst.name} ({worst.variant}) recovers {worst.recovered:.1f} %, where the better baseline, "
        f"{worst.baseline_name}, has {worst.baseline:.1f} %{others}."
    )


def _incomplete(missing: Sequence[str], cut_short: Sequence[str]) -> str:
    parts = [
        f"{len(names)} measurement{'s were' if len(names) > 1 else ' was'} {what}: {_named(names)}"
        for names, what in ((missing, "not made"), (cut_short, "cut short"))
        if names
    ]
    return f"No break was found, but {' and '.join(parts)}. Run it again with more minutes."


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _holds(attacks: Sequence[AttackResult]) -> str:
    counting = [row for row in attacks if row.counts]
    if not counting:
        return "It holds, but no attack applied to it."
    nearest = max(counting, key=lambda row: row.recovered - row.baseline)
    return (
        f"It holds: no attack comes more than {MARGIN_POINTS:.0f} points above the better baseline. The nearest is "
        f"{nearest.name} ({nearest.variant}) with {nearest.recovered:.1f} %, beside {nearest.baseline:.1f} % "
        f"{'by' if nearest.baseline_name == 'chance' else 'from the'} {_baseline_words(nearest.baseline_name)}."
    )


def _baseline_words(name: str) -> str:
    return {"from scratch": "network trained from scratch"}.get(name, name)
