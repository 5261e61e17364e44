"""Does a network learn to see under a key? Right, no, wrong and near keys for each transform and number of images.

    python benchmarks/block_training.py --data DIR [--network resnet20_cifar10] [--images 10000 --images 2500]

CIFAR-10 as the data pack has it (lossy), the pack's own pre-trained network, block size 4, beside the same training
without a key. Each finished run is kept in --work, and a stopped one goes on there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

from data_pack import NETWORKS, LabelledImages
from data_pack.images import cifar10_jpeg_test, cifar10_jpeg_train
from keylatch.locks import BlockTransform, InputSpec, TrainingProgress, fine_tune, identity_transform
from measuring import THREADS, print_rows, write_results

# Fewer images are seen more often: steps would otherwise be too few to tell what the images can teach.
EPOCHS = {10_000: 20, 2_500: 40, 1_000: 60}
METHODS = ("plain", "shf", "np", "ffx", "shf+np")
PUBLISHED = {"plain": 95.43, "shf": 92.56, "np": 93.41, "ffx": 92.27}  # ResNet-18, 50,000 images, M = 4 (2103.03525)
_LEARNING_RATE = 0.05
_NETWORKS = ("resnet20_cifar10", "resnet56_cifar10")


def train(network: str, method: str, count: int, data: Path, work: Path, block_size: int) -> dict[str, Any]:
    """One training; what was measured before is read again."""
    done = work / f"{network}.{method}.{block_size}.{count}.json"
    if done.exists():
        found: dict[str, Any] = json.loads(done.read_text())
        return found
    entry = NETWORKS[network]
    everything, held_out = cifar10_jpeg_train(data), cifar10_jpeg_test(data)
    tuned = fine_tune(
        entry.load(data),
        InputSpec(*entry.image_shape, entry.mean, entry.std),
        _key(method, block_size),
        [_pair(everything)],
        [_pair(held_out)],
        epochs=EPOCHS[count],
        subset=count / len(everything),
        learning_rate=_LEARNING_RATE,
        checkpoint=done.with_suffix(".pt"),
        progress=_tell,
    )
    row = {"network": network, "method": method, "block_size": block_size, **tuned.report.to_json()}
    done.write_text(json.dumps(row))
    return row


def _key(method: str, block_size: int) -> BlockTransform:
    if method == "plain":
        return identity_transform(block_size, 3)
    seed = hashlib.sha256(f"benchmark {method}".encode()).digest()  # a stopped training goes on with its key
    return BlockTransform.draw(method.split("+"), block_size=block_size, seed=seed)  # type: ignore[arg-type]


def _pair(images: LabelledImages) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.from_numpy(images.images).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.from_numpy(images.labels)


def _tell(state: TrainingProgress) -> None:
    done = f"{state.epoch}/{state.epochs}"
    print(f"  {done} loss {state.loss:.3f}, {state.accuracy:.1f} %, {state.seconds:.0f} s", file=sys.stderr, flush=True)


def _row(row: dict[str, Any], plain: dict[str, Any]) -> tuple[object, ...]:
    near = " / ".join(f"{value:.1f}" for value in row["near_key"].values())
    lost = plain["right_key"] - row["right_key"]
    figures = (f"{row[name]:.1f}" for name in ("right_key", "no_key", "wrong_key"))
    return (
        row["network"],
        row["images"],
        row["method"],
        *figures,
        near,
        f"{lost:.1f}",
        PUBLISHED.get(row["method"], ""),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data pack")
    parser.add_argument("--network", choices=_NETWORKS, default=_NETWORKS[0])
    parser.add_argument("--images", type=int, choices=sorted(EPOCHS), action="append")
    parser.add_argument("--method", choices=METHODS, action="append")
    parser.add_argument("--block-size", type=int, default=4)
    parser.add_argument("--work", type=Path, default=Path("block-training"), help="where trainings are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    arguments.work.mkdir(exist_ok=True)
    rows = []
    for count in arguments.images or EPOCHS:
        found = []
        for method in dict.fromkeys(("plain", *(arguments.method or METHODS))):
            print(f"{arguments.network}, {method}, {count} images", file=sys.stderr, flush=True)
            row = train(arguments.network, method, count, arguments.data, arguments.work, arguments.block_size)
            found.append(row)
        rows += [(row, found[0]) for row in found]
    print_rows(
        ("network", "images", "method", "right key", "no key", "wrong key", "near keys", "below plain", "published"),
        [_row(*pair) for pair in rows],
    )
    entries = [row for row, _ in rows]
    write_results("block_training", {"threads": THREADS, "learning_rate": _LEARNING_RATE, "rows": entries})


if __name__ == "__main__":
    main()
