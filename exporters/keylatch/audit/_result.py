"""What an audit found, as values and as JSON (`keylatch-audit/1`). Accuracies are in percent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

FORMAT = "keylatch-audit/1"
Verdict: TypeAlias = Literal["holds", "broken", "incomplete"]


@dataclass(frozen=True, slots=True)
class References:
    """Accuracies that everything is seen beside; None where what it takes is not there."""

    original: float | None
    unlocked: float | None
    locked: float
    chance: float


@dataclass(frozen=True, slots=True)
class BaselineResult:
    """A baseline over all seeds.

    Attributes:
        name: ``chance``, ``from scratch`` or ``public base``.
        labeled: Number of labeled images it was trained on.
        accuracy: Mean over the seeds.
        low: The lowest.
        high: The highest.
        seeds: How many; 0 if it takes none.
        note: In words.
    """

    name: str
    labeled: int
    accuracy: float
    low: float
    high: float
    seeds: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class AttackResult:
    """One budget of an attack over all seeds.

    Attributes:
        name: The attack's.
        variant: The budget, in words.
        summary: What the attacker does.
        given: What the attacker holds, in words.
        labeled: Number of labeled images.
        unlabeled: Number of unlabeled images.
        recovered: Mean accuracy of the recovered model.
        low: The lowest.
        high: The highest.
        baseline: Accuracy of the better baseline.
        baseline_name: Which that is.
        broken: Whether it counts and beats the baseline.
        counts: Whether an outsider can do this.
        seeds: How many were run.
        seconds: Mean time, without evaluation.
        cost: Mean of each unit.
        truncated: Whether the clock ended a run early.
        note: In words.
        signs_right: For each gate the mean share of signs recovered, in percent; () if not known.
    """

    name: str
    variant: str
    summary: str
    given: str
    labeled: int
    unlabeled: int
    recovered: float
    low: float
    high: float
    baseline: float
    baseline_name: str
    broken: bool
    counts: bool
    seeds: int
    seconds: float
    cost: Mapping[str, float]
    truncated: bool
    note: str
    signs_right: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class NearKey:
    """What a key that is nearly right comes to.

    Attributes:
        wrong: How much of it is wrong.
        unit: Of what: ``bits`` of a code, or ``entries`` of a block transform's key.
        share: Of the whole key, in percent.
        recovered: Mean accuracy.
        low: The lowest.
        high: The highest.
        seeds: How many were run.
        log2_chance: log2 of the chance that a guess comes as near.
        opens: Whether it beats chance, and all nearer keys do too.
    """

    wrong: int
    unit: str
    share: float
    recovered: float
    low: float
    high: float
    seeds: int
    log2_chance: float
    opens: bool


@dataclass(frozen=True, slots=True)
class SurvivalRow:
    """What a change of the model or its images does to both accuracies; None where it was not measured."""

    name: str
    setting: str
    unlocked: float | None
    locked: float | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class NotRun:
    """A measurement that is missing, and why.

    Attributes:
        name: The attack, baseline or change.
        variant: The budget and the seed, in words.
        reason: In words.
        matters: Whether it leaves the verdict open.
    """

    name: str
    variant: str
    reason: str
    matters: bool = True


@dataclass(frozen=True, slots=True)
class AuditResult:
    """All that an audit found; see docs/audit.md for the JSON."""

    verdict: Verdict
    summary: str
    model: Mapping[str, Any]
    accuracy: References
    baselines: tuple[BaselineResult, ...]
    attacks: tuple[AttackResult, ...]
    near_keys: tuple[NearKey, ...]
    effective_key_bits: float | None
    survival: tuple[SurvivalRow, ...]
    not_run: tuple[NotRun, ...]
    images: Mapping[str, Any]
    seeds: tuple[int, ...]
    minutes: Mapping[str, float]
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    command: str

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; floats rounded to two decimals."""
        plain = {name: _rounded(value) for name, value in asdict(self).items()}
        for entry in plain["not_run"]:
            del entry["matters"]
        head = {"format": FORMAT, "verdict": self.verdict, "summary": self.summary}
        # The lock's public description stands in it as it is in the artifact.
        return {**head, **plain, "model": dict(self.model)}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 2)
    if isinstance(value, Mapping):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, (list, tuple)) else value
