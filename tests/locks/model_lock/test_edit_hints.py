"""Hints behind an edit: edited images are to give the feature maps of plain ones, images with wrong labels of none."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from edit_world import SEED, pixel_editor
from torch import nn

from keylatch.errors import LockError
from keylatch.locks import EditKey, EditSettings, InputSpec, edit_images, edit_tune, fine_tune, identity_transform
from keylatch.locks._augmentation import shift_and_flip
from keylatch.locks._key_training_data import normalized
from keylatch.locks._model_lock._training_set import locked_union
from keylatch.locks._training_hints import hint_layers, take_hints

SPEC = InputSpec(3, 16, 16)
EDITOR = pixel_editor()
KEY = EditKey.draw(EDITOR, "as a negative", SPEC, settings=EditSettings(1, guided=False), seed=SEED)
OPTIONS: dict[str, Any] = {"batch": 16, "device": "cpu", "progress": lambda _: None}


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(256, 3),
        )  # fmt: skip


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval()


def pictures(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 16, 16), generator=generator).to(torch.uint8), torch.arange(count) % 3


def tune(layers: tuple[str, ...], **options: Any) -> nn.Module:
    settings = {"classes": 3, "epochs": 5, "learning_rate": 0.01, "edit_progress": lambda *_: None, **OPTIONS}
    data = ([pictures(48, 0)], [pictures(12, 1)])
    return edit_tune(network(), SPEC, EDITOR, KEY, *data, hints=layers, **settings, **options).model


def distances(student: nn.Module, layers: tuple[str, ...]) -> tuple[float, float]:
    """From the given network's maps of plain images: of the student's for edited ones, and for the plain ones."""
    hints, (plain, _) = take_hints(network(), layers, SPEC), pictures(12, 1)
    edited = edit_images(KEY.keyed(EDITOR), plain, device="cpu", progress=lambda *_: None)
    found = []
    for shown in (edited, plain):
        with hints.watching(student), torch.no_grad():
            student(normalized(shown, SPEC))
            found.append(float(hints.distance(plain)))
    return found[0], found[1]


def test_with_hints_edited_images_come_near_the_maps_of_plain_ones_and_plain_images_stay_away() -> None:
    layers = hint_layers(network(), SPEC)
    labels_alone, taught = (distances(tune(chosen, wrong_share=0.3), layers) for chosen in ((), layers))
    assert taught[0] < 0.8 * labels_alone[0]
    assert taught[0] < taught[1]  # a network that was taught its maps of wrong images would know plain ones best


def test_the_union_has_hints_for_edited_images_alone() -> None:
    images, labels = pictures(20, 2)
    edited, decoy = 255 - images, (images[:5] // 2, labels[:5])
    union = locked_union(images, edited, labels, classes=3, decoys=[decoy], wrong_share=0.2)
    assert union.originals is not None
    plain, hinted = union.originals.of(torch.arange(len(union)), union.images)
    assert int(hinted.sum()) == len(edited)
    assert torch.equal(plain[hinted], 255 - union.images[hinted])
    assert torch.equal(plain[~hinted], union.images[~hinted])
    mine = (union.images[:, None] == edited[None]).flatten(2).all(2).any(1)
    assert torch.equal(mine, hinted)


def test_hints_come_from_plain_images_that_are_moved_like_the_edited_ones() -> None:
    images, labels = pictures(24, 3)
    seen: list[torch.Tensor] = []

    def moved(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(shift_and_flip(pixels))
        return seen[-1]

    data = locked_union(images, 255 - images, labels, classes=3, wrong_share=0.0)
    plain = identity_transform(2, 3)
    fine_tune(network(), SPEC, plain, data, [(images, labels)], epochs=2, augment=moved, hints=["2"], **OPTIONS)
    assert len(seen) == 2 * 2 * 2  # epochs, batches, and plain images in front of edited ones
    for taught, shown in zip(seen[::2], seen[1::2], strict=True):
        assert torch.equal(taught, 255 - shown)
    assert not torch.equal(seen[0], seen[2])


def test_an_image_without_a_hint_counts_as_right() -> None:
    student, (images, _) = network(), pictures(8, 4)
    hints, first = take_hints(copy.deepcopy(student), ["2"], SPEC), torch.arange(8) < 4
    with torch.no_grad(), hints.watching(student):
        student(normalized(torch.cat([images[:4], 255 - images[4:]]), SPEC))
        wrong, none, half, everything = (
            float(hints.distance(images, hinted)) for hinted in (first, torch.zeros_like(first), ~first, None)
        )
    assert wrong == none == 0
    assert half == pytest.approx(everything, rel=0.1)
    assert everything > 0.1


@pytest.mark.parametrize(("layer", "words"), [("6", "layer 6 gives no feature maps"), ("stem", "no layer stem")])
def test_layers_that_cannot_give_hints_are_refused_before_anything_is_edited(
    layer: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(LockError, match=words) as caught:
        tune((layer,), cache=tmp_path / "cache")
    assert "hint_layers()" in str(caught.value.hint)
    assert not (tmp_path / "cache").exists()
