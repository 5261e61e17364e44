"""Which keys does dense prediction bear? Mean IoU of a small segmentation network, by kind of key.

    python benchmarks/dense_keys.py [--images 500] [--epochs 12]

Made images, a network that is trained from fresh weights under each key, and one fine-tuned from plain weights, by
labels alone and with hints of its own feature maps.
"""

from __future__ import annotations

import argparse
import hashlib
from typing import Any

import torch
from torch import nn

from dense_scenes import LAYERS, SPEC, scenes, segmenter
from keylatch.locks import BlockTransform, ChannelKey, TrainingProgress, fine_tune, hint_layers, identity_transform
from measuring import THREADS, print_rows, write_results

BLOCK_SIZE = 4
METHODS = ("plain", "channels", "shf", "np", "shf+np")
_BATCH = 16
_VALIDATION = 300


def train(
    start: nn.Module, method: str, images: int, epochs: int, *, hints: bool = False
) -> tuple[nn.Module, dict[str, Any]]:
    """Train under a key; the network, and its figures."""
    tuned = fine_tune(
        start, SPEC, _key(method), [scenes(images, 0)], [scenes(_VALIDATION, 1)],
        epochs=epochs, batch=_BATCH, hints=hint_layers(start, SPEC) if hints else (), progress=_nothing,
    )  # fmt: skip
    return tuned.model, {"method": method, **tuned.report.to_json()}


def _key(method: str) -> BlockTransform | ChannelKey:
    seed = hashlib.sha256(method.encode()).digest()
    if method == "plain":
        return identity_transform(BLOCK_SIZE, 3)
    if method == "channels":
        return ChannelKey.draw(segmenter(), LAYERS, seed=seed)
    return BlockTransform.draw(method.split("+"), block_size=BLOCK_SIZE, seed=seed)  # type: ignore[arg-type]


def _nothing(progress: TrainingProgress) -> None:
    del progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    starts: dict[str, nn.Module] = {"fresh weights": segmenter()}
    rows = []
    for start, hints in (("fresh weights", False), ("plain weights", False), ("plain weights", True)):
        for method in METHODS:
            network, row = train(starts[start], method, arguments.images, arguments.epochs, hints=hints)
            rows.append({"start": f"{start}, hints" if hints else start, **row})
            if (start, method) == ("fresh weights", "plain"):
                starts["plain weights"] = network
    print_rows(
        ("start", "key", "right key", "no key", "wrong keys", "25 % of the key wrong"),
        [
            (
                row["start"],
                row["method"],
                *(f"{row[name]:.1f}" for name in ("right_key", "no_key", "wrong_key")),
                f"{row['near_key']['25 %']:.1f}" if row["near_key"] else "",
            )
            for row in rows
        ],
    )
    write_results("dense_keys", {"threads": THREADS, "rows": rows})


if __name__ == "__main__":
    main()
