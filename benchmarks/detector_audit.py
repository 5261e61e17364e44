"""Does the audit find what is weak about detector locks? The whole of it, on the demo's digits, lock A and lock B.

    python benchmarks/detector_audit.py [--kind A] [--minutes 10] [--attack logit-recentering]

Two seeds of every attack, or of those that are named. Lock A should fall to logit recentering, lock B to gate removal,
each without a label or a key. Locked models and single measurements stay in --work, so that it goes on where it was
stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from keylatch.audit import (
    AuditImages,
    AuditOptions,
    Clock,
    LabeledImages,
    Scene,
    keep_freed_memory,
    load_plain,
    run_audit,
)
from keylatch.audit.attacks import ATTACKS
from keylatch.audit.report import write_report
from keylatch.cli._demo.training import IMAGE_SIZE, Digits, load_digits, train
from keylatch.exporters import export_plain
from keylatch.locks import InputSpec, Locked, detector_lock
from measuring import THREADS, print_rows, write_results
from strength.lines import Lines
from strength.locking import shipped

KINDS = ("A", "B")
LABELED = (13, 67, 135)  # 1, 5 and 10 % of the training images, as `keylatch audit` takes
SEEDS = (0, 1)
CALIBRATION = 100
SPEC = InputSpec(3, IMAGE_SIZE, IMAGE_SIZE)
_HEADER = ("lock", "original", "unlocked", "locked", "verdict", "breaks, without labels", "recovered", "baseline")


def audit(
    kind: Any, network: nn.Module, digits: Digits, work: Path, minutes: float, attacks: Sequence[str]
) -> dict[str, Any]:
    """Lock the network, and run the whole audit on the artifact."""

    def lock() -> Locked:
        return detector_lock(network, SPEC, kind=kind, calibration=_inputs(digits.train_images[:CALIBRATION]))

    target, owner = shipped(f"digits.{kind}", lock, work)
    original = work / "plain" / "model.onnx"
    if not original.exists():
        export_plain(network, SPEC, work / "plain")
    images = AuditImages(
        LabeledImages(_inputs(digits.train_images), digits.train_labels),
        LabeledImages(_inputs(digits.test_images), digits.test_labels),
        10,
    )
    start = time.monotonic()
    result = run_audit(
        Scene(target, images, owner, None, load_plain(original, SPEC)),
        [attack for attack in ATTACKS if not attacks or attack.name in attacks],
        AuditOptions(LABELED, seeds=SEEDS, minutes=minutes, command="python benchmarks/detector_audit.py"),
        folder=work / f"digits.{kind}.cells",
        clock=Clock(60 * minutes),
        watch=Lines(),
    )
    found = result.to_json()
    write_report(found, work / f"digits.{kind}.html")
    return {"lock": kind, "seconds": time.monotonic() - start, "audit": found}


def _inputs(pixels: torch.Tensor) -> torch.Tensor:
    return SPEC.from_pixels(pixels)


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    found = entry["audit"]
    free = [row for row in found["attacks"] if row["broken"] and not row["labeled"]]
    best = sorted(free, key=lambda row: -float(row["recovered"]))
    accuracy = found["accuracy"]
    return (
        entry["lock"], accuracy["original"], accuracy["unlocked"], accuracy["locked"], found["verdict"],
        "; ".join(f"{row['name']} ({row['variant']})" for row in best),
        "; ".join(f"{row['recovered']} ({row['low']} to {row['high']})" for row in best),
        "; ".join(f"{row['baseline']} ({row['baseline_name']})" for row in best),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each lock")
    parser.add_argument("--work", type=Path, default=Path("detector-audit"), help="where everything is kept")
    parser.add_argument("--attack", choices=[attack.name for attack in ATTACKS], action="append", default=[])
    parser.add_argument("--threads", type=int, default=THREADS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    arguments.work.mkdir(exist_ok=True)
    digits = load_digits()
    network = train(digits, lambda: None)
    entries = []
    for kind in arguments.kind or KINDS:
        print(f"lock {kind}", file=sys.stderr, flush=True)
        entries.append(audit(kind, network, digits, arguments.work, arguments.minutes, arguments.attack))
        write_results(f"detector_audit_{kind}", {"threads": torch.get_num_threads(), **entries[-1]})
    print_rows(_HEADER, [_row(entry) for entry in entries])


if __name__ == "__main__":
    main()
