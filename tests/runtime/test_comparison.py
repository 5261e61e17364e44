"""Timing two callables in turn: the order, the counts and the figures; never how long anything takes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from keylatch.runtime import Comparison, _comparison, compare


def run(pairs: int, warmup: int) -> tuple[list[str], Comparison]:
    calls: list[str] = []
    made = compare(lambda: calls.append("b"), lambda: calls.append("c"), pairs=pairs, warmup=warmup)
    return calls, made


@pytest.mark.parametrize(("pairs", "warmup"), [(1, 0), (4, 0), (5, 3), (6, 5)])
def test_each_runs_once_a_pair_and_warmup_is_not_counted(pairs: int, warmup: int) -> None:
    calls, made = run(pairs, warmup)
    assert calls.count("b") == calls.count("c") == pairs + warmup
    assert made.baseline_ms.shape == made.candidate_ms.shape == (pairs,)


def test_the_order_alternates_from_pair_to_pair() -> None:
    calls, _ = run(6, 3)
    couples = ["".join(calls[index : index + 2]) for index in range(0, len(calls), 2)]
    assert set(couples) == {"bc", "cb"}
    assert all(first != second for first, second in pairwise(couples))


def test_times_go_to_the_callable_that_took_them(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0]
    monkeypatch.setattr(_comparison.time, "perf_counter_ns", lambda: clock[0])

    def takes(milliseconds: int) -> None:
        clock[0] += milliseconds * 1_000_000

    made = compare(lambda: takes(2), lambda: takes(3), pairs=7)
    assert made.baseline_ms.tolist() == [2.0] * 7
    assert made.candidate_ms.tolist() == [3.0] * 7
    assert made.ratio == 1.5
    assert made.ratio_interval() == (1.5, 1.5)


def test_freeing_a_result_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0]
    monkeypatch.setattr(_comparison.time, "perf_counter_ns", lambda: clock[0])

    class Result:
        def __del__(self) -> None:
            clock[0] += 10**9

    assert compare(Result, Result, pairs=3).baseline_ms.tolist() == [0.0] * 3


def test_progress_is_told_of_counted_pairs() -> None:
    told: list[int] = []
    compare(int, int, pairs=4, warmup=2, progress=lambda: told.append(1))
    assert len(told) == 4


def _drawn(pairs: int = 200) -> Comparison:
    draws = np.random.default_rng(3)
    baseline = draws.uniform(1, 2, pairs)
    return Comparison(baseline, baseline * draws.normal(1.2, 0.05, pairs))


def test_the_ratio_is_the_median_over_pairs() -> None:
    made = Comparison(np.array([1.0, 1.0, 10.0]), np.array([2.0, 3.0, 11.0]))
    assert made.ratio == 2.0


def test_the_interval_contains_the_ratio_and_narrows() -> None:
    made = _drawn()
    low, high = made.ratio_interval()
    assert low < made.ratio < high
    assert 1.1 < low < high < 1.3
    narrow_low, narrow_high = made.ratio_interval(0.5)
    assert low < narrow_low <= made.ratio <= narrow_high < high
    few_low, few_high = _drawn(12).ratio_interval()
    assert few_high - few_low > high - low


def test_the_interval_is_deterministic() -> None:
    assert _drawn().ratio_interval() == _drawn().ratio_interval()


def test_percentiles_are_of_baseline_and_candidate() -> None:
    made = Comparison(np.arange(1.0, 102.0), np.arange(2.0, 103.0))
    assert made.percentiles(50) == (51.0, 52.0)
    assert made.percentiles(99) == (100.0, 101.0)


def test_a_comparison_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        _drawn().baseline_ms = np.zeros(1)  # type: ignore[misc]
