"""What does a keyed session cost beside plain onnxruntime?

Pairs run in turn in one process; the ratio is the median over the pairs, with a 95 % bootstrap interval, and the plain
network beside itself shows what the machine's noise is. By network, batch and precision; through `run`, with bound
buffers, and on CUDA with a captured graph. The last part times `run()` itself: both sessions on a network that
computes nothing.

    python benchmarks/overhead.py                    # CPU, 2 threads
    python benchmarks/overhead.py --provider cuda    # every precision; a missing provider is one line and exit 1
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

import numpy as np
import onnxruntime

import sessions
from installing import Form, Installation, install, workplace
from keylatch.exporters import Precision
from measuring import first_line, print_rows, result_name
from pairs import arguments, compare_for, figures, shown_ratio, write_rows

BATCHES = {"cpu": (1, 8), "cuda": (1, 8, 32, 128)}
PRECISIONS: dict[str, tuple[str, ...]] = {"cpu": ("float32",), "cuda": get_args(Precision)}
MODES = {"cpu": ("run", "io_binding"), "cuda": ("run", "io_binding", "cuda_graph")}
TOLERANCE = {"float32": 1e-2, "float16": 1e-1, "bfloat16": 5e-1}  # tensor cores round float32 to TF32
CALLS = 20_000
_QUICK_CALLS = 200

Row = dict[str, Any]


class Pair:
    """A plain and a keyed session of one network.

    Args:
        place: The network.
        settings: The command's.
    """

    def __init__(self, place: Installation, settings: argparse.Namespace) -> None:
        self.place, self.settings, self.provider = place, settings, settings.provider
        self.plain = sessions.open_plain(place, self.provider)
        self.keyed = sessions.open_keyed(place, self.provider)

    def rows(self, batch: int) -> Iterator[Row]:
        """One for each mode."""
        images = sessions.random_images(self.place, batch)
        outputs = self.plain.run(None, {"image": images})
        keyed_outputs = self.keyed.run(None, {"image": images})
        sessions.require_same(outputs, keyed_outputs, TOLERANCE[self.place.form.precision])
        for mode in MODES[self.provider]:
            facts = {
                "network": self.place.name,
                "provider": self.provider,
                "precision": self.place.form.precision,
                "batch": batch,
                "mode": mode,
            }
            try:
                yield facts | getattr(self, f"_{mode}")(images, outputs)
            except sessions.FAILURES as error:
                yield facts | _failed(error)

    def _run(self, images: Any, _outputs: Any) -> Row:
        plain, keyed = sessions.runner(self.plain, images), sessions.runner(self.keyed, images)
        measured = figures(compare_for(self.settings, plain, keyed))
        twin = figures(compare_for(self.settings, plain, plain))
        return measured | {"null_ratio_p50": twin["ratio_p50"], "null_ratio_ci95": twin["ratio_ci95"]}

    def _io_binding(self, images: Any, outputs: Any) -> Row:
        return self._bound(self.plain, self.keyed, images, outputs)

    def _cuda_graph(self, images: Any, outputs: Any) -> Row:
        # Sessions of their own: a captured graph holds the addresses and the batch it was captured with.
        plain = sessions.open_plain(self.place, self.provider, cuda_graph=True)
        keyed = sessions.open_keyed(self.place, self.provider, cuda_graph=True)
        return self._bound(plain, keyed, images, outputs)

    def _bound(self, plain: Any, keyed: Any, images: Any, outputs: Any) -> Row:
        calls = [sessions.bound_runner(session, images, outputs, self.provider) for session in (plain, keyed)]
        return figures(compare_for(self.settings, *calls))


def measure_call(place: Installation, provider: str, calls: int) -> dict[str, float]:
    """Microseconds that our `run()` adds to onnxruntime's, the compiled part replaced by nothing."""
    session = sessions.open_keyed(place, provider)
    feed = {"image": sessions.random_images(place, 1)}
    session.run(None, feed)
    names = [node.name for node in session.get_outputs()]
    compiled = session._sess
    session._sess = _NothingToDo(compiled)
    base = onnxruntime.InferenceSession.run
    ours, theirs = [], []
    for _ in range(9):
        theirs.append(_per_call(lambda: base(session, names, feed), calls))
        ours.append(_per_call(lambda: session.run(names, feed), calls))
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


def _per_call(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls * 1e6


@contextmanager
def _kept(rows: list[Row], settings: argparse.Namespace, network: str, precision: str) -> Iterator[None]:
    """Where bfloat16 does not work, note it and go on: no GPU has run it before."""
    try:
        yield
    except sessions.FAILURES as error:
        if precision != "bfloat16":
            raise
        facts = {"network": network, "provider": settings.provider, "precision": precision}
        rows.append({**facts, "batch": settings.batch[0], "mode": "run", **_failed(error)})


def _failed(error: BaseException) -> Row:
    return {"failed": f"{type(error).__name__}: {first_line(error)}"}


def _settings() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--precision", choices=get_args(Precision), action="append")
    settings = sessions.settings(parser, BATCHES)
    settings.precision = settings.precision or PRECISIONS[settings.provider]
    return settings


def _shown(row: Row) -> tuple[object, ...]:
    case = (row["network"], row["precision"], row["batch"], row["mode"])
    if "failed" in row:
        return (*case, "", "", row["failed"], "")
    null = shown_ratio(row, "null_") if "null_ratio_p50" in row else ""
    return (*case, f"{row['plain_p50_ms']:.3f}", f"{row['keyed_p50_ms']:.3f}", shown_ratio(row), null)


def main() -> None:
    settings = _settings()
    sessions.require_provider(settings.provider)
    rows: list[Row] = []
    with workplace(settings.artifacts) as folder:
        places = []
        for name, precision in itertools.product(settings.network, settings.precision):
            with _kept(rows, settings, name, precision):
                places += install(folder, name, [Form(precision)])
        sessions.share_threads()
        for place in places:
            with _kept(rows, settings, place.name, place.form.precision):
                pair = Pair(place, settings)
                rows += [row for batch in settings.batch for row in pair.rows(batch)]
        call = measure_call(places[0], settings.provider, _QUICK_CALLS if settings.quick else CALLS)
    header = (
        "network",
        "precision",
        "batch",
        "mode",
        "plain p50, ms",
        "keyed p50, ms",
        "ratio (95 %)",
        "plain / plain",
    )
    print_rows(header, [_shown(row) for row in rows])
    theirs, ours, added = call["onnxruntime_us"], call["keyed_us"], call["added_us"]
    print(f"\nrun(): onnxruntime {theirs:.2f} us, ours {ours:.2f} us, added {added:.2f} us")
    write_rows(result_name("overhead", settings.provider), rows, settings, call=call)


if __name__ == "__main__":
    main()
