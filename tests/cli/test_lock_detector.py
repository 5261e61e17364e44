"""`keylatch lock` with a detector: locked, exported, licensed and run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_world import CREDENTIALS, Command

SEALED = ("--issuer", "issuer.key")
LOCK = (
    "lock", "nets_for_detectors:cells", "--input", "3x32x32", *SEALED, "--patch-size", "8", "--out", "keyed.pt2",
    "--secret", "keyed.secret",
)  # fmt: skip
NETWORKS = """
import torch
from torch import nn


def cells():
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 512, 8, stride=8), nn.ReLU(), nn.Conv2d(512, 32, 1), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(512, 12))
"""


@pytest.fixture
def networks_there(folder: Path) -> Path:
    (folder / "nets_for_detectors.py").write_text(NETWORKS)
    return folder


@pytest.mark.usefixtures("networks_there")
@pytest.mark.parametrize("kind", [pytest.param("a", marks=pytest.mark.slow), "b"])
def test_a_detector_lock_goes_all_the_way(command: Command, kind: str) -> None:
    locked = command(*LOCK, "--method", f"detector-{kind}", "--json")
    assert locked.status == 0, locked
    report = json.loads(locked.out)["report"]["detector"]
    assert (report["kind"], report["fan_in"]) == (kind.upper(), 512)
    assert report["bound"] <= 1e-6
    steps = (
        ("export", "keyed.pt2", "--secret", "keyed.secret", *SEALED, "--out", "keyed.latch"),
        ("license", "issue", "keyed.latch", "--secret", "keyed.secret", *SEALED, "--to", "device.pub", "--customer",
         "acme", "--days", "3", "--out", "keyed.license"),
        ("run", "keyed.latch", "images.npy", "--license", "keyed.license", *CREDENTIALS[2:], "--json"),
    )  # fmt: skip
    for step in steps:
        done = command(*step)
        assert done.status == 0, done
    shown = command("inspect", "keyed.latch")
    assert f"detector, lock {kind.upper()}, 8x8 patch bottom-right" in shown.out


@pytest.mark.usefixtures("networks_there")
def test_the_command_names_the_weakness(command: Command) -> None:
    locked = command(*LOCK, "--method", "detector-a")
    assert "subtracting the mean output undoes it without any key" in locked.out


@pytest.mark.usefixtures("networks_there")
def test_a_detector_reads_one_layer(command: Command) -> None:
    refused = command(*LOCK, "--method", "detector-b", "--layer", "0", "--layer", "2")
    assert refused.status != 0
    assert "give --layer once" in refused.err
