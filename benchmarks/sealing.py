"""What does sealing a share of the weights do? Accuracy without a license, exactness and opening with one, recovery.

    python benchmarks/sealing.py --data DIR --network mobilenet_v2
    python benchmarks/sealing.py --data DIR --network resnet20_cifar10 --part recovery

Recovery is fine-tuning all weights, and the withheld ones alone, with 1, 5 and 10 % of the attacker's images, beside
training from scratch on the same. It takes hours for an ImageNet network on a processor; single measurements stay in
--work, and what earlier runs measured for other cases stays in the results.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from data_pack import NETWORKS, NetworkSpec, top1
from data_pack.networks import skipped
from data_pack.top1 import model_input
from keylatch.exporters import export, export_plain
from keylatch.locks import InputSpec, Locked, seal_lock
from keylatch.runtime import InferenceSession
from licensing import license_to_device
from measuring import RESULTS, print_rows, write_results
from pairs import compare_for, figures
from strength.recovery_curve import draw_recovery
from strength.sealed_recovery import recovery

SHARES = (0.001, 0.01, 0.1, 1.0)
NOTHING = 1e-12  # one weight: what opening costs an artifact that withholds as good as nothing
ORDERS = ("influence", "first", "random")
GRANULARITIES = ("weights", "rows", "tensors")
CPU = ["CPUExecutionProvider"]
_PROCESSOR_ROUNDS = 11
_COMPARED = 32  # images whose outputs are compared bit for bit

Row = dict[str, Any]


def quality(entry: NetworkSpec, network: nn.Module, share: float, by: Any, settings: argparse.Namespace) -> Row:
    """Accuracy of the locked network, also with the best guess in the place of what is withheld."""
    spec = InputSpec(*entry.image_shape, entry.mean, entry.std)
    locked = seal_lock(network, spec, share=share, by=by, granularity=settings.granularity, seed=bytes(32))
    images, labels = _shown(entry, settings)

    def percent(module: nn.Module) -> float:
        return round(top1(module, images, labels, entry.mean, entry.std), 2)

    some = torch.from_numpy(model_input(images[:2], entry.mean, entry.std))
    with torch.no_grad(), locked.module.opened(locked.secret):
        exact = bool(torch.equal(locked.module(some), network(some)))
    found = {"share": share, "by": by, "granularity": settings.granularity, "images": len(images),
             "exact_in_torch": exact, "locked": percent(locked.module)}  # fmt: skip
    _fill_with_means(locked)
    seal = locked.report.seal
    assert seal is not None
    return {
        **found,
        "mean_filled": percent(locked.module),
        "withheld_bytes": seal.withheld_bytes,
        "withheld_share": seal.share,
        "tensors": len(seal.layers),
    }


def _fill_with_means(locked: Locked) -> None:
    """Put the mean of what is left of a tensor in the place of what is withheld; zero where nothing is left."""
    for part in locked.module.withheld.parts:
        weight = locked.module.body.get_parameter(part.parameter).data
        left = weight[~part.mask()]
        part.write(weight, torch.full(part.shape, float(left.mean()) if len(left) else 0.0))


def opening(entry: NetworkSpec, network: nn.Module, share: float, settings: argparse.Namespace) -> Row:
    """A licensed session beside the plain one: same outputs, sizes, and time to open."""
    spec = InputSpec(*entry.image_shape, entry.mean, entry.std)
    folder = settings.work / "opening"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    locked = seal_lock(network, spec, share=share, granularity=settings.granularity, seed=bytes(32))
    exported = export(locked.module, locked.secret, folder / "net.latch", report=locked.report)
    plain_path, credentials = export_plain(network, spec, folder / "plain"), license_to_device(exported, folder)

    def plain() -> Any:
        return onnxruntime.InferenceSession(str(plain_path), _options(), providers=CPU)

    def keyed() -> Any:
        return InferenceSession(exported.path, _options(), providers=CPU, **credentials)

    shown = model_input(entry.evaluation(settings.data).images[:_COMPARED], entry.mean, entry.std)
    outputs = [session.run(None, {"image": shown})[0] for session in (plain(), keyed())]
    return {
        "share": share,
        "granularity": settings.granularity,
        "tensors": len(locked.module.withheld.parts),
        "bit_identical": bool(np.array_equal(*outputs)),
        "license_bytes": Path(credentials["license"]).stat().st_size,
        "artifact_bytes": {file.name: file.stat().st_size for file in sorted(exported.path.iterdir())},
        **figures(compare_for(settings, plain, keyed)),
        **_processor_times(plain, keyed),
    }


def _processor_times(plain: Callable[[], object], keyed: Callable[[], object]) -> Row:
    """Medians of openings in turn, in processor time: other work on the machine does not stretch it."""
    found: dict[str, list[float]] = {"plain_processor_ms": [], "keyed_processor_ms": []}
    for _ in range(_PROCESSOR_ROUNDS):
        for name, opened in zip(found, (plain, keyed), strict=True):
            start = time.process_time()
            opened()
            found[name].append(1e3 * (time.process_time() - start))
    return {name: round(statistics.median(times), 2) for name, times in found.items()}


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return options


def _settings() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data pack")
    parser.add_argument("--network", choices=sorted(NETWORKS), default="mobilenet_v2")
    parser.add_argument("--share", type=float, action="append", help="repeatable; default: 0.1, 1, 10 and 100 %%")
    parser.add_argument("--granularity", choices=GRANULARITIES, default=GRANULARITIES[0], help="what is withheld")
    parser.add_argument("--images", type=int, default=1000, help="to measure accuracy on")
    parser.add_argument(
        "--part", choices=("quality", "opening", "recovery"), action="append", help="default: all but recovery"
    )
    parser.add_argument("--steps", type=int, default=200, help="that recovery trains, and training from scratch")
    parser.add_argument("--seeds", type=int, default=1, help="how often recovery is measured")
    parser.add_argument("--labeled", type=int, action="append", help="images to fine-tune on, instead of 1, 5, 10 %%")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0, help="of timed pairs for each share, about")
    parser.add_argument("--quick", action="store_true", help="few timed pairs")
    parser.add_argument("--work", type=Path, default=Path("sealing-work"), help="where artifacts are kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> None:
    settings = _settings()
    entry, missing = NETWORKS[settings.network], skipped(settings.data)
    if entry.name in missing:
        sys.exit(missing[entry.name])
    torch.set_num_threads(settings.threads)
    settings.work.mkdir(exist_ok=True)
    network, shares = entry.load(settings.data), settings.share or list(SHARES)
    path = settings.results / f"sealing_{entry.name}.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    kept = {name: value for name, value in results.items() if name not in ("command", "machine")}
    parts = settings.part or ["quality", "opening"]

    def keep(name: str, rows: list[Row]) -> None:
        """Write rows in the places of those that an earlier run measured for the same case."""
        fresh = {_case(row) for row in rows}
        kept[name] = [row for row in kept.get(name, []) if _case(row) not in fresh] + rows
        kept[name].sort(key=lambda row: row["share"])
        write_results(path.stem, {**kept, "network": entry.name, "threads": settings.threads}, folder=path.parent)

    if "quality" in parts or "recovery" in parts:
        original = top1(network, *_shown(entry, settings), entry.mean, entry.std)
        kept |= {"original": round(original, 2)}
    if "quality" in parts:
        for share in shares:
            for by in ORDERS if share < 1 else ORDERS[:1]:
                keep("quality", [quality(entry, network, share, by, settings)])
    if "opening" in parts:
        for share in (NOTHING, *shares):
            keep("opening", [opening(entry, network, share, settings)])
    if "recovery" in parts:
        for row in recovery(entry.name, network, shares, settings):
            keep("recovery", [row])
        drawn = [row for row in kept["recovery"] if row["granularity"] == settings.granularity]
        draw_recovery(drawn, entry.name, kept["original"]).savefig(path.with_suffix(".png"), dpi=110)
    _print(kept)


def _case(row: Row) -> tuple[Any, ...]:
    named = tuple(row.get(name) for name in ("share", "by", "labeled", "attack"))
    return *named, row.get("granularity", GRANULARITIES[0])


def _shown(entry: NetworkSpec, settings: argparse.Namespace) -> tuple[Any, Any]:
    shown = entry.evaluation(settings.data)
    return shown.images[: settings.images], shown.labels[: settings.images]


_COLUMNS = {
    "quality": ("share", "by", "granularity", "tensors", "locked", "mean_filled", "withheld_bytes", "exact_in_torch"),
    "opening": (
        "share",
        "granularity",
        "tensors",
        "bit_identical",
        "license_bytes",
        "ratio_p50",
        "ratio_ci95",
        "plain_processor_ms",
        "keyed_processor_ms",
    ),
    "recovery": ("share", "granularity", "labeled", "attack", "recovered", "from_scratch"),
}


def _print(results: dict[str, Any]) -> None:
    for part, columns in _COLUMNS.items():
        if part in results:
            print_rows(columns, [tuple(row.get(column, "") for column in columns) for row in results[part]])


if __name__ == "__main__":
    main()
