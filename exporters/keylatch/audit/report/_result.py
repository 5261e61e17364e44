"""The JSON of an audit, read as values. What is null, missing, not finite or of another type is None or empty."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

Json: TypeAlias = Mapping[str, Any]
WITH_BASE = -1


@dataclass(frozen=True, slots=True)
class Measured:
    """An accuracy in percent, and its range over the seeds."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, entry: Json) -> Self:
        """Read an entry's accuracy, which attacks and near keys call ``recovered``, its ``low`` and ``high``."""
        value = real(entry, "recovered")
        return cls(real(entry, "accuracy") if value is None else value, real(entry, "low"), real(entry, "high"))


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack with one budget.

    Attributes:
        recovered: Accuracy of what the attacker got.
        baseline: Accuracy, in percent, of what the same attacker has without the locked model.
        broken: Whether it beats the baseline by more than the margin.
        counts: Whether an outsider can do this.
        signs_right: For each gate the share of signs recovered, in percent.
    """

    name: str
    variant: str
    summary: str
    given: str
    labeled: int
    recovered: Measured
    baseline: float | None
    baseline_name: str
    broken: bool
    counts: bool
    seeds: int
    seconds: float | None
    cost: Json
    truncated: bool
    note: str
    signs_right: tuple[float, ...]

    @classmethod
    def of(cls, entry: Json) -> Self:
        """Read an entry of ``attacks``."""
        return cls(
            name=string(entry, "name") or "unnamed",
            variant=string(entry, "variant"),
            summary=string(entry, "summary"),
            given=string(entry, "given"),
            labeled=int(real(entry, "labeled") or 0),
            recovered=Measured.of(entry),
            baseline=real(entry, "baseline"),
            baseline_name=string(entry, "baseline_name"),
            broken=bool(entry.get("broken")),
            counts=entry.get("counts") is not False,
            seeds=int(real(entry, "seeds") or 0),
            seconds=real(entry, "seconds"),
            cost=section(entry, "cost"),
            truncated=bool(entry.get("truncated")),
            note=string(entry, "note"),
            signs_right=_percentages(entry.get("signs_right")),
        )

    @property
    def column(self) -> float:
        """Where it stands on the scale of budgets: labeled images, 0 without, `WITH_BASE` without but with a base.

        These two have different baselines, so one line between breaks and the rest takes two columns.
        """
        return self.labeled or (0 if self.baseline_name in ("chance", "") else WITH_BASE)

    @property
    def margin(self) -> float | None:
        """Points above the baseline."""
        if self.recovered.value is None or self.baseline is None:
            return None
        return self.recovered.value - self.baseline


@dataclass(frozen=True, slots=True)
class Baseline:
    """What an attacker has without the locked model."""

    name: str
    labeled: int
    accuracy: Measured
    seeds: int
    note: str

    @classmethod
    def of(cls, entry: Json) -> Self:
        """Read an entry of ``baselines``."""
        labeled, seeds = int(real(entry, "labeled") or 0), int(real(entry, "seeds") or 0)
        return cls(string(entry, "name") or "unnamed", labeled, Measured.of(entry), seeds, string(entry, "note"))


def attacks_in(result: Json) -> list[Attack]:
    """All attacks: breaks first, then what outsiders can do, each by the margin to the baseline."""
    attacks = [Attack.of(entry) for entry in entries(result, "attacks")]
    return sorted(attacks, key=lambda attack: (not attack.broken, not attack.counts, -_rank(attack.margin)))


def strongest(attacks: list[Attack]) -> Attack | None:
    """The counting attack with the largest margin."""
    return next((attack for attack in attacks if attack.counts and attack.margin is not None), None)


def baselines_in(result: Json) -> list[Baseline]:
    """All baselines, each name's together, by budget."""
    baselines = [Baseline.of(entry) for entry in entries(result, "baselines")]
    names = [baseline.name for baseline in baselines]
    return sorted(baselines, key=lambda baseline: (names.index(baseline.name), baseline.labeled))


def entries(source: Json, key: str) -> Iterator[Json]:
    """The objects of a list."""
    value = source.get(key)
    return (entry for entry in (value if isinstance(value, list) else []) if isinstance(entry, Mapping))


def section(source: Json, key: str) -> Json:
    """An object; empty if it is not one."""
    value = source.get(key)
    return value if isinstance(value, Mapping) else {}


def string(source: Json, key: str) -> str:
    """A text; empty if it is null."""
    value = source.get(key)
    return "" if value is None else str(value)


def real(source: Json, key: str) -> float | None:
    """A finite number."""
    return finite(source.get(key))


def finite(value: object) -> float | None:
    """A finite number as a float; truth values are none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _percentages(value: object) -> tuple[float, ...]:
    shares = [finite(share) for share in value] if isinstance(value, list | tuple) else []
    return tuple(share for share in shares if share is not None)


def _rank(margin: float | None) -> float:
    return -math.inf if margin is None else margin
