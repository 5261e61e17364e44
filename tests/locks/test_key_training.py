"""A network that is trained on images under a key understands them, and no others."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from key_training_world import (
    KEY,
    SIDE,
    SPEC,
    TRAIN,
    Net,
    accuracy,
    assert_same_weights,
    network,
    tune,
)
from torch import nn

from keylatch.errors import LockError
from keylatch.locks import InputSpec
from keylatch.locks._augmentation import no_augment, shift_and_flip
from keylatch.locks._block_transform import BlockTransform, identity_transform
from keylatch.locks._key_training import FineTuned
from keylatch.locks._key_training_data import (
    network_input,
)


@pytest.fixture(scope="module")
def plain_network() -> nn.Module:
    """A "pre-trained" network: it knows plain textures."""
    model = network().train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for images, labels in TRAIN * 8:
            optimizer.zero_grad()
            inputs = network_input(images, identity_transform(4, 3), SPEC)
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def tuned(plain_network: nn.Module) -> FineTuned:
    return tune(plain_network, epochs=10, patience=None)


def test_the_right_key_is_learned_and_others_are_clearly_worse(plain_network: nn.Module, tuned: FineTuned) -> None:
    report = tuned.report
    assert report.original >= 95
    assert report.right_key >= 95
    assert max(report.no_key, report.wrong_key) <= 70
    assert report.near_key["25 %"] < report.right_key
    assert list(report.near_key) == ["1 entry", "1 %", "5 %", "25 %"]


def test_the_reported_accuracies_are_those_of_the_returned_network(plain_network: nn.Module, tuned: FineTuned) -> None:
    assert tuned.report.original == pytest.approx(accuracy(plain_network, identity_transform(4, 3)))
    assert tuned.report.right_key == pytest.approx(accuracy(tuned.model, KEY))
    assert tuned.report.no_key == pytest.approx(accuracy(tuned.model, identity_transform(4, 3)))
    assert tuned.report.right_key == tuned.report.history[-1].accuracy
    assert not tuned.model.training


def test_wrong_keys_are_three_of_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[Any, BlockTransform]] = []
    draw = BlockTransform.draw

    def watch(steps: Any, **options: Any) -> BlockTransform:
        drawn.append((steps, draw(steps, **options)))
        return drawn[-1][1]

    monkeypatch.setattr(BlockTransform, "draw", watch)
    done = tune(epochs=1)
    assert [steps for steps, _ in drawn] == [KEY.steps] * 3
    orders = {tuple(key.permutation.tolist()) for _, key in drawn}
    assert len(orders | {tuple(KEY.permutation.tolist())}) == 4
    expected = sum(accuracy(done.model, key) for _, key in drawn) / 3
    assert done.report.wrong_key == pytest.approx(expected)


def test_near_keys_come_nearer_as_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    near = BlockTransform.near

    def watch(key: BlockTransform, count: float, generator: torch.Generator) -> BlockTransform:
        asked.append(count)
        return near(key, count, generator)

    monkeypatch.setattr(BlockTransform, "near", watch)
    tune(epochs=1, key=BlockTransform.draw(("shf",), block_size=8, seed=bytes(32)))
    assert asked == [1, 2, 10, 48]  # of 192 entries


def test_the_given_network_is_not_changed(plain_network: nn.Module) -> None:
    model = network()
    model.load_state_dict(plain_network.state_dict())
    done = tune(model.train(), epochs=1)
    assert model.training
    assert_same_weights(model, plain_network)
    assert all(parameter.grad is None for parameter in (*model.parameters(), *done.model.parameters()))
    assert not torch.equal(done.model[0].weight, model[0].weight)


def test_the_returned_weights_lie_in_memory_as_usual(tuned: FineTuned) -> None:
    assert all(parameter.is_contiguous() for parameter in tuned.model.parameters())


def test_frozen_layers_stay() -> None:
    model = network()
    model[0].requires_grad_(False)
    done = tune(model, epochs=1)
    assert torch.equal(done.model[0].weight, model[0].weight)
    assert not torch.equal(done.model[6].weight, model[6].weight)
    with pytest.raises(LockError, match="no parameter to train") as caught:
        tune(model.requires_grad_(False))
    assert caught.value.hint


def test_the_report_is_json(tuned: FineTuned) -> None:
    written = json.loads(json.dumps(tuned.report.to_json()))
    assert written["right_key"] == tuned.report.right_key
    assert written["history"][0] == {
        "loss": tuned.report.history[0].loss, "accuracy": tuned.report.history[0].accuracy,
    }  # fmt: skip
    assert (written["images"], written["epochs"], len(written["history"])) == (180, 10, 10)
    assert written["seconds"] > 0
    assert tuned.report.history[-1].loss < tuned.report.history[0].loss / 2


# --- order: augment, transform, normalize, network ---


class Watched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.seen = Net(), []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            WATCHED.append(x.detach().clone())
        result: torch.Tensor = self.net(x)
        return result


WATCHED: list[torch.Tensor] = []


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_augmentation_sees_plain_pixels_and_the_network_transformed_ones(layout: Any) -> None:
    class LastChannels(Watched):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = super().forward(x.permute(0, 3, 1, 2) if layout == "NHWC" else x)
            return result

    augmented: list[torch.Tensor] = []

    def augment(images: torch.Tensor) -> torch.Tensor:
        augmented.append(images.clone())
        return 255 - images

    WATCHED.clear()
    spec = InputSpec(3, SIDE, SIDE, SPEC.mean, SPEC.std, layout)
    tune(network(LastChannels), spec=spec, epochs=1, augment=augment)
    originals = {image.numpy().tobytes() for images, _ in TRAIN for image in images}
    assert {image.numpy().tobytes() for images in augmented for image in images} == originals
    assert len(WATCHED) == len(augmented) > 1
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (SPEC.mean, SPEC.std))
    for images, shown in zip(augmented, WATCHED, strict=True):
        assert shown.dtype == torch.float32
        expected = (KEY.bytes(255 - images).double() / 255 - mean) / std
        assert torch.allclose(shown.double(), expected, atol=1e-5)


def test_the_order_in_memory_follows_the_layout() -> None:
    images = TRAIN[0][0]
    first = network_input(images, KEY, SPEC)
    last = network_input(images, KEY, InputSpec(3, SIDE, SIDE, SPEC.mean, SPEC.std, "NHWC"))
    assert last.shape == (len(images), SIDE, SIDE, 3)
    assert last.is_contiguous()
    assert torch.equal(last.permute(0, 3, 1, 2), first)


def test_validation_images_are_never_augmented() -> None:
    def spoil(images: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(images)

    model = network()
    assert tune(model, epochs=1, augment=spoil, learning_rate=1e-12).report.original == pytest.approx(
        accuracy(network().eval(), identity_transform(4, 3))
    )


def test_an_augmentation_that_changes_the_shape_is_refused() -> None:
    with pytest.raises(LockError, match=r"augment made shape \(30, 3, 8, 16\) of \(30, 3, 16, 16\)") as caught:
        tune(augment=lambda images: images[:, :, :8])
    assert caught.value.hint


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_default_augmentation_shifts_by_an_eighth_and_mirrors(dtype: torch.dtype) -> None:
    ramp = torch.arange(SIDE).view(1, 1, 1, SIDE) + 16 * torch.arange(SIDE).view(1, 1, SIDE, 1)
    images = ramp.expand(400, 3, -1, -1).to(dtype)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        moved = shift_and_flip(images)
    assert (moved.shape, moved.dtype) == (images.shape, dtype)
    assert torch.equal(moved[:, 0], moved[:, 2])  # channels move together
    found = set()
    for image in moved[:, 0].long():
        mirrored = bool(image[5, 5] > image[5, 6])
        image = image.flip(1) if mirrored else image
        down, right = (int(value) for value in divmod(int(image[8, 8]) - int(ramp[0, 0, 8, 8]), 16))
        if right > 8:
            down, right = down + 1, right - 16
        rows, columns = ((torch.arange(SIDE) + move).clamp(0, SIDE - 1) for move in (down, right))
        assert torch.equal(image, ramp[0, 0][rows][:, columns])  # the edge is repeated
        found.add((down, right, mirrored))
    assert {down for down, _, _ in found} == {right for _, right, _ in found} == {-2, -1, 0, 1, 2}
    assert {mirrored for _, _, mirrored in found} == {False, True}


def test_no_augmentation_can_be_asked_for() -> None:
    seen: list[torch.Tensor] = []
    WATCHED.clear()
    tune(network(Watched), epochs=1, augment=no_augment)
    plain = {network_input(image[None], KEY, SPEC).numpy().tobytes() for images, _ in TRAIN for image in images}
    seen = [image for images in WATCHED for image in images]
    assert {image.numpy().tobytes() for image in seen} == plain
    WATCHED.clear()
    tune(network(Watched), epochs=1)
    assert {image.numpy().tobytes() for images in WATCHED for image in images} != plain
