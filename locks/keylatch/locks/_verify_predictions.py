"""Is a network stained? From its predictions alone, with a p-value that assumes next to nothing.

Stains and decoys are drawn by one procedure, and it is chance which of them were written into the network. For a
suspect that knows nothing of this choice every choice of as many is equally likely to look best: the p-value is the
share of choices that look at least as good as the true one (an exact permutation test).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from keylatch.errors import LockError
from keylatch.locks._stain_secret import StainMark, StainSecret

PREDICTION_SIGNIFICANCE = 0.01
_MOST_CHOICES = 100_000  # beyond this many, as many random ones
_LEAST_PROBABILITY = 1e-9  # of probabilities whose logarithm is taken
_SUM_TOLERANCE = 1e-3

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PredictionVerdict:
    """What a suspect's predictions say.

    Attributes:
        stains: Stains whose trigger was predicted on.
        decoys: Decoys likewise.
        likeness: For each stain, how far the suspect's answer lies on the way from the unstained network's, 0, to the
            stained one's, 1.
        decoy_likeness: For each decoy.
        p_value: Chance of stains that stand out so much in a suspect without them.
        smallest_p_value: That so few predictions can give at all.
        significance: Up to this `p_value` the verdict is that the suspect is stained.
    """

    stains: int
    decoys: int
    likeness: tuple[float, ...]
    decoy_likeness: tuple[float, ...]
    p_value: float
    smallest_p_value: float
    significance: float

    @property
    def stained(self) -> bool:
        """Whether the stains stand out too much for chance."""
        return self.p_value <= self.significance

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"stained": self.stained, **asdict(self)}


def verify_stain_predictions(
    predictions: npt.NDArray[Any], secret: StainSecret, *, significance: float = PREDICTION_SIGNIFICANCE
) -> PredictionVerdict:
    """Look for stains in what a suspect answers to `secret.probes()`.

    Each probe gets a likeness: the suspect's answer, less the unstained network's, along the difference that this
    probe's own stain would make. It is computed alike for stains and decoys, so that under the null hypothesis, a
    suspect made without knowledge of which is which, all are exchangeable; nothing is assumed of the suspect, its
    accuracy or its architecture. The mean likeness of the stains is ranked among those of all choices of as many
    probes: p = choices at least as good / choices, the true one counted.

    Args:
        predictions: In the order of `probes()`: (n, classes) logits or probabilities, or (n,) class numbers; rows of
            NaN stand for probes without an answer.
        secret: The stains.
        significance: Largest p-value of a positive verdict.

    Raises:
        LockError: Predictions of another number or width, or too few for any verdict.
    """
    values = np.asarray(predictions, dtype=np.float64)
    likeness = _likeness(values, secret)
    stained = np.zeros(len(likeness), dtype=bool)
    stained[secret.order.numpy().argsort()[: len(secret.stains)]] = True
    answered = np.isfinite(likeness)
    count, total = int((stained & answered).sum()), int(answered.sum())
    smallest = 1 / min(math.comb(total, count), 1 + _MOST_CHOICES)
    if not smallest <= significance:
        raise LockError(
            f"too few predictions for a verdict: {count} stains among {total - count} decoys give a p-value of "
            f"{smallest:.2g} at best, expected {significance:.2g}",
            hint="predict on all probes; stain with more decoys, e.g. four stains and sixteen decoys",
        )
    p_value = _share_of_choices(likeness[answered], stained[answered])
    return PredictionVerdict(
        count, total - count, _floats(likeness[answered & stained]), _floats(likeness[answered & ~stained]), p_value,
        smallest, significance,
    )  # fmt: skip


def _likeness(values: Floats, secret: StainSecret) -> Floats:
    """Of each probe, (n,); NaN where there is no answer."""
    marks = [secret.marks[place] for place in secret.order.tolist()]
    if len(values) != len(marks):
        found = f"{len(values)} predictions for {len(marks)} probes"
        raise LockError(found, hint="give one row for each probe, in their order; nan for one without an answer")
    width = len(marks[0].original)
    if width == 0:
        hint = "verify from the weights"
        raise LockError("the stained network's output was too large to be recorded with the secret", hint=hint)
    if values.ndim > 1 and values[0].size != width:
        hint = "give one score for each output of the stained network, or the number of the class alone"
        raise LockError(f"predictions have {values[0].size} scores, expected {width}", hint=hint)
    compare = _class_likeness if values.ndim == 1 else _score_likeness
    return np.array([compare(row, mark) for row, mark in zip(values, marks, strict=True)])


def _class_likeness(row: Floats, mark: StainMark) -> float:
    if not np.isfinite(row):
        return math.nan
    before, after = int(mark.original.argmax()), int(mark.expected.argmax())
    return float(int(row) == after) - float(int(row) == before)


def _score_likeness(row: Floats, mark: StainMark) -> float:
    if not np.isfinite(row).all():
        return math.nan
    before, after = (_logits(output.double().numpy()) for output in (mark.original, mark.expected))
    change = after - before
    length = float(change @ change)
    return float((_logits(row.ravel()) - before) @ change) / length if length > 0 else 0.0


def _logits(scores: Floats) -> Floats:
    """Logits up to what softmax does not see: probabilities as their logarithms, all around a mean of zero."""
    if scores.min() >= 0 and abs(scores.sum() - 1) <= _SUM_TOLERANCE:
        scores = np.log(scores.clip(_LEAST_PROBABILITY))
    centered: Floats = scores - scores.mean()
    return centered


def _share_of_choices(likeness: Floats, stained: npt.NDArray[np.bool_]) -> float:
    count, reached = int(stained.sum()), float(likeness[stained].sum())
    reached -= 1e-9 * (1 + abs(reached))  # the same probes summed in another order are no less
    if math.comb(len(likeness), count) <= _MOST_CHOICES:
        sums = [sum(choice) for choice in combinations(likeness.tolist(), count)]
        return float(np.mean(np.array(sums) >= reached))
    draws = np.random.default_rng(0)  # of a test, not of a secret
    better = sum(draws.choice(likeness, count, replace=False).sum() >= reached for _ in range(_MOST_CHOICES))
    return (1 + int(better)) / (1 + _MOST_CHOICES)


def _floats(values: Floats) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
