"""Locking a transformer without training: how long does it take, what is left without the key and with a wrong one?

    python benchmarks/block_absorbed.py --data DIR

DeiT-Tiny of the data pack absorbs a key of 16 x 16 blocks in its patchify stem, alone and beside a code.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from data_pack import NETWORKS, top1
from keylatch.locks import BlockTransform, InputSpec, Locked, LockSecret, block_lock, code_lock
from measuring import THREADS, print_rows, write_results

_NETWORK = "deit_tiny"
_BLOCK_SIZE = 16
_CODE = "code+"
_STEPS: dict[str, tuple[Literal["shf", "np"], ...]] = {"shf": ("shf",), "np": ("np",), "shf+np": ("shf", "np")}
_LOCKS = (*_STEPS, "code+shf+np")
_DRAWS = 3  # of keys, and of wrong ones for each
_HEADER = ("lock", "lock, s", "unlocked error", "original", "unlocked", "no key", "wrong block key")


def measure(name: str, data: Path, *, times_only: bool) -> dict[str, Any]:
    """Lock with fresh keys and measure; beside a code a wrong key has the code and the withheld weights right."""
    entry = NETWORKS[_NETWORK]
    network, images = entry.load(data), entry.evaluation(data)
    spec = InputSpec(*entry.image_shape, entry.mean, entry.std)
    steps = _STEPS[name.removeprefix(_CODE)]

    def percent(module: nn.Module) -> float:
        return round(top1(module, images.images, images.labels, entry.mean, entry.std), 2)

    def draw() -> BlockTransform:
        return BlockTransform.draw(steps, block_size=_BLOCK_SIZE)

    def opened(secret: LockSecret) -> float:
        with locked.module.opened(secret):
            return percent(locked.module)

    def lock() -> Locked:
        if name.startswith(_CODE):
            return code_lock(network, spec, blocks=draw(), absorb=True)
        return block_lock(network, spec, draw(), absorb=True)

    seconds = []
    for _ in range(_DRAWS):
        start = time.perf_counter()
        locked = lock()
        seconds.append(time.perf_counter() - start)
    facts = {
        "network": _NETWORK,
        "lock": name,
        "lock_seconds": seconds,
        "unlocked_error": locked.report.unlocked_error,
    }
    if times_only:
        return facts
    return {
        **facts,
        "original": percent(network),
        "unlocked": opened(locked.secret),
        "no_key": percent(locked.module),
        "wrong_key": [opened(replace(locked.secret, blocks=draw())) for _ in range(_DRAWS)],
    }


def _row(row: dict[str, Any]) -> tuple[object, ...]:
    return (
        row["lock"],
        " / ".join(f"{seconds:.2f}" for seconds in row["lock_seconds"]),
        f"{row['unlocked_error']:.1e}",
        row.get("original", ""),
        row.get("unlocked", ""),
        row.get("no_key", ""),
        " / ".join(f"{percent}" for percent in row.get("wrong_key", ())),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data pack")
    parser.add_argument("--times-only", action="store_true", help="lock, and leave accuracies out")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    rows = [measure(name, arguments.data, times_only=arguments.times_only) for name in _LOCKS]
    print_rows(_HEADER, [_row(row) for row in rows])
    write_results(
        "block_absorbed_times" if arguments.times_only else "block_absorbed", {"threads": THREADS, "rows": rows}
    )


if __name__ == "__main__":
    main()
