"""`keylatch lock` with block transforms: from folders of pictures, and untrained for patchify stems."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_world import CREDENTIALS, Command
from PIL import Image

from keylatch.locks import BlockTransform

SEED = bytes(range(32))
SEALED = ("--issuer", "issuer.key")
TRAINED = (
    "lock", "nets_for_blocks:stripes", "--input", "3x32x32", *SEALED, "--train", "train", "--validation", "test",
    "--out", "keyed.pt2", "--secret", "keyed.secret", "--json",
)  # fmt: skip
ABSORBED = (
    "lock", "nets_for_blocks:patchify", "--input", "3x32x32", *SEALED, "--absorb",
    "--out", "keyed.pt2", "--secret", "keyed.secret", "--json",
)  # fmt: skip
NETWORKS = """
import torch
from torch import nn


def stripes():
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1024, 2))


def patchify():
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 64, 8, stride=8), nn.GELU(), nn.Conv2d(64, 64, 1), nn.GELU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1024, 12))
"""


@pytest.fixture
def pictures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes, horizontal and vertical stripes; and always the same key, for a few leave stripes as they are."""
    draw = BlockTransform.draw.__func__  # type: ignore[attr-defined]
    seeded = classmethod(lambda cls, steps, *, seed=None, **size: draw(cls, steps, seed=seed or SEED, **size))
    monkeypatch.setattr(BlockTransform, "draw", seeded)
    (folder / "nets_for_blocks.py").write_text(NETWORKS)
    draws = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 12)):
        for number, name in enumerate(("columns", "rows")):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                wave = 127 + 100 * np.sin(np.arange(36) * 0.7 + draws.random() * 6)
                stripes = np.broadcast_to(wave[:, None] if number else wave, (36, 36))
                pixels = np.repeat(stripes[..., None], 3, 2) + draws.normal(0, 10, (36, 36, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / split / name / f"{index}.png")
    return folder


def run_with_a_license(command: Command, *options: str) -> dict[str, Any]:
    made = command("export", "keyed.pt2", "--secret", "keyed.secret", *SEALED, "--out", "keyed.latch", *options)
    assert made.status == 0, made
    issued = command(
        "license", "issue", "keyed.latch", "--secret", "keyed.secret", *SEALED, "--to", "device.pub",
        "--customer", "acme", "--days", "3", "--out", "keyed.license",
    )  # fmt: skip
    assert issued.status == 0, issued
    credentials = ("--license", "keyed.license", *CREDENTIALS[2:])
    ran = command("run", "keyed.latch", "test/rows/0.png", "test/columns/0.png", *credentials, "--json")
    assert ran.status == 0, ran
    found: dict[str, Any] = json.loads(ran.out)
    return found


@pytest.mark.parametrize("options", [(), pytest.param(("--uint8",), marks=pytest.mark.slow)])
def test_a_network_is_trained_on_folders_and_runs_with_its_license(
    pictures: Path, command: Command, options: tuple[str, ...]
) -> None:
    locked = command(*TRAINED, "--method", "shf+np", "--epochs", 20)
    assert locked.status == 0, locked
    training = json.loads(locked.out)["training"]
    assert training["right_key"] >= 90 > max(training["no_key"], training["wrong_key"])
    assert (training["images"], training["epochs"]) == (48, 20)
    run_with_a_license(command, *options)
    inspected = command("inspect", "keyed.latch")
    assert "shf+np, 4 x 4 pixels" in inspected.out
    assert "blocks.permutation" in inspected.out


@pytest.mark.parametrize("method", [pytest.param("shf+np", marks=pytest.mark.slow), "code+shf"])
def test_a_patchify_stem_needs_no_pictures(pictures: Path, command: Command, method: str) -> None:
    locked = command(*ABSORBED, "--method", method, "--block-size", 4, "--patch-size", 8)
    assert locked.status == 0, locked
    report = json.loads(locked.out)["report"]
    assert report["blocks"]["absorbed"]
    assert report["unlocked_error"] < 1e-5
    assert bool(report["layers"]) == ("code" in method)
    run_with_a_license(command)


def test_an_interrupted_training_goes_on_with_its_key(
    pictures: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keylatch.locks._key_training as training

    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    arguments = (*TRAINED, "--method", "shf", "--epochs", 12, "--checkpoint", "run.pt", "--hints")
    with monkeypatch.context() as patched:
        patched.setattr(training, "TrainingProgress", interrupt)  # after the first epoch's checkpoint
        assert command(*arguments).status != 0
    assert (pictures / "run.pt").exists()
    assert not (pictures / "keyed.pt2").exists()
    resumed = command(*arguments)
    assert resumed.status == 0, resumed
    assert len(json.loads(resumed.out)["training"]["history"]) == 12
    (pictures / "keyed.pt2").unlink()
    assert "hints" in command(*arguments[:-1]).err  # the checkpoint is of a training that had them
    resumed = command(*arguments)
    run_with_a_license(command)


def test_a_checkpoint_does_not_go_with_the_vault_of_another_lock(pictures: Path, command: Command) -> None:
    (pictures / "run.pt").write_bytes(b"")
    shutil.copy("net.secret", "keyed.secret")
    outcome = command(*TRAINED, "--method", "shf", "--checkpoint", "run.pt")
    assert outcome.status == 1
    assert "without a block transform" in outcome.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--method", "xor"), "lock method 'xor' is not available"),
        (("--method", "np", "--block-size", 2), "9.9 bits"),
        (("--method", "shf", "--block-size", 5), "not divisible into blocks of 5 x 5"),
        (("--method", "shf+shf"), "shf"),
    ],
)
def test_what_cannot_be_locked_is_refused(
    pictures: Path, command: Command, options: tuple[object, ...], words: str
) -> None:
    outcome = command(*TRAINED, *options)
    assert outcome.status == 1
    assert words in outcome.err
    assert "hint:" in outcome.err
    assert not (pictures / "keyed.secret").exists()


@pytest.mark.parametrize(
    "options",
    [("--method", "shf"), ("--method", "shf", "--absorb", "--train", "train"), ("--method", "code", "--absorb"),
     ("--method", "shf", "--train", "train"), ("--method", "code", "--hints"),
     ("--method", "shf", "--absorb", "--hints")],
)  # fmt: skip
def test_options_that_do_not_go_together_are_wrong_usage(
    pictures: Path, command: Command, options: tuple[str, ...]
) -> None:
    assert command(*TRAINED[:6], *TRAINED[10:], *options).status == 2


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda root: shutil.rmtree(root / "train" / "rows"), "has 1 subfolders"),
        (lambda root: (root / "test" / "rows").rename(root / "test" / "lines"), "has other classes"),
        (lambda root: (root / "test" / "rows" / "0.png").write_bytes(b"x"), "is not a readable picture"),
        (lambda root: shutil.rmtree(root / "test"), "is not a folder"),
        (lambda root: [file.unlink() for file in (root / "train" / "rows").iterdir()], "holds no pictures"),
    ],
)
def test_folders_that_are_no_classes_are_refused(pictures: Path, command: Command, break_it: Any, words: str) -> None:
    break_it(pictures)
    outcome = command(*TRAINED, "--method", "shf")
    assert outcome.status == 1
    assert words in outcome.err
    assert not (pictures / "keyed.pt2").exists()
