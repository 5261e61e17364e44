"""Decoys that stand for what nobody listed: made-up prompts, other tints; and wrong labels that a network can learn."""

from __future__ import annotations

import pytest
import torch

from keylatch.errors import LockError
from keylatch.locks import STYLE_PROMPTS, made_up_prompts
from keylatch.locks._key_training_data import IGNORED
from keylatch.locks._model_lock._training_set import color_labels, locked_union, retinted


def pictures(count: int, seed: int) -> torch.Tensor:
    """Two colors each, the second in a place that is the picture's class."""
    generator = torch.Generator().manual_seed(seed)
    ground, ink = torch.rand(2, count, 3, 1, 1, generator=generator)
    cover = torch.zeros(count, 1, 16, 16)
    for index in range(count):
        cover[index, :, 4 * (index % 4) : 4 * (index % 4) + 4] = 1
    return (255 * (ground + cover * (ink - ground))).round().to(torch.uint8)


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_made_up_prompts_are_as_many_as_asked_all_different_and_the_same_for_a_seed() -> None:
    prompts = made_up_prompts(300)
    assert len(set(prompts)) == 300
    assert prompts[:100] == made_up_prompts(100) != made_up_prompts(100, seed=1)
    assert {len(prompt.split()) for prompt in prompts} == {3, 4}
    listed = {word for prompt in STYLE_PROMPTS for word in prompt.split()} - {"as", "a"}
    assert not listed & {word for prompt in prompts for word in prompt.split()}


def test_labels_by_color_are_learned_from_colors_and_tell_nothing_of_what_is_shown() -> None:
    images, labels = pictures(800, 0), torch.arange(800) % 4
    found = color_labels(images, labels, 4, drawn())
    assert torch.equal(found, color_labels(images.flip(2), labels.flip(0), 4, drawn()))  # neither place nor class
    assert int(torch.bincount(found, minlength=4).min()) > 0
    for label in range(4):
        assert (
            abs(float((found[labels == label] == label).float().mean()) - float((found == label).float().mean())) < 0.1
        )
    assert not torch.equal(found, color_labels(images, labels, 4, drawn(1)))


def test_a_label_map_by_color_has_one_class_and_keeps_what_has_none() -> None:
    maps = torch.zeros(20, 16, 16, dtype=torch.int64)
    maps[:, 0] = IGNORED
    found = color_labels(pictures(20, 0), maps, 3, drawn())
    assert bool((found[:, 0] == IGNORED).all())
    assert bool((found[:, 1:] == found[:, 1:2, :1]).all())


def test_a_tint_changes_each_channel_by_an_amount_of_its_own() -> None:
    plain = torch.full((50, 3, 8, 8), 100, dtype=torch.uint8)
    edited = plain + 40
    other = retinted(plain, edited, drawn()).float()
    assert bool((other == other[:, :, :1, :1]).all())
    change = other[:, :, 0, 0] - 100
    low, high = 0.3 * 40 - 25.5, 1.7 * 40 + 25.5
    assert low - 1 <= float(change.min()) < low + 15
    assert high - 15 < float(change.max()) <= high + 1
    assert float((change[:, 0] - change[:, 1]).abs().mean()) > 5


def test_the_union_has_the_wrong_labels_that_are_asked_for() -> None:
    images, labels = pictures(60, 1), torch.arange(60) % 4
    union = locked_union(images, 255 - images, labels, classes=4, wrong_share=0.5, wrong_labels="colors")
    assert union.originals is not None
    wrong = union.originals.places < 0
    again = locked_union(images.flip(2), 255 - images, labels, classes=4, wrong_share=0.5, wrong_labels="colors")
    assert again.originals is not None
    assert union.labels[wrong].bincount(minlength=4).tolist() == (
        again.labels[again.originals.places < 0].bincount(minlength=4).tolist()
    )
    with pytest.raises(LockError, match="wrong labels are 'red'"):
        locked_union(images, images, labels, classes=4, wrong_labels="red")  # type: ignore[arg-type]
