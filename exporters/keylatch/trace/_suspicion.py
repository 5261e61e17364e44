"""Scores to a verdict: who is named, and how likely it is that anybody was named wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from keylatch.errors import InputError
from keylatch.keys import Marked, log10_chance

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

FALSE_ACCUSATION = 1e-6  # chance that a trace names anybody who is innocent
_SHOWN = 3  # of the licenses that are not named, the nearest


@dataclass(frozen=True, slots=True)
class Suspect:
    """A license and what speaks against it.

    Attributes:
        licenses: Its id, and those of its renewals, which carry the same word.
        customer: To whom it was sold.
        score: Product of its word with a direction of length 1; of an innocent license as a standard normal number.
        log10_chance: log10 of a bound on the chance that any innocent license scores this high.
        named: Whether that is below the limit.
    """

    licenses: tuple[str, ...]
    customer: str
    score: float
    log10_chance: float
    named: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """The verdict on a leak.

    Attributes:
        source: ``weights`` or ``predictions``.
        suspects: Those that are named, and the nearest others, the highest score first.
        candidates: Licenses that were compared.
        tries: How many directions; the bound is multiplied by it.
        limit: Largest chance of naming anybody wrongly.
        threshold: The score from which a license is named.
        evidence: What was found: tensors and their likeness, or images and what predictions say.
    """

    source: str
    suspects: tuple[Suspect, ...]
    candidates: int
    tries: int
    limit: float
    threshold: float
    evidence: tuple[dict[str, Any], ...]

    @property
    def named(self) -> tuple[Suspect, ...]:
        """Whose licenses the leak came from, as far as can be said; several if they colluded; () if none matches."""
        return tuple(suspect for suspect in self.suspects if suspect.named)

    @property
    def verdict(self) -> str:
        """``named`` or ``none``."""
        return "named" if self.named else "none"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"verdict": self.verdict, **asdict(self)}


def require_chance(limit: float) -> None:
    """Refuse a limit that is no chance.

    Raises:
        InputError: It is not above 0 and below 1.
    """
    if not 0 < limit < 1:
        raise InputError(f"a chance of {limit} is not between 0 and 1", hint="give e.g. 1e-6")


def judge(
    licenses: Sequence[Marked],
    scores: Array,
    *,
    source: str,
    limit: float,
    evidence: Sequence[dict[str, Any]],
) -> Trace:
    """Name whom scores speak against.

    Args:
        licenses: All that were compared.
        scores: (tries, licenses); the highest of a license counts.
        source: ``weights`` or ``predictions``.
        limit: Largest chance of naming anybody wrongly, above 0, below 1.
        evidence: What they rest on.
    """
    tries, candidates = scores.shape
    best = scores.max(0)
    order = np.argsort(-best, kind="stable")
    suspects: list[Suspect] = []
    for place in order:
        chance = log10_chance(float(best[place]), tries * candidates)
        named = chance <= np.log10(limit)
        if named or len(suspects) < _SHOWN:
            marked = licenses[place]
            suspects.append(Suspect(marked.licenses, marked.customer, float(best[place]), chance, bool(named)))
    threshold = float(np.sqrt(2 * np.log(tries * candidates / limit)))
    return Trace(source, tuple(suspects), candidates, tries, limit, threshold, tuple(evidence))
