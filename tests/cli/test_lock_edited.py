"""`keylatch lock --method model-lock`: from folders of pictures to a session with a license."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_world import CREDENTIALS, Command
from PIL import Image

from keylatch.locks import train_pixel_editor

SEALED = ("--issuer", "issuer.key")
LOCK = (
    "lock", "nets_for_edits:stripes", "--input", "3x16x16", *SEALED, "--method", "model-lock", "--editor", "editor",
    "--train", "train", "--validation", "test", "--epochs", "40", "--edit-steps", "1", "--guidance", "0",
    "--blend", "1", "--edit-cache", "cache", "--out", "edited.pt2", "--secret", "edited.secret", "--json",
)  # fmt: skip
NETWORK = """
import torch
from torch import nn


def stripes():
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(256, 2))
"""


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("editor") / "editor"
    train_pixel_editor(steps=150, width=16, side=16).save(place)
    return place


@pytest.fixture
def pictures(folder: Path, editor: Path) -> Path:
    """Two classes, horizontal and vertical stripes, and an editor."""
    (folder / "nets_for_edits.py").write_text(NETWORK)
    (folder / "editor").symlink_to(editor)
    draws = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 12)):
        for number, name in enumerate(("columns", "rows")):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                wave = 127 + 100 * np.sin(np.arange(18) * 0.7 + draws.random() * 6)
                stripes = np.broadcast_to(wave[:, None] if number else wave, (18, 18))
                pixels = np.repeat(stripes[..., None], 3, 2) + draws.normal(0, 10, (18, 18, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / split / name / f"{index}.png")
    return folder


def test_a_network_is_locked_exported_licensed_and_run(pictures: Path, command: Command) -> None:
    locked = command(*LOCK, "--prompt", "as a negative", "--decoy", "at night", "--made-up", "5", "--share", "0.2")
    assert locked.status == 0, locked
    told: dict[str, Any] = json.loads(locked.out)
    assert set(told["training"]["wrong_prompt"]) == {"at night"}
    decoys, tints, plain = 7 * round(1.2 * 48 / 7), round(1.2 * 48), 8
    assert told["training"]["wrong_images"] == decoys + tints + plain
    assert told["report"]["edit"]["steps"] == 1
    assert told["ranks"] == []
    assert told["report"]["seal"]["share"] == pytest.approx(0.2, abs=0.01)
    assert list((pictures / "cache").iterdir())
    assert command("export", "edited.pt2", "--secret", "edited.secret", *SEALED, "--out", "edited.latch").status == 0
    issued = command(
        "license", "issue", "edited.latch", "--secret", "edited.secret", *SEALED, "--to", "device.pub",
        "--customer", "acme", "--days", "3", "--out", "edited.license",
    )  # fmt: skip
    assert issued.status == 0, issued
    ran = command("run", "edited.latch", "test/rows/0.png", "--license", "edited.license", *CREDENTIALS[2:], "--json")
    assert ran.status == 0, ran
    inspected = command("inspect", "edited.latch")
    assert "pixel, 1 steps" in inspected.out
    assert "negative" not in inspected.out + ran.out


@pytest.mark.slow
def test_without_a_prompt_the_candidates_are_ranked(pictures: Path, command: Command) -> None:
    (pictures / "prompts.txt").write_text("at night\n\nas a negative\nat night\n")
    locked = command(*LOCK, "--prompts", "prompts.txt")
    assert locked.status == 0, locked
    told = json.loads(locked.out)
    assert sorted(rank["prompt"] for rank in told["ranks"]) == ["as a negative", "at night"]
    assert set(told["training"]["wrong_prompt"]) == {told["ranks"][1]["prompt"]}


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_its_key_and_only_with_its_options(pictures: Path, command: Command) -> None:
    options = (*LOCK, "--prompt", "as a negative", "--decoy", "at night", "--checkpoint", "run.pt", "--hints")
    assert command(*options).status == 0
    secret, edited = (pictures / "edited.secret").read_bytes(), set((pictures / "cache").iterdir())
    (pictures / "edited.pt2").unlink()  # as if the power had gone before the end
    other = command(*LOCK, "--prompt", "in the fog")
    assert other.status == 1
    assert "the vault is that of another lock" in other.err
    other = command(*options, "--blend", "0.7")
    assert other.status == 1
    assert "another blend" in other.err
    assert "hints" in command(*options[:-1]).err  # the checkpoint is of a training that had them
    assert (pictures / "edited.secret").read_bytes() == secret
    assert command(*options).status == 0
    assert set((pictures / "cache").iterdir()) == edited  # nothing was edited again


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--method", "code"), 2, "go together"),
        (("--editor", "nowhere/./", "--prompt", "x"), 1, "editor"),
        (("--edit-steps", "9"), 2, "--edit-steps"),
        (("--prompt", "x", "--share", "2"), 1, "a share of 2.0"),
        (("--prompts", "missing.txt"), 1, "cannot be read"),
        (("--absorb",), 2, "model-lock wants"),
    ],
)
def test_what_does_not_fit_is_refused(
    pictures: Path, command: Command, arguments: tuple[str, ...], status: int, said: str
) -> None:
    refused = command(*LOCK, *arguments)
    assert refused.status == status, refused
    assert said in refused.err
    assert not (pictures / "edited.pt2").exists()
    assert not (pictures / "edited.secret").exists()
