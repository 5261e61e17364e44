"""What does each gate take by itself, beside a plain copy of the same bytes?

Each gate stands in front of a network of one layer. What the keyed session takes longer than the plain one is the gate
once it is opened; what the locked session takes longer is the gate that runs. A copy of the image batch by numpy is the
physical limit of whatever has to touch every pixel.

    python benchmarks/gate_only.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

import config_networks
import sessions
from installing import Installation, custom, workplace
from keylatch.locks import BlockTransform, InputSpec, block_lock, code_lock
from measuring import print_rows
from pairs import arguments, compare_for, figures, median_interval, write_rows

BATCHES = (1, 8)
SPEC = config_networks.SPEC
_QUICK_SPEC = InputSpec(3, 32, 32)
TOLERANCE = 1e-3
_BLOCK_SIZE = 4

Step = Literal["shf", "np", "ffx"]
Install = Callable[[Path, InputSpec], Installation]

Row = dict[str, Any]


def _one_layer(kernel: int = 16) -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, 32, kernel, stride=16).eval()  # by default every pixel is read once


def _code(folder: Path, spec: InputSpec) -> Installation:
    network = _one_layer()
    locked = code_lock(network, spec, minimum_channels=3, sealed_share=0.0)
    return custom(folder, "code", network, spec, locked)


def _blocks(*steps: Step) -> Install:
    """A block transform in front of a layer that reads no whole blocks, so that it stays a gate."""

    def install(folder: Path, spec: InputSpec) -> Installation:
        network = _one_layer(7)
        locked = block_lock(network, spec, BlockTransform.draw(steps, block_size=_BLOCK_SIZE))
        return custom(folder, "+".join(steps), network, spec, locked)

    return install


def _stem(folder: Path, spec: InputSpec) -> Installation:
    """A block transform that moves into the layer behind it."""
    network = _one_layer()
    key = BlockTransform.draw(("shf", "np"), block_size=_BLOCK_SIZE)
    return custom(folder, "stem", network, spec, block_lock(network, spec, key, absorb=True))


# Name of a lock to what installs it in front of one layer. A lock that transforms images adds itself here.
GATES: dict[str, Install] = {
    "code": _code,
    "shf": _blocks("shf"),
    "shf+np": _blocks("shf", "np"),
    "shf+np+ffx": _blocks("shf", "np", "ffx"),
    "shf+np in a stem": _stem,
}
_UNCHANGED = frozenset({"code", "shf+np in a stem"})  # opened, they answer as the plain network does to plain images


def measure(gate: str, place: Installation, settings: argparse.Namespace) -> list[Row]:
    """For each batch size, the gate opened and locked."""
    plain = sessions.open_plain(place)
    rows = []
    for state, open_session in (("keyed", sessions.open_keyed), ("locked", sessions.open_locked)):
        session = open_session(place)
        for batch in settings.batch:
            images = sessions.random_images(place, batch)
            if state == "keyed" and gate in _UNCHANGED:
                feed = {"image": images}
                sessions.require_same(plain.run(None, feed), session.run(None, feed), TOLERANCE)
            rows.append(_row(gate, state, batch, images, sessions.runner(plain, images), session, settings))
    return rows


def _row(
    gate: str,
    state: str,
    batch: int,
    images: Any,
    plain: Callable[[], object],
    session: Any,
    settings: argparse.Namespace,
) -> Row:
    target = np.empty_like(images)
    copying = compare_for(settings, plain, lambda: np.copyto(target, images))
    comparison = compare_for(settings, plain, sessions.runner(session, images))
    copy_ms = copying.percentiles(50)[1]
    gate_ms, interval = median_interval(comparison.candidate_ms - comparison.baseline_ms)
    whole = figures(comparison)
    return {
        "network": f"{gate} gate",
        "provider": "cpu",
        "precision": "float32",
        "batch": batch,
        "mode": state,
        **{key: whole[key] for key in ("plain_p50_ms", "plain_p99_ms", "keyed_p50_ms", "keyed_p99_ms", "pairs")},
        "gate_us": 1e3 * gate_ms,
        "copy_us": 1e3 * copy_ms,
        "ratio_p50": gate_ms / copy_ms,
        "ratio_ci95": [bound / copy_ms for bound in interval],
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--gate", choices=sorted(GATES), action="append")
    settings = parser.parse_args()
    settings.batch = [1] if settings.quick else BATCHES
    sessions.require_provider("cpu")
    with workplace(None) as folder:
        spec = _QUICK_SPEC if settings.quick else SPEC
        places = {gate: GATES[gate](folder / gate, spec) for gate in settings.gate or GATES}
        sessions.share_threads()
        rows = [row for gate, place in places.items() for row in measure(gate, place, settings)]
    print_rows(
        ("gate", "batch", "gate, us", "copy, us", "gate / copy (95 %)"),
        [
            (
                f"{row['network']}, {row['mode']}",
                row["batch"],
                f"{row['gate_us']:.1f}",
                f"{row['copy_us']:.1f}",
                "{:.2f} ({:.2f} to {:.2f})".format(row["ratio_p50"], *row["ratio_ci95"]),
            )
            for row in rows
        ],
    )
    write_rows("gate_only", rows, settings)


if __name__ == "__main__":
    main()
