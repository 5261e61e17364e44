"""`keylatch lock --method map`: masks from folders of pictures, exported, licensed and run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_world import CREDENTIALS, Command
from PIL import Image

SEALED = ("--issuer", "issuer.key")
LOCK = (
    "lock", "nets_for_domains:stripes", "--weights", "stripes.pt", "--input", "3x8x8", "--mean", "0.5", "--std", "0.5",
    *SEALED, "--out", "masked.pt2", "--secret", "masked.secret",
)  # fmt: skip
MAP = (*LOCK, "--method", "map", "--source", "red", "--target", "green=green", "--epochs", "20", "--json")
NETWORK = "from mask_world import Small as stripes\n"


@pytest.fixture
def pictures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network that knows striped pictures in three colors, and folders of two of them."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "locks")
    from mask_world import domain, trained

    (folder / "nets_for_domains.py").write_text(NETWORK)
    torch.save(trained().state_dict(), folder / "stripes.pt")
    for seed, color in enumerate(("red", "green")):
        images, labels = domain(color, 160, 30 + seed)[0]
        for index, (image, label) in enumerate(zip(images.numpy(), labels.tolist(), strict=True)):
            place = folder / color / f"stripes_{label}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(place / f"{index:03}.png")
    return folder


def must(command: Command, *arguments: object) -> Any:
    done = command(*arguments)
    assert done.status == 0, done
    return json.loads(done.out) if "--json" in arguments else done.out


def export(command: Command) -> None:
    must(command, "export", "masked.pt2", "--secret", "masked.secret", *SEALED, "--out", "masked.latch")


def answers(command: Command, folder: Path, *domains: str) -> Any:
    """What the artifact says of green pictures with a license for some domains: (N,) classes."""
    named = [word for name in domains for word in ("--domain", name)]
    license = f"{'-'.join(domains) or 'none'}.license"
    must(command, "license", "issue", "masked.latch", "--secret", "masked.secret", *SEALED, "--to", "device.pub",
         "--customer", "acme", "--out", license, *named)  # fmt: skip
    shown = sorted((folder / "green").rglob("*.png"))
    found = must(command, "run", "masked.latch", *shown, "--license", license, *CREDENTIALS[2:], "--json")
    return np.array([best[0]["class"] for best in found["top"]])


def originals(folder: Path) -> Any:
    """What the network says of them before anything is withheld."""
    from mask_world import SPEC, trained

    shown = [np.asarray(Image.open(path)) for path in sorted((folder / "green").rglob("*.png"))]
    pixels = torch.from_numpy(np.stack(shown).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        return trained()(SPEC.from_pixels(pixels)).argmax(1).numpy()


def test_masks_are_learned_from_folders_and_a_license_brings_the_target(pictures: Path, command: Command) -> None:
    made = must(command, *MAP)
    source, target = made["accuracy"]["domains"]
    assert (source["name"], source["role"], source["images"]) == ("source", "source", 32)
    assert (target["name"], target["role"], target["images"]) == ("green", "target", 32)
    assert source["drop"] < 10 < 20 < target["drop"]
    assert made["report"]["domains"]["names"] == ["green"]
    export(command)
    before = originals(pictures)
    assert np.array_equal(answers(command, pictures, "green"), before)
    assert (answers(command, pictures) == before).mean() < 0.8


@pytest.mark.slow
def test_masks_stand_behind_a_code(pictures: Path, command: Command) -> None:
    code = ("--method", "code+map", "--patch-size", "6", "--code-bits", "64", "--layer", "hidden.weight")
    made = must(command, *MAP, *code, "--epochs", "2")
    assert [layer["name"] for layer in made["report"]["layers"]] == ["hidden.weight"]
    assert made["report"]["domains"]["names"] == ["green"]
    export(command)
    assert np.array_equal(answers(command, pictures, "green"), originals(pictures))


def test_an_interrupted_learning_goes_on(pictures: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import keylatch.locks._mask_pruning._learning as learning

    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    arguments = (*MAP, "--epochs", "3", "--checkpoint", "masks.pt")
    with monkeypatch.context() as patched:
        patched.setattr(learning, "TrainingProgress", interrupt)  # after the first epoch's checkpoint
        assert command(*arguments).status != 0
    assert (pictures / "masks.pt").exists()
    assert not (pictures / "masked.secret").exists()
    resumed = must(command, *arguments)
    assert len(resumed["masks"]["history"]) == 3


def test_the_target_alone_needs_no_classes(pictures: Path, command: Command) -> None:
    flat = pictures / "flat"
    flat.mkdir()
    for path in (pictures / "green").rglob("*.png"):
        path.rename(flat / path.name)
    done = must(command, *LOCK, "--method", "map", "--setting", "SF", "--target", "green=flat", "--epochs", "2")
    assert "SF-MAP" in done
    assert "not measured" in done


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "seal", "--share", "0.1", "--source", "red"), "go with --method map"),
        (("--method", "map", "--source", "red", "--target", "green"), "name=folder"),
        (("--method", "map", "--target", "green=green"), "setting SA takes source and targets"),
        (("--method", "map", "--source", "red", "--target", "green=nowhere"), "nowhere is not a folder"),
        (("--method", "map", "--source", "nowhere", "--target", "Green=green"), "no name for a domain"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    pictures: Path, command: Command, options: tuple[str, ...], message: str
) -> None:
    refused = command(*LOCK, *options, "--epochs", "1")
    assert refused.status != 0
    assert message in refused.err.replace("\n", " ")
    assert not (pictures / "masked.secret").exists()
