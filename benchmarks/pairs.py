"""Timed pairs for a given number of seconds, and their figures as the results files hold them."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keylatch.runtime import Comparison, compare
from measuring import RESULTS, THREADS, write_results

_LEAST_PAIRS, _MOST_PAIRS, _QUICK_PAIRS = 20, 1000, 3
_RESAMPLES = 2000
_HALF = 0.5

Call = Callable[[], object]


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What every benchmark of speed takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--artifacts", type=Path, help="folder to keep locked networks in, and to find them in again")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each row, about")
    parser.add_argument(
        "--keep", action="store_true", help="keep what an earlier run left for other cases, with its command"
    )
    parser.add_argument("--quick", action="store_true", help="a tiny network and few pairs, to see that it runs")
    return parser


def write_rows(name: str, rows: Sequence[dict[str, Any]], settings: argparse.Namespace, **facts: Any) -> None:
    """Write a benchmark's rows; with `settings.keep` in the places of those that were measured before.

    Args:
        name: Of the file.
        rows: One for each case.
        settings: From `arguments`.
        facts: What else stands in the file.
    """
    path = settings.results / f"{name}.json"
    earlier = json.loads(path.read_text()) if settings.keep and path.exists() else {"rows": []}
    fresh = {_case(row): row for row in rows}
    kept = [fresh.pop(_case(row), {"command": earlier.get("command"), **row}) for row in earlier["rows"]]
    results = {"threads": THREADS, **facts, "rows": [*kept, *fresh.values()]}
    write_results(name, results, folder=settings.results)


def _case(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("network", "provider", "precision", "batch", "mode", "block_size"))


def pairs_within(seconds: float, baseline: Call, candidate: Call, *, least: int = _LEAST_PAIRS) -> int:
    """How many pairs take about so long; both are called twice."""
    for _ in range(2):
        start = time.perf_counter()
        baseline(), candidate()
        elapsed = time.perf_counter() - start
    return int(np.clip(seconds / elapsed, least, _MOST_PAIRS))


def compare_for(
    settings: argparse.Namespace, baseline: Call, candidate: Call, *, least: int = _LEAST_PAIRS
) -> Comparison:
    """Compare for `settings.seconds`, or a few pairs if `settings.quick`.

    Args:
        settings: From `arguments`.
        baseline: As for `compare`.
        candidate: As for `compare`.
        least: Fewest pairs, however long they take.
    """
    if settings.quick:
        return compare(baseline, candidate, pairs=_QUICK_PAIRS, warmup=1)
    return compare(baseline, candidate, pairs=pairs_within(settings.seconds, baseline, candidate, least=least))


def figures(comparison: Comparison) -> dict[str, Any]:
    """Medians, p99, ratio and its interval; the baseline is called plain and the candidate keyed."""
    (plain_p50, keyed_p50), (plain_p99, keyed_p99) = comparison.percentiles(50), comparison.percentiles(99)
    return {
        "plain_p50_ms": plain_p50,
        "plain_p99_ms": plain_p99,
        "keyed_p50_ms": keyed_p50,
        "keyed_p99_ms": keyed_p99,
        "ratio_p50": comparison.ratio,
        "ratio_ci95": list(comparison.ratio_interval()),
        "pairs": len(comparison.baseline_ms),
    }


def median_interval(values: Any, confidence: float = 0.95) -> tuple[float, tuple[float, float]]:
    """The median of (n,) values, and its bootstrap interval (percentile method)."""
    draws = np.random.default_rng(0).integers(0, len(values), (_RESAMPLES, len(values)))
    medians = np.median(values[draws], axis=1)
    low, high = np.percentile(medians, [100 * _HALF * (1 - confidence), 100 * _HALF * (1 + confidence)])
    return float(np.median(values)), (float(low), float(high))


def shown_ratio(row: dict[str, Any], prefix: str = "") -> str:
    """A row's ratio and interval, for a table."""
    low, high = row[f"{prefix}ratio_ci95"]
    return f"{row[f'{prefix}ratio_p50']:.4f} ({low:.4f} to {high:.4f})"
