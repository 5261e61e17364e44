"""Time two callables against each other, in one process and in turn, so that a drifting clock rate hits both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Comparison:
    """Times of a baseline and a candidate, run in turn.

    Attributes:
        baseline_ms: (n,) milliseconds.
        candidate_ms: (n,) milliseconds; the i-th ran beside the i-th of the baseline.
    """

    baseline_ms: npt.NDArray[np.float64]
    candidate_ms: npt.NDArray[np.float64]

    def percentiles(self, percent: float) -> tuple[float, float]:
        """A percentile of baseline and candidate, in milliseconds."""
        return float(np.percentile(self.baseline_ms, percent)), float(np.percentile(self.candidate_ms, percent))

    @property
    def ratio(self) -> float:
        """Median over the pairs of candidate / baseline."""
        return float(np.median(self.candidate_ms / self.baseline_ms))

    def ratio_interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Bootstrap interval of `ratio` (percentile method, pairs resampled)."""
        ratios = self.candidate_ms / self.baseline_ms
        draws = np.random.default_rng(0).integers(0, len(ratios), (_RESAMPLES, len(ratios)))
        medians = np.median(ratios[draws], axis=1)
        low, high = np.percentile(medians, [50 * (1 - confidence), 50 * (1 + confidence)])
        return float(low), float(high)


def compare(
    baseline: Callable[[], object],
    candidate: Callable[[], object],
    *,
    pairs: int,
    warmup: int = 5,
    progress: Callable[[], object] | None = None,
) -> Comparison:
    """Run two callables in turn and time each.

    Args:
        baseline: The first of each pair; the order alternates from pair to pair.
        candidate: The second.
        pairs: How many pairs are counted.
        warmup: Pairs that are run and not counted.
        progress: Called after each counted pair.
    """
    calls = (baseline, candidate)
    times = np.empty((pairs, 2))
    for index in range(-warmup, pairs):
        for which in (0, 1) if index % 2 else (1, 0):
            start = time.perf_counter_ns()
            result = calls[which]()
            elapsed = time.perf_counter_ns() - start
            del result  # after the clock: freeing it is not part of the call
            if index >= 0:
                times[index, which] = elapsed / 1e6
        if index >= 0 and progress is not None:
            progress()
    return Comparison(times[:, 0], times[:, 1])
