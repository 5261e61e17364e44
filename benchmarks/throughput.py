"""How many images a second, when several threads call one session, or `run_async` is used?

A round is so many runs, from so many threads, or so many runs in flight. Rounds of the plain and the keyed session
alternate; the ratio is that of their times.

    python benchmarks/throughput.py [--provider cuda]
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sessions
from installing import Installation, install, workplace
from measuring import print_rows, result_name
from pairs import arguments, compare_for, figures, shown_ratio, write_rows

BATCHES = {"cpu": (1,), "cuda": (1, 32)}
CALLERS = (1, 2, 4)
IN_FLIGHT = 4
_ROUND_SECONDS = 0.5
_LEAST_ROUNDS = 10

Row = dict[str, Any]
Round = Callable[[], object]


def threads_round(session: Any, feed: Any, runs: int, pool: ThreadPoolExecutor, callers: int) -> Round:
    """A round of `run` from so many threads."""

    def caller() -> None:
        for _ in range(runs // callers):
            session.run(None, feed)

    def work() -> None:
        for future in [pool.submit(caller) for _ in range(callers)]:
            future.result()

    return work


def async_round(session: Any, feed: Any, runs: int) -> Round:
    """A round of `run_async`, a few in flight."""

    def work() -> None:
        free = threading.Semaphore(IN_FLIGHT)
        failures: list[str] = []

        def done(_outputs: Any, _user_data: Any, error: str) -> None:
            if error:
                failures.append(error)
            free.release()

        for _ in range(runs):
            free.acquire()
            session.run_async(None, feed, done, None)
        for _ in range(IN_FLIGHT):
            free.acquire()
        if failures:
            raise RuntimeError(failures[0])

    return work


def measure(place: Installation, settings: argparse.Namespace) -> list[Row]:
    """One row for each number of threads, and one for `run_async`."""
    provider, rows = settings.provider, []
    plain, keyed = sessions.open_plain(place, provider), sessions.open_keyed(place, provider)
    for batch in settings.batch:
        feed = {"image": sessions.random_images(place, batch)}
        runs = max(CALLERS) if settings.quick else _runs(plain, feed)

        def row(mode: str, plain_round: Round, keyed_round: Round, batch: int = batch, runs: int = runs) -> Row:
            measured = figures(compare_for(settings, plain_round, keyed_round, least=_LEAST_ROUNDS))
            images = 1e3 * runs * batch
            return {
                "network": place.name,
                "provider": provider,
                "precision": place.form.precision,
                "batch": batch,
                "mode": mode,
                **measured,
                "runs_a_round": runs,
                "plain_images_per_second": images / measured["plain_p50_ms"],
                "keyed_images_per_second": images / measured["keyed_p50_ms"],
            }

        for callers in CALLERS:
            with ThreadPoolExecutor(callers) as pool:
                plain_round, keyed_round = (
                    threads_round(session, feed, runs, pool, callers) for session in (plain, keyed)
                )
                rows.append(row("1 thread" if callers == 1 else f"{callers} threads", plain_round, keyed_round))
        rows.append(row("run_async", async_round(plain, feed, runs), async_round(keyed, feed, runs)))
    return rows


def _runs(session: Any, feed: Any) -> int:
    """How many runs make a round, a multiple of every number of threads."""
    for _ in range(2):
        start = time.perf_counter()
        session.run(None, feed)
        elapsed = time.perf_counter() - start
    return max(CALLERS) * max(1, round(_ROUND_SECONDS / elapsed / max(CALLERS)))


def main() -> None:
    settings = sessions.settings(arguments(__doc__), BATCHES)
    sessions.require_provider(settings.provider)
    with workplace(settings.artifacts) as folder:
        places = [place for name in settings.network for place in install(folder, name)]
        sessions.share_threads()
        rows = [row for place in places for row in measure(place, settings)]
    print_rows(
        ("network", "batch", "callers", "plain, images/s", "keyed, images/s", "ratio of times (95 %)"),
        [
            (
                row["network"],
                row["batch"],
                row["mode"],
                f"{row['plain_images_per_second']:.1f}",
                f"{row['keyed_images_per_second']:.1f}",
                shown_ratio(row),
            )
            for row in rows
        ],
    )
    write_rows(result_name("throughput", settings.provider), rows, settings)


if __name__ == "__main__":
    main()
