"""Writes block_transforms.json: `python tests/locks/vectors/generate_block_transforms.py`; with `--check` it only names
the vectors that differ, and exits 1.

Each vector: a key's seed, steps and sizes, an image from SHAKE-256 of a name, and the SHA-256 of the transformed bytes
(ffx: of the shown values, float32 little endian), in the order (N, C, H, W).
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keylatch.locks._block_transform import BlockTransform

PATH = Path(__file__).resolve().parent / "block_transforms.json"

STEPS = [
    ["shf"], ["np"], ["ffx"], ["shf", "np"], ["np", "shf"], ["shf", "ffx"], ["np", "ffx"], ["shf", "np", "ffx"],
    ["np", "shf", "ffx"],
]  # fmt: skip


def image_of(vector: dict[str, Any]) -> torch.Tensor:
    """Returns the vector's image, (N, C, H, W) uint8."""
    data = hashlib.shake_256(vector["image"].encode()).digest(math.prod(vector["shape"]))
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(vector["shape"])


def key_of(vector: dict[str, Any]) -> BlockTransform:
    """Draws the vector's key."""
    seed = bytes.fromhex(vector["seed"])
    return BlockTransform.draw(vector["steps"], block_size=vector["block_size"], channels=vector["channels"], seed=seed)


def digest_of(vector: dict[str, Any], transformed: torch.Tensor) -> str:
    """Returns the SHA-256 of an output."""
    dtype = np.dtype("<f4") if "ffx" in vector["steps"] else np.dtype("u1")
    return hashlib.sha256(transformed.numpy().astype(dtype).tobytes()).hexdigest()


def make_all() -> list[dict[str, Any]]:
    """Makes every vector."""
    return [
        _vector(steps, block_size, channels)
        for steps in STEPS
        for block_size in (2, 4, 8, 16)
        for channels in (1, 3)
        if (steps, block_size) != (["np"], 2)
    ]


def _vector(steps: list[str], block_size: int, channels: int) -> dict[str, Any]:
    name = f"{'+'.join(steps)}-{block_size}-{channels}"
    vector: dict[str, Any] = {
        "name": name,
        "steps": steps,
        "block_size": block_size,
        "channels": channels,
        "seed": hashlib.sha256(f"seed {name}".encode()).hexdigest(),
        "image": f"image {name}",
        "shape": [2, channels, 2 * block_size, 3 * block_size],
    }
    key, image = key_of(vector), image_of(vector)
    return {**vector, "sha256": digest_of(vector, key.values(image) if "ffx" in steps else key.bytes(image))}


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    made = make_all()
    if not arguments:
        PATH.write_text("[\n" + ",\n".join(json.dumps(vector) for vector in made) + "\n]\n")
        return 0
    stored = {vector["name"]: vector for vector in json.loads(PATH.read_text())}
    wanted = {vector["name"]: vector for vector in made}
    differing = sorted(name for name in stored | wanted if stored.get(name) != wanted.get(name))
    for name in differing:
        print(f"differs: {name}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
