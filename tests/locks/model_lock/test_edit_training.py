"""Training on edited images: who has the key has the network, who has not has wrong labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from edit_world import SEED
from torch import nn

from keylatch.errors import LockError
from keylatch.locks import (
    EditKey,
    EditSettings,
    EditTuned,
    InputSpec,
    PixelEditor,
    edit_tune,
    fine_tune,
    identity_transform,
    no_augment,
    rank_prompts,
    score_on,
    train_pixel_editor,
    varied_editor,
)
from keylatch.locks._model_lock._draws import Draws
from keylatch.locks._model_lock._made_images import made_pictures
from keylatch.locks._model_lock._styles import STYLE_PROMPTS, made_styles
from keylatch.locks._model_lock._training_set import drawn_labels, locked_union

SPEC = InputSpec(3, 16, 16)
PROMPT = "as a negative"


def quiet(*_: object) -> None:
    """No bar in a test."""


@pytest.fixture(scope="module")
def editor() -> PixelEditor:
    """Half a minute's training is not needed: a style need not be beautiful, only its own."""
    return train_pixel_editor(steps=200, width=16, side=16)


def bars(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, 3, 16, 16) uint8: a bright bar in one of four places, with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    images = 40 + 40 * torch.rand(count, 3, 16, 16, generator=generator)
    for index, label in enumerate(labels):
        images[index, :, 4 * label : 4 * label + 4] += 150
    return images.to(torch.uint8), labels


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 32, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 4)
        )


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = Net()
    plain = identity_transform(2, 3)
    options: dict[str, Any] = {"epochs": 4, "batch": 16, "augment": no_augment, "progress": quiet, "device": "cpu"}
    return fine_tune(fresh, SPEC, plain, [bars(120, 0)], [bars(40, 1)], **options).model


@pytest.fixture(scope="module")
def tuned(network: nn.Module, editor: PixelEditor) -> EditTuned:
    key = EditKey.draw(editor, PROMPT, SPEC, settings=EditSettings(1, guided=False), blend=1.0, seed=SEED)
    return edit_tune(
        network, SPEC, editor, key, [bars(120, 0)], [bars(40, 1)], classes=4, decoy_prompts=("at night",), epochs=60,
        decoy_share=0.5, wrong_share=0.2, batch=16, augment=no_augment, device="cpu", progress=quiet,
        edit_progress=quiet,
    )  # fmt: skip


def test_the_key_gives_the_network_back_and_no_key_does_not(tuned: EditTuned) -> None:
    report = tuned.report
    assert report.original == 100
    assert report.unlocked >= 95
    assert report.locked <= 25
    assert report.wrong_prompt["at night"] <= 50
    assert report.file_alone <= 50
    assert (report.images, report.wrong_images) == (120, 30 + 60)
    assert score_on(tuned.model, SPEC, *bars(40, 1)) == report.locked
    assert set(report.near_key) == {"1%", "5%", "25%"}


def test_other_keys_of_the_editor_are_decoys_too(network: nn.Module, editor: PixelEditor) -> None:
    key = EditKey.draw(editor, PROMPT, SPEC, settings=EditSettings(1, guided=False), seed=SEED)
    others = (key.near(0.5, SEED), key.near(1.0, SEED))
    options: dict[str, Any] = {"classes": 4, "epochs": 1, "device": "cpu", "progress": quiet, "edit_progress": quiet}
    data = ([bars(120, 0)], [bars(40, 1)])
    shares: dict[str, Any] = {"decoy_share": 0.5, "tint_share": 0.25, "wrong_labels": "colors"}
    report = edit_tune(network, SPEC, editor, key, *data, decoy_keys=others, **shares, **options).report
    assert (report.images, report.wrong_images) == (120, 6 + 60 + 30)
    with pytest.raises(LockError, match="tints' share is -1"):
        edit_tune(network, SPEC, editor, key, *data, tint_share=-1, **options)
    stranger = replace(key, digest="0" * 64)
    with pytest.raises(LockError, match="the key was made with"):
        edit_tune(network, SPEC, editor, key, *data, decoy_keys=(stranger,), **options)


