"""Does a network learn to see under a key? Right, no, wrong and near keys for each transform and number of images.

    python benchmarks/block_training.py --data DIR [--network resnet20_cifar10] [--images 10000 --images 2500]
    python benchmarks/block_training.py --data DIR --hints    # with the feature maps of the network on plain images

CIFAR-10 as the data pack has it (lossy), the pack's own pre-trained network, beside the same training without a key.
Each finished run is kept in --work, and a stopped one goes on there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from measuring import THREADS, print_rows, write_results
from strength.block_networks import BATCH, EPOCHS, LEARNING_RATE, METHODS, PLAIN, Run

# ResNet-18, 50,000 images, no key: 95.43 (2103.03525, the authors' logs).
_PUBLISHED_PLAIN = 95.43
_PUBLISHED_SIZES = (2, 4, 8, 16)
_PUBLISHED = {
    "shf": (94.77, 92.56, 86.40, 77.25),
    "np": (95.32, 93.41, 91.54, 92.68),
    "ffx": (93.79, 92.27, 91.99, 91.39),
}
_NETWORKS = ("resnet20_cifar10", "resnet56_cifar10")


def _published(row: dict[str, Any]) -> str:
    """Accuracy under the key, and what the key costs there."""
    if row["method"] == PLAIN:
        return f"{_PUBLISHED_PLAIN}"
    if row["method"] not in _PUBLISHED:
        return ""
    reached = _PUBLISHED[row["method"]][_PUBLISHED_SIZES.index(row["block_size"])]
    return f"{reached} ({_PUBLISHED_PLAIN - reached:.1f} below)"


def _row(row: dict[str, Any], plain: dict[str, Any]) -> tuple[object, ...]:
    near = " / ".join(f"{value:.1f}" for value in row["near_key"].values())
    lost = plain["right_key"] - row["right_key"]
    figures = [f"{row[name]:.1f}" for name in ("right_key", "no_key", "wrong_key")]
    steps = (row["images"], row["method"], row["block_size"])
    return (row["network"], *steps, *figures, near, f"{lost:.1f}", _published(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data pack")
    parser.add_argument("--network", choices=_NETWORKS, default=_NETWORKS[0])
    parser.add_argument("--images", type=int, choices=sorted(EPOCHS), action="append")
    parser.add_argument("--method", choices=METHODS, action="append")
    parser.add_argument("--block-size", type=int, choices=_PUBLISHED_SIZES, action="append")
    parser.add_argument("--hints", action="store_true", help="learn the network's own feature maps too")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--work", type=Path, default=Path("block-training"), help="where trainings are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(exist_ok=True)
    sizes = arguments.block_size or [4]
    methods = [method for method in arguments.method or METHODS if method != PLAIN]
    rows = []
    for count in arguments.images or EPOCHS:
        runs = [Run(arguments.network, PLAIN, _PUBLISHED_SIZES[1], count, arguments.hints)]
        runs += [
            Run(arguments.network, method, size, count, arguments.hints)
            for method in methods
            for size in sizes
            if (method, size) != ("np", 2)  # 9.9 bits: refused
        ]
        found = [run.report(arguments.data, arguments.work) for run in runs]
        rows += [(row, found[0]) for row in found]
    print_rows(
        (
            "network",
            "images",
            "method",
            "M",
            "right key",
            "no key",
            "wrong key",
            "near keys",
            "below plain",
            "published",
        ),
        [_row(*pair) for pair in rows],
    )
    entries = [row for row, _ in rows]
    settings = {"threads": arguments.threads, "learning_rate": LEARNING_RATE, "batch": BATCH, "precision": "bfloat16"}
    name = f"block_training_{'_'.join(map(str, sizes))}{'_hints' if arguments.hints else ''}"
    write_results(name, {**settings, "rows": entries})


if __name__ == "__main__":
    main()
