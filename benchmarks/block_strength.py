"""What do block transforms withstand? Attacks on networks that were fine-tuned under a key, for each transform and M.

    python benchmarks/block_strength.py --data DIR --work block-training [--method shf+np] [--block-size 4]

The networks are those of `block_training.py`, trained first if they are not in --work. The published key estimation
(arXiv 2103.03525: exchange entries, keep what one batch of 128 images does not like less, ten sweeps) is whole up to
--queries: M = 2 and 4; of larger blocks it sees the first so many exchanges. 1,000 labeled images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from keylatch.audit import Attack, AuditOptions, Clock, Scene, keep_freed_memory, run_audit
from keylatch.audit.attacks import ATTACKS
from keylatch.audit.attacks.block_key_search import BlockKeySearch
from keylatch.locks import block_lock
from measuring import THREADS, print_rows, write_results
from strength.block_networks import EPOCHS, METHODS, PLAIN, Run
from strength.lines import Lines
from strength.locking import shipped
from strength.subjects import SUBJECTS

_LABELED, _CLASSES = 1000, 10
_PUBLISHED_QUERIES = 11_761  # ten sweeps of shf+np at M = 4, and the start
_NAMES = ("no-key", "random-block-key", "near-block-key", "block-key-search", "block-key-gradient", "known-pair")
_HEADER = ("method", "M", "images", "unlocked", "no key", "attack", "given", "recovered", "better baseline")


def attacked(run: Run, attacks: Sequence[Attack], data: Path, work: Path, minutes: float) -> dict[str, Any]:
    """Lock a trained network with its key, export it, and audit the artifact."""
    network = run.network_trained(data, work)
    target, owner = shipped(run.name, lambda: block_lock(network, run.spec, run.key), work)
    result = run_audit(
        Scene(target, SUBJECTS[run.network].images(data, _CLASSES), owner),
        attacks,
        AuditOptions((_LABELED,), minutes=minutes, command="python benchmarks/block_strength.py --data DATA"),
        folder=work / f"{run.name}.cells",
        clock=Clock(60 * minutes),
        watch=Lines(),
    )
    row = {"network": run.network, "method": run.method, "block_size": run.block_size, "images": run.images}
    return {**row, "audit": result.to_json()}


def chosen_attacks(queries: int) -> list[Attack]:
    """Those of this family, the published search as long as asked."""
    found: list[Attack] = [attack for attack in ATTACKS if attack.name in _NAMES]
    return [replace(attack, queries=queries) if isinstance(attack, BlockKeySearch) else attack for attack in found]


def _rows(entry: dict[str, Any]) -> list[tuple[object, ...]]:
    found = entry["audit"]
    head = (entry["method"], entry["block_size"], entry["images"], found["accuracy"]["unlocked"])
    return [
        (
            *head, found["accuracy"]["locked"], row["name"], row["variant"] or row["given"],
            f"{row['recovered']} ({row['low']} to {row['high']}){', cut short' if row['truncated'] else ''}",
            f"{row['baseline']} ({row['baseline_name']})",
        )
        for row in found["attacks"]
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data pack")
    parser.add_argument("--network", choices=("resnet20_cifar10",), default="resnet20_cifar10")
    parser.add_argument("--method", choices=[name for name in METHODS if name != PLAIN], action="append")
    parser.add_argument("--block-size", type=int, choices=(2, 4, 8, 16), action="append")
    parser.add_argument("--images", type=int, choices=sorted(EPOCHS), default=10_000, help="of the training")
    parser.add_argument("--queries", type=int, default=_PUBLISHED_QUERIES, help="of the published search, at most")
    parser.add_argument("--minutes", type=float, default=20.0, help="for each lock")
    parser.add_argument("--work", type=Path, default=Path("block-training"), help="where trainings are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    arguments.work.mkdir(exist_ok=True)
    attacks = chosen_attacks(arguments.queries)
    entries = []
    for method in arguments.method or METHODS[1:]:
        for size in arguments.block_size or (4,):
            if (method, size) == ("np", 2):  # 9.9 bits: refused
                continue
            run = Run(arguments.network, method, size, arguments.images)
            entries.append(attacked(run, attacks, arguments.data, arguments.work, arguments.minutes))
            write_results("block_strength", {"threads": THREADS, "rows": entries})
    print_rows(_HEADER, [row for entry in entries for row in _rows(entry)])


if __name__ == "__main__":
    main()