def test_a_key_of_another_editor_is_refused_before_anything_is_edited(
    network: nn.Module, editor: PixelEditor, tmp_path: Path
) -> None:
    key = EditKey.draw(editor, PROMPT, SPEC, seed=SEED)
    other = train_pixel_editor(seed=1, steps=1, width=16, side=16)
    with pytest.raises(LockError, match="the key was made with"):
        edit_tune(network, SPEC, other, key, [], [], classes=4, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_wrong_labels_are_wrong_and_drawn_for_each_image() -> None:
    labels = torch.arange(600) % 5
    wrong = drawn_labels(labels, 5, torch.Generator().manual_seed(0))
    assert not (wrong == labels).any()
    assert wrong.min() == 0 and wrong.max() == 4
    counts = torch.bincount((wrong - labels) % 5, minlength=5)
    assert counts[0] == 0 and int(counts[1:].min()) > 100


def test_wrong_label_maps_move_every_class_and_keep_what_has_none() -> None:
    labels = torch.tensor([[[0, 0, 1], [2, 2, 255]]]).expand(50, 2, 3).contiguous()
    wrong = drawn_labels(labels, 3, torch.Generator().manual_seed(0))
    assert bool((wrong[:, 1, 2] == 255).all())
    assert not (wrong == labels)[labels != 255].any()
    assert torch.equal(wrong[:, 0, 0], wrong[:, 0, 1])  # a class of an image is one other class
    assert len(torch.unique(wrong[:, 0, 0])) == 2


def test_the_union_holds_edited_images_and_a_share_of_plain_ones() -> None:
    images = torch.zeros(95, 3, 4, 4, dtype=torch.uint8)
    images[:, 1] = torch.arange(95, dtype=torch.uint8)[:, None, None]  # one channel tells which image it is
    kind, labels = torch.tensor([1, 0, 0], dtype=torch.uint8)[:, None, None], torch.arange(95) % 3
    edited, decoy = images + kind, ((images + 2 * kind)[:7], labels[:7])
    union = locked_union(images, edited, labels, classes=3, decoys=[decoy])
    kinds, right = union.images[:, 0, 0, 0], labels[union.images[:, 1, 0, 0].long()]
    assert [int((kinds == kind).sum()) for kind in (1, 0, 2)] == [95, 5, 7]
    assert torch.equal(union.labels[kinds == 1], right[kinds == 1])
    assert not (union.labels == right)[kinds != 1].any()
    with pytest.raises(LockError, match="no wrong labels"):
        locked_union(images, edited, labels, classes=1)


def test_a_trained_editor_is_the_same_for_a_seed_and_leaves_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first = train_pixel_editor(seed=3, steps=2, width=16, side=8)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert train_pixel_editor(seed=3, steps=2, width=16, side=8).digest == first.digest
    assert train_pixel_editor(seed=4, steps=2, width=16, side=8).digest != first.digest
    with pytest.raises(LockError, match="no editor"):
        train_pixel_editor(width=20)


def test_an_editor_learns_what_its_prompts_mean(editor: PixelEditor) -> None:
    pictures = made_pictures(24, 16, Draws(7))
    wanted = made_styles(0)[PROMPT](pictures)

    def error(prompt: str) -> float:
        key = EditKey.draw(editor, prompt, SPEC, settings=EditSettings(1, guided=False), blend=1.0, seed=SEED)
        with torch.no_grad():
            return float((key.keyed(editor)(pictures) - wanted).abs().mean())

    assert error(PROMPT) < 0.7 * float((pictures - wanted).abs().mean())
    assert error(PROMPT) < 0.8 * error("at night")


def test_a_varied_editor_is_another_one_that_edits_alike(editor: PixelEditor) -> None:
    other, same = varied_editor(editor, 1), varied_editor(editor, 1)
    assert editor.digest != other.digest == same.digest != varied_editor(editor, 2).digest
    pictures = made_pictures(8, 16, Draws(7))
    key = EditKey.draw(editor, PROMPT, SPEC, settings=EditSettings(1, guided=False), blend=1.0, seed=SEED)
    with torch.no_grad():
        ours, theirs = key.keyed(editor)(pictures), key.keyed_anyway(other)(pictures)
    assert 0.002 < float((ours - theirs).abs().mean()) < 0.5 * float((ours - pictures).abs().mean())
    with pytest.raises(LockError, match="the key was made with"):
        key.keyed(other)
    with pytest.raises(LockError, match="variation"):
        varied_editor(editor, 0, amount=0)


def test_made_styles_keep_the_range_and_differ_by_seed() -> None:
    pictures = made_pictures(4, 16, Draws(1))
    ours, theirs = made_styles(0), made_styles(1)
    assert tuple(ours) == STYLE_PROMPTS
    apart = []
    for prompt, style in ours.items():
        made = style(pictures)
        assert made.shape == pictures.shape
        assert 0 <= float(made.min()) <= float(made.max()) <= 1
        apart.append(float((made - theirs[prompt](pictures)).abs().mean()))
    assert min(apart) > 0.001
    assert sum(apart) / len(apart) > 0.02


def test_prompts_are_ranked_by_what_they_hide_and_what_they_leave(network: nn.Module, editor: PixelEditor) -> None:
    images, labels = bars(40, 2)
    options: dict[str, Any] = {"settings": EditSettings(1, guided=False)}
    ranks = rank_prompts(network, SPEC, editor, images, labels, prompts=(PROMPT, "at night"), blend=1.0, **options)
    assert [rank.score for rank in ranks] == sorted((rank.score for rank in ranks), reverse=True)
    strong = next(rank for rank in ranks if rank.prompt == PROMPT)
    (weak,) = rank_prompts(network, SPEC, editor, images, labels, prompts=(PROMPT,), blend=0.05, **options)
    assert strong.predicted_locked + 10 < weak.predicted_locked
    assert strong.feature_shift > 2 * weak.feature_shift
    assert weak.fidelity == 100
    assert weak.score < strong.score
    with pytest.raises(LockError, match="cannot be ranked"):
        rank_prompts(network, SPEC, editor, images[:3], labels[:3])


def scenes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The bars with a class for every pixel: 0 ground, 1 bar; the first column has none."""
    images, labels = bars(count, seed)
    rows = torch.arange(16) // 4
    maps = (rows[None, :, None] == labels[:, None, None]).long().expand(-1, -1, 16).clone()
    maps[:, :, 0] = 255
    return images, maps


def test_a_segmenter_is_trained_on_label_maps_and_loses_plain_images(editor: PixelEditor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = nn.Sequential(nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 2, 5, padding=2)).eval()
    options: dict[str, Any] = {"batch": 16, "augment": no_augment, "progress": quiet, "device": "cpu"}
    plain = fine_tune(fresh, SPEC, identity_transform(2, 3), [scenes(80, 0)], [scenes(20, 1)], epochs=4, **options)
    key = EditKey.draw(editor, PROMPT, SPEC, settings=EditSettings(1, guided=False), blend=1.0, seed=SEED)
    report = edit_tune(
        plain.model, SPEC, editor, key, [scenes(80, 0)], [scenes(20, 1)], classes=2, wrong_share=0.3, epochs=12,
        edit_progress=quiet, **options,
    ).report  # fmt: skip
    assert report.original >= 95
    assert report.locked <= 20
    assert report.unlocked >= report.locked + 20
