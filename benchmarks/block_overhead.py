"""What does a block transform cost beside plain onnxruntime?

ResNet-50 is shown transformed images, by a gate in front; ViT-B/16 absorbs the key in its patchify stem. Both are code
locks too: a network with random weights hardly tells a transformed image from a plain one. Pairs run in turn in one
process, as in `overhead.py`.

    python benchmarks/block_overhead.py [--network resnet50] [--batch 1] [--method shf+np]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import config_networks
import sessions
from installing import Installation, custom, workplace
from keylatch.locks import BlockTransform, code_lock
from measuring import print_rows
from pairs import arguments, compare_for, figures, shown_ratio, write_rows

BATCHES = (1, 8)
METHODS = ("shf", "shf+np", "shf+np+ffx")
BLOCK_SIZES = {"resnet50": 4, "vit_b16": 16, "tiny": 4}
ABSORBING = frozenset({"vit_b16"})
_TOLERANCE = 1e-2

Row = dict[str, Any]


def install(folder: Path, name: str, method: str) -> Installation:
    """Lock a network with a code and a block transform, and license it."""
    network, spec = config_networks.build(name), config_networks.ALL_NETWORKS[name].spec
    key = BlockTransform.draw(method.split("+"), block_size=BLOCK_SIZES[name])  # type: ignore[arg-type]
    locked = code_lock(network, spec, blocks=key, absorb=name in ABSORBING)
    return custom(folder / f"{name}-{method}", name, network, spec, locked)


def measure(place: Installation, method: str, settings: argparse.Namespace) -> list[Row]:
    """For each batch size."""
    plain, keyed = sessions.open_plain(place), sessions.open_keyed(place)
    rows = []
    for batch in settings.batch:
        images = sessions.random_images(place, batch)
        if place.name in ABSORBING:
            feed = {"image": images}
            sessions.require_same(plain.run(None, feed), keyed.run(None, feed), _TOLERANCE)
        found = figures(compare_for(settings, sessions.runner(plain, images), sessions.runner(keyed, images)))
        facts = {"network": place.name, "provider": "cpu", "precision": "float32", "batch": batch, "mode": method}
        rows.append({**facts, "block_size": BLOCK_SIZES[place.name], **found})
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--network", choices=sorted(BLOCK_SIZES), action="append")
    parser.add_argument("--method", choices=METHODS, action="append")
    parser.add_argument("--batch", type=int, action="append")
    settings = parser.parse_args()
    settings.batch = settings.batch or ([1] if settings.quick else BATCHES)
    names = settings.network or (["tiny"] if settings.quick else ["resnet50", "vit_b16"])
    sessions.require_provider("cpu")
    with workplace(None) as folder:
        places = [
            (install(folder, name, method), method)
            for name in names
            for method in settings.method or METHODS
            if not (name in ABSORBING and "ffx" in method)
        ]
        sessions.share_threads()
        rows = [row for place, method in places for row in measure(place, method, settings)]
    print_rows(
        ("network", "transform", "batch", "plain p50, ms", "keyed p50, ms", "ratio (95 %)"),
        [
            (row["network"], row["mode"], row["batch"], f"{row['plain_p50_ms']:.2f}", f"{row['keyed_p50_ms']:.2f}",
             shown_ratio(row))
            for row in rows
        ],
    )  # fmt: skip
    write_rows("block_overhead", rows, settings)


if __name__ == "__main__":
    main()
