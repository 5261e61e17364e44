"""What does a keyed session cost beside plain onnxruntime? ResNet-50 and ViT-B/16, CPU, 2 threads, batch 1 and 8.

Pairs run in turn in one process; the ratio is the median over the pairs, with a 95 % bootstrap interval. The second
part times `run()` itself: both sessions on a graph too small to matter.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import onnxruntime

import config_networks
from keylatch.runtime import InferenceSession, compare
from measuring import THREADS, print_rows, write_results

PAIRS = {1: 150, 8: 20}
CALLS = 20_000


def options() -> onnxruntime.SessionOptions:
    # Two sessions in one process share one pool of threads. With a pool for each, the one that has just worked spins
    # on while the other works, and takes its cores: then even plain beside plain differs by half.
    settings = onnxruntime.SessionOptions()
    settings.use_per_session_threads = False
    return settings


def runner(session: Any, images: Any) -> Callable[[], object]:
    return lambda: session.run(None, {"image": images})


def measure(name: str, place: config_networks.Installation) -> list[dict[str, Any]]:
    plain = onnxruntime.InferenceSession(str(place.plain), options(), providers=["CPUExecutionProvider"])
    keyed = InferenceSession(place.model, options(), providers=["CPUExecutionProvider"], **place.credentials)
    results = []
    for batch, pairs in PAIRS.items():
        images = np.random.default_rng(0).random((batch, 3, 224, 224), dtype=np.float32)
        comparison = compare(runner(plain, images), runner(keyed, images), pairs=pairs)
        twin = compare(runner(plain, images), runner(plain, images), pairs=pairs)
        plain_ms, keyed_ms = comparison.percentiles(50)
        results.append(
            {
                "network": name,
                "batch": batch,
                "plain_p50_ms": plain_ms,
                "keyed_p50_ms": keyed_ms,
                "ratio_p50": comparison.ratio,
                "ratio_ci95": comparison.ratio_interval(),
                "null_ratio_p50": twin.ratio,
                "null_ratio_ci95": twin.ratio_interval(),
                "pairs": pairs,
            }
        )
    return results


def measure_call(place: config_networks.Installation) -> dict[str, float]:
    """Microseconds that our `run()` adds to onnxruntime's, the compiled part replaced by nothing."""
    session = InferenceSession(place.model, options(), **place.credentials)
    feed = {"image": np.zeros((1, 3, 224, 224), dtype=np.float32)}
    session.run(None, feed)
    compiled = session._sess
    session._sess = _NothingToDo(compiled)
    base = onnxruntime.InferenceSession.run
    ours, theirs = [], []
    for _ in range(9):
        theirs.append(_per_call(lambda: base(session, ["logits"], feed)))
        ours.append(_per_call(lambda: session.run(["logits"], feed)))
    session._sess = compiled
    added = float(np.median(np.array(ours) - np.array(theirs)))
    return {"onnxruntime_us": float(np.median(theirs)), "keyed_us": float(np.median(ours)), "added_us": added}


class _NothingToDo:
    """Stands for the compiled session: every attribute is the real one's, only `run` computes nothing."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled

    def run(self, *_arguments: object) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiled, name)


def _per_call(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - start) / CALLS * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=sorted(config_networks.NETWORKS), action="append")
    names = parser.parse_args().network or list(config_networks.NETWORKS)
    with ExitStack() as stack:
        places = {name: stack.enter_context(config_networks.installed(name)) for name in names}
        onnxruntime.set_global_thread_pool_sizes(THREADS, 1)  # from here on every session has to share the pool
        results = [row for name, place in places.items() for row in measure(name, place)]
        call = measure_call(places[names[0]])
    rows: list[tuple[object, ...]] = [
        (
            row["network"],
            row["batch"],
            f"{row['plain_p50_ms']:.2f}",
            f"{row['keyed_p50_ms']:.2f}",
            "{:.4f} ({:.4f} to {:.4f})".format(row["ratio_p50"], *row["ratio_ci95"]),
            "{:.4f} ({:.4f} to {:.4f})".format(row["null_ratio_p50"], *row["null_ratio_ci95"]),
        )
        for row in results
    ]
    print_rows(("network", "batch", "plain p50, ms", "keyed p50, ms", "ratio (95 %)", "plain / plain (95 %)"), rows)
    theirs, ours, added = call["onnxruntime_us"], call["keyed_us"], call["added_us"]
    print(f"\nrun(): onnxruntime {theirs:.2f} us, ours {ours:.2f} us, added {added:.2f} us")
    write_results("overhead", {"threads": THREADS, "results": results, "call": call})


if __name__ == "__main__":
    main()
