"""A network that is trained on images under a key understands them, and no others; an interruption costs nothing."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from keylatch.errors import LockError, OutputError
from keylatch.locks import InputSpec, _key_training
from keylatch.locks._block_transform import BlockTransform, identity_transform
from keylatch.locks._key_training import FineTuned, TrainingProgress, fine_tune
from keylatch.locks._key_training_data import (
    ImageSet,
    draw_subset,
    generator_for,
    network_input,
    no_augment,
    read_images,
    shift_and_flip,
)
from keylatch.locks._training_checkpoint import TrainingState

SIDE = 16
SPEC = InputSpec(3, SIDE, SIDE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
KEY = BlockTransform.draw(("shf", "np"), block_size=4, seed=bytes(range(32)))

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def textures(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, 3, 16, 16) uint8 and (count,) int64: red rows, green columns, blue squares, with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    phases = torch.randint(0, 4, (count, 1), generator=generator)
    waves = ((torch.arange(SIDE) + phases) % 4 < 2).float()
    rows = waves[:, :, None].expand(-1, -1, SIDE)
    patterns = torch.stack([rows, rows.transpose(1, 2), (rows + rows.transpose(1, 2)) % 2], 1)
    images = 60 + 50 * torch.rand(count, 3, SIDE, SIDE, generator=generator)
    images[torch.arange(count), labels] += 120 * patterns[torch.arange(count), labels]
    return images.to(torch.uint8), labels


def batches(images: torch.Tensor, labels: torch.Tensor, size: int = 32) -> Batches:
    return list(zip(torch.split(images, size), torch.split(labels, size), strict=True))


TRAIN, VALIDATION = batches(*textures(180, 1)), batches(*textures(90, 2))


class Net(nn.Sequential):
    """Everything that makes training depend on more than its weights: batch statistics and dropout."""

    def __init__(self, classes: int = 3, channels: int = 3) -> None:
        super().__init__(
            nn.Conv2d(channels, 24, 4, 4, bias=False), nn.BatchNorm2d(24), nn.ReLU(), nn.Dropout(0.1),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, classes),
        )  # fmt: skip


def network(build: Callable[[], nn.Module] = Net) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()


def quiet(progress: TrainingProgress) -> None:
    """No bar in a test."""


def tune(model: nn.Module | None = None, **options: Any) -> FineTuned:
    arguments = {"spec": SPEC, "key": KEY, "train": TRAIN, "validation": VALIDATION, **options}
    given = [arguments.pop(name) for name in ("spec", "key", "train", "validation")]
    settings = {"epochs": 3, "batch": 32, "device": "cpu", "progress": quiet, **arguments}
    return fine_tune(model or network(), *given, **settings)


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


def accuracy(model: nn.Module, transform: BlockTransform) -> float:
    """Written out here, not taken from the library."""
    images, labels = textures(90, 2)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (SPEC.mean, SPEC.std))
    with torch.no_grad():
        found = model((transform.values(images) - mean) / std).argmax(1)
    return 100 * float((found == labels).double().mean())


def assert_same_weights(first: nn.Module, second: nn.Module) -> None:
    left, right = first.state_dict(), second.state_dict()
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


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


# --- data ---


def labeled(*sizes: int) -> ImageSet:
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    return ImageSet(torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8), labels, b"")


@pytest.mark.parametrize(
    ("sizes", "share", "expected"),
    [((100, 100, 100), 0.1, [10, 10, 10]), ((90, 60, 30), 0.5, [45, 30, 15]), ((100, 50, 7), 0.25, [25, 12, 2]),
     ((10, 10, 10), 0.25, [3, 3, 2]), ((5, 3), 1.0, [5, 3])],
)  # fmt: skip
def test_a_subset_is_stratified_and_of_the_asked_size(sizes: Any, share: float, expected: list[int]) -> None:
    data = labeled(*sizes)
    data.images[:, 0, 0, 0] = torch.arange(len(data)) % 256
    subset = draw_subset(data, share, generator_for(0, "subset"))
    assert len(subset) == len(subset.images) == round(share * len(data)) == sum(expected)
    assert subset.labels.bincount().tolist() == expected
    assert len({(int(i), int(k)) for i, k in zip(subset.images.view(-1), subset.labels, strict=True)}) == sum(expected)


def test_another_seed_draws_another_subset() -> None:
    data = labeled(100, 100)
    data.images[:, 0, 0, 0] = torch.arange(200)
    draws = [draw_subset(data, 0.1, generator_for(seed, "subset")).images.view(-1).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_training_uses_the_subset_alone() -> None:
    seen: set[bytes] = set()

    def watch(images: torch.Tensor) -> torch.Tensor:
        seen.update(image.numpy().tobytes() for image in images)
        return images

    assert tune(subset=0.2, augment=watch).report.images == 36
    assert len(seen) == 36


def test_the_order_of_the_loader_does_not_matter(tmp_path: Path) -> None:
    images, labels = textures(180, 1)
    data = TensorDataset(images, labels)
    loaders = [
        DataLoader(data, batch_size=size, shuffle=True, generator=torch.Generator().manual_seed(seed))
        for seed, size in ((1, 32), (2, 50))
    ]
    first, second = (tune(train=loader, epochs=2, subset=0.5) for loader in loaders)
    assert_same_weights(first.model, second.model)


def test_images_and_their_labels_stay_together() -> None:
    data = read_images(iter(TRAIN), SPEC, name="training")
    read = zip(data.images, data.labels, strict=True)
    given = [pair for batch in TRAIN for pair in zip(*batch, strict=True)]
    pairs = {(image.numpy().tobytes(), int(label)) for image, label in given}
    assert {(image.numpy().tobytes(), int(label)) for image, label in read} == pairs
    assert data.images.dtype == torch.uint8


def test_every_image_is_seen_once_an_epoch_and_no_batch_is_a_single_image() -> None:
    sizes: list[int] = []
    seen: list[bytes] = []

    def watch(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        seen.extend(image.numpy().tobytes() for image in images)
        return images

    images, labels = textures(65, 1)  # 32 + 32 + 1
    tune(train=batches(images, labels), epochs=1, augment=watch)
    assert sorted(seen) == sorted(image.numpy().tobytes() for image in images)
    assert min(sizes) >= 21
    assert max(sizes) <= 32


def test_float_images_are_taken_as_they_are() -> None:
    floats = [(images / 255, labels) for images, labels in TRAIN]
    assert tune(train=floats, epochs=6, learning_rate=0.1).report.right_key >= 90


# --- randomness ---


def test_the_same_seed_gives_the_same_network_and_torch_generators_are_put_back() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = tune(epochs=2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert_same_weights(first.model, tune(epochs=2).model)
    other = tune(epochs=2, seed=1)
    assert not torch.equal(first.model[0].weight, other.model[0].weight)


def test_dropout_and_augmentation_differ_between_epochs() -> None:
    firsts: list[torch.Tensor] = []

    def watch(images: torch.Tensor) -> torch.Tensor:
        firsts.append(torch.rand(4))
        return images

    tune(epochs=3, augment=watch)
    assert len({tuple(values.tolist()) for values in firsts}) == len(firsts)


def test_every_epoch_has_its_own_batches() -> None:
    orders: list[bytes] = []

    def watch(images: torch.Tensor) -> torch.Tensor:
        orders.append(images.numpy().tobytes())
        return images

    tune(epochs=2, augment=watch)
    assert len(set(orders)) == len(orders) == 12


def test_the_optimizer_is_sgd_with_nesterov_momentum_and_weight_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[dict[str, Any]] = []
    step = torch.optim.SGD.step

    def watch(optimizer: torch.optim.SGD, *arguments: Any, **options: Any) -> Any:
        groups.extend(optimizer.param_groups)
        return step(optimizer, *arguments, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", watch)
    tune(epochs=1)
    expected = {"momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}
    assert all({name: group[name] for name in expected} == expected for group in groups)
    assert groups


def test_the_learning_rate_warms_up_and_falls_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.SGD.step

    def watch(optimizer: torch.optim.SGD, *arguments: Any, **options: Any) -> Any:
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *arguments, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", watch)
    tune(epochs=5, learning_rate=0.2)
    assert len(rates) == 30
    assert rates[:3] == pytest.approx([0.2 / 3, 0.4 / 3, 0.2])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[16] == pytest.approx(0.1, abs=0.01)
    assert 0 < rates[-1] < 0.002


# --- early stop ---


def test_early_stop_gives_back_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a learning rate far too large, so that the accuracy goes up and down."""
    states: list[dict[str, torch.Tensor]] = []
    module: list[nn.Module] = []

    class Exposed(Net):
        def __deepcopy__(self, memo: Any) -> Exposed:
            copied = network(Exposed)
            module.append(copied)
            return copied  # type: ignore[return-value]

    def keep(progress: TrainingProgress) -> None:
        states.append({name: value.clone() for name, value in module[-1].state_dict().items()})

    done = tune(network(Exposed), epochs=60, patience=3, learning_rate=1.0, progress=keep)
    accuracies = [epoch.accuracy for epoch in done.report.history]
    best = accuracies.index(max(accuracies))
    assert done.report.epochs == len(accuracies) == best + 1 + 3 < 60
    assert done.report.right_key == accuracies[best]
    for name, value in done.model.state_dict().items():
        assert torch.equal(value, states[best][name]), name
    assert not torch.equal(states[best]["0.weight"], states[-1]["0.weight"])


def test_without_patience_the_last_epoch_counts() -> None:
    done = tune(epochs=6, learning_rate=2.0)
    assert done.report.epochs == 6
    assert done.report.right_key == done.report.history[-1].accuracy


# --- checkpoints ---


class Interrupted(Exception):
    """A power cut."""


def interrupt_after(epoch: int) -> Callable[[TrainingProgress], None]:
    def progress(state: TrainingProgress) -> None:
        if state.epoch == epoch:
            raise Interrupted

    return progress


@pytest.mark.parametrize(
    "options", [{}, {"patience": 2, "learning_rate": 1.0, "epochs": 30}, {"mixed_precision": True}]
)
def test_an_interrupted_training_goes_on_and_ends_with_the_same_weights(tmp_path: Path, options: Any) -> None:
    settings = {"epochs": 4, **options}
    whole = tune(**settings)
    path, epochs = tmp_path / "run.pt", []
    with pytest.raises(Interrupted):
        tune(**settings, checkpoint=path, progress=interrupt_after(2))
    resumed = tune(**settings, checkpoint=str(path), progress=lambda state: epochs.append(state.epoch))
    assert epochs == list(range(3, whole.report.epochs + 1))
    assert epochs
    assert_same_weights(whole.model, resumed.model)
    for name in ("original", "right_key", "no_key", "wrong_key", "near_key", "images", "epochs", "history"):
        assert getattr(whole.report, name) == getattr(resumed.report, name), name


def test_a_training_that_was_done_is_not_done_again(tmp_path: Path) -> None:
    first = tune(checkpoint=tmp_path / "run.pt")

    def never(progress: TrainingProgress) -> None:
        raise AssertionError("trained again")

    again = tune(checkpoint=tmp_path / "run.pt", progress=never)
    assert_same_weights(first.model, again.model)
    assert first.report == again.report


def test_an_interruption_within_an_epoch_costs_only_that_epoch(tmp_path: Path) -> None:
    calls = 0

    def augment(images: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise Interrupted
        return no_augment(images)

    with pytest.raises(Interrupted):
        tune(augment=augment, checkpoint=tmp_path / "run.pt")
    resumed = tune(augment=augment, checkpoint=tmp_path / "run.pt")
    assert calls == 9 + 2 * 6
    assert_same_weights(resumed.model, tune(augment=no_augment).model)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"epochs": 4}, "epochs 3, expected 4"), ({"batch": 16}, "batch 32, expected 16"),
     ({"learning_rate": 0.1}, "learning_rate 0.05, expected 0.1"), ({"seed": 1}, "seed 0, expected 1"),
     ({"subset": 0.5}, "subset 1.0, expected 0.5"), ({"patience": 1}, "patience None, expected 1"),
     ({"augment": no_augment}, "augment shift_and_flip, expected no_augment"),
     ({"mixed_precision": True}, "precision torch.float32, expected torch.bfloat16"),
     ({"key": BlockTransform.draw(("shf", "np"), block_size=4, seed=bytes(32))}, "run: other key$"),
     ({"key": BlockTransform.draw(("shf",), block_size=4, seed=bytes(range(32)))}, r"shf\+np, expected shf"),
     ({"key": BlockTransform.draw(("shf", "np"), block_size=8, seed=bytes(32))}, "block_size 4, expected 8"),
     ({"train": TRAIN[:-1]}, "training images 180, expected 160"),
     ({"validation": VALIDATION[:-1]}, "validation images 90, expected 64"),
     ({"train": batches(*textures(180, 3))}, "run: other pixels or labels, other key$"),
     ({"validation": batches(*textures(90, 3))}, "run: other pixels or labels$"),
     ({"spec": InputSpec(3, SIDE, SIDE)}, "spec "),
     ({"model": network(lambda: Net(classes=4))}, "run: other model shapes, other model weights$"),
     ({"model": network(Net).apply(lambda m: nn.init.zeros_(m.weight) if isinstance(m, nn.Linear) else None)},
      "run: other model weights$")],
)  # fmt: skip
def test_a_checkpoint_of_another_run_is_refused(
    checkpoint_bytes: bytes, tmp_path: Path, change: Any, message: str
) -> None:
    path = tmp_path / "run.pt"
    path.write_bytes(checkpoint_bytes)
    with pytest.raises(LockError, match=r"^checkpoint .*run\.pt is of another run: ") as caught:
        tune(**change, checkpoint=path)
    assert re.search(message, caught.value.message)
    assert caught.value.hint
    assert path.read_bytes() == checkpoint_bytes


@pytest.fixture(scope="module")
def checkpoint_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("run") / "run.pt"
    with pytest.raises(Interrupted):
        tune(checkpoint=path, progress=interrupt_after(2))
    return path.read_bytes()


def test_a_checkpoint_holds_no_key(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    key = BlockTransform.draw(("shf", "np", "ffx"), block_size=4, seed=bytes(range(32)))
    tune(key=key, checkpoint=path, epochs=1, patience=1)
    data = path.read_bytes()
    secrets = (key.permutation, key.negated, key.encrypted, key.table, key.table[key.table > 255])
    for secret in secrets:
        for dtype in (np.uint8, np.int8, np.int16, np.int32, np.int64, np.float32):
            assert secret.numpy().astype(dtype).tobytes()[:32] not in data
        assert np.packbits(secret.numpy() != 0).tobytes()[:32] not in data or len(secret) > 48
        assert ", ".join(str(value) for value in secret.tolist()[:8]).encode() not in data
    content = torch.load(path, weights_only=True)
    assert set(content["state"]) == {"network", "optimizer", "scaler", "history", "best", "seconds"}
    for value in content["run"].values():  # nothing that could hold a key as a list of numbers
        assert value is None or isinstance(value, (int, float, str, bytes))
        assert not isinstance(value, bytes) or len(value) == 32


def test_a_checkpoint_holds_no_digest_that_the_images_are_not_needed_for(checkpoint_bytes: bytes) -> None:
    """A key of few bits would be found by trying; so the salt, the images' digest, must not stand in the file."""
    digest = read_images(TRAIN, SPEC, name="training").digest
    assert digest not in checkpoint_bytes
    assert digest.hex().encode() not in checkpoint_bytes


def test_a_checkpoint_is_for_its_owner_only_and_leaves_no_other_file(tmp_path: Path) -> None:
    tune(checkpoint=tmp_path / "run.pt", epochs=2)
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]
    assert (tmp_path / "run.pt").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    checkpoint_bytes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "run.pt"
    path.write_bytes(checkpoint_bytes)

    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(call, refuse)
    with pytest.raises(OutputError, match=r"run\.pt cannot be written: No space left on device") as caught:
        tune(checkpoint=path)
    assert caught.value.hint
    assert path.read_bytes() == checkpoint_bytes
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_disk_before_the_name_points_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: order.append("fsync") or fsync(fd))
    monkeypatch.setattr(Path, "replace", lambda a, b: order.append("replace") or replace(a, b))
    tune(checkpoint=tmp_path / "run.pt", epochs=1)
    assert order == ["fsync", "replace", "fsync"]


def corrupt(data: bytes) -> Iterator[bytes]:
    yield b""
    yield b"no checkpoint"
    yield data[: len(data) // 2]


def test_what_is_no_checkpoint_is_refused(checkpoint_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    for data in corrupt(checkpoint_bytes):
        path.write_bytes(data)
        with pytest.raises(LockError, match=r"run\.pt is no training checkpoint") as caught:
            tune(checkpoint=path)
        assert caught.value.hint
    for content in ({"format": "other"}, [1], {"format": "keylatch training/1", "run": {}}):
        torch.save(content, path)
        with pytest.raises(LockError, match=r"run\.pt is no training checkpoint"):
            tune(checkpoint=path)
    saved = {"format": "keylatch training/1", "run": torch_run(checkpoint_bytes, path), "state": {}}
    torch.save(saved, path)
    with pytest.raises(LockError, match=r"run\.pt is no training checkpoint"):
        tune(checkpoint=path)


def torch_run(data: bytes, path: Path) -> Any:
    path.write_bytes(data)
    return torch.load(path, weights_only=True)["run"]


class Payload:
    def __reduce__(self) -> Any:
        return (print, ("code from a checkpoint",))


def test_a_checkpoint_runs_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"format": "keylatch training/1", "run": Payload(), "state": {}}, tmp_path / "run.pt")
    with pytest.raises(LockError, match="is no training checkpoint"):
        tune(checkpoint=tmp_path / "run.pt")
    assert capsys.readouterr().out == ""


# --- progress and precision ---


def test_progress_is_told_after_every_epoch() -> None:
    told: list[TrainingProgress] = []
    report = tune(progress=told.append).report
    assert [state.epoch for state in told] == [1, 2, 3]
    assert {state.epochs for state in told} == {3}
    assert [(state.loss, state.accuracy) for state in told] == [(e.loss, e.accuracy) for e in report.history]
    assert 0 < told[0].seconds < told[1].seconds < told[2].seconds == report.seconds


def test_a_line_for_each_epoch_goes_to_a_terminal_and_nothing_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(progress=None)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    tune(progress=None)
    out, err = capsys.readouterr()
    assert out == ""
    assert [f"epoch {epoch}/3: loss " in err for epoch in (1, 2, 3)] == [True] * 3


@pytest.mark.parametrize("mixed", [None, False, True])
def test_mixed_precision_is_off_on_a_cpu_unless_asked_for(mixed: bool | None) -> None:
    dtypes: set[torch.dtype] = set()

    class Typed(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = super().forward(x)
            dtypes.add(result.dtype) if self.training else None
            return result

    done = tune(network(Typed), mixed_precision=mixed, epochs=1)
    assert dtypes == {torch.bfloat16 if mixed else torch.float32}
    assert {value.dtype for value in done.model.parameters()} == {torch.float32}


def test_float16_trains_with_a_scaled_loss_and_the_scale_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU without bfloat16 does, on a CPU."""
    monkeypatch.setattr(_key_training, "_precision", lambda mixed, device: torch.float16)
    assert tune(epochs=10, checkpoint=tmp_path / "run.pt").report.right_key >= 80
    assert torch.load(tmp_path / "run.pt", weights_only=True)["state"]["scaler"]["scale"] > 1
    net = Net()
    first, second = (
        TrainingState(net, torch.optim.SGD(net.parameters()), torch.amp.GradScaler("cpu", init_scale=scale))
        for scale in (8.0, 2.0)
    )
    second.restore(first.to_saved())
    assert second.scaler.get_scale() == 8.0


@pytest.mark.gpu
def test_training_on_a_gpu_learns_the_key_and_resumes(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    before = torch.cuda.get_rng_state()
    with pytest.raises(Interrupted):
        tune(epochs=10, device=None, checkpoint=tmp_path / "run.pt", progress=interrupt_after(4))
    done = tune(epochs=10, device="cuda", checkpoint=tmp_path / "run.pt")
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert {value.device.type for value in done.model.state_dict().values()} == {"cpu"}
    assert done.report.right_key >= 95
    assert done.report.right_key == pytest.approx(accuracy(done.model, KEY), abs=3)
    assert done.report.no_key <= 70


# --- errors ---


class Returning(Net):
    """A network whose output is something else."""

    def __init__(self, change: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: torch.Tensor) -> Any:
        return self.change(super().forward(x))


def returning(change: Callable[[torch.Tensor], Any]) -> nn.Module:
    return network(lambda: Returning(change))


def with_images(change: Callable[[torch.Tensor], torch.Tensor]) -> Batches:
    return [(change(images), labels) for images, labels in TRAIN]


def with_labels(change: Callable[[torch.Tensor], torch.Tensor]) -> Batches:
    return [(images, change(labels)) for images, labels in TRAIN]


NOT_A_NUMBER = with_images(lambda images: images.float() * math.nan)
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "no epochs": ({"epochs": 0}, "epochs is 0, expected 1 or more"),
    "batch of one": ({"batch": 1}, "batch is 1, expected 2 or more"),
    "no patience": ({"patience": 0}, "patience is 0, expected 1 or more"),
    "negative seed": ({"seed": -1}, "seed is -1, expected 0 or more"),
    "no learning rate": ({"learning_rate": 0.0}, "learning_rate is 0.0, expected more than 0"),
    "learning rate of nan": ({"learning_rate": math.nan}, "learning_rate is nan"),
    "subset of nothing": ({"subset": 0.0}, r"subset is 0.0, expected a share in \(0, 1\]"),
    "subset of more than all": ({"subset": 1.01}, "subset is 1.01"),
    "subset of nan": ({"subset": math.nan}, "subset is nan"),
    "subset too small": ({"subset": 0.01}, "a subset of 0.01 leaves class 2 without image"),
    "raw bytes": ({"spec": InputSpec(3, SIDE, SIDE, dtype="uint8")}, "takes uint8 images, .* needs float32"),
    "blocks that do not fit": (
        {"key": BlockTransform.draw(("shf",), block_size=5)}, "16 x 16 is not divisible into blocks of 5 x 5"),
    "key of other channels": (
        {"key": BlockTransform.draw(("shf",), block_size=4, channels=1)}, "images are RGB"),
    "grayscale": ({"train": with_images(lambda x: x[:, :1])}, r"training .* \(32, 1, 16, 16\), expected \(N, 3, 16,"),
    "other size": ({"validation": with_images(lambda x: x[:, :, :8])}, r"validation .* shape \(32, 3, 8, 16\)"),
    "channels last": ({"train": with_images(lambda x: x.permute(0, 2, 3, 1))}, r"shape \(32, 16, 16, 3\)"),
    "no batch axis": ({"train": [(TRAIN[0][0][0], TRAIN[0][1][:1])]}, r"shape \(3, 16, 16\)"),
    "whole numbers": ({"train": with_images(lambda x: x.int())}, "are torch.int32, expected uint8 or float"),
    "normalized": ({"train": with_images(lambda x: x / 255 * 4 - 2)}, r"reach from -1\..* to .*, expected \[0, 1\]"),
    "bytes as floats": ({"validation": with_images(torch.Tensor.float)}, r"validation loader reach from .* to 2"),
    "nan": ({"train": NOT_A_NUMBER}, "reach from nan to nan"),
    "two dtypes": ({"train": [TRAIN[0], (TRAIN[1][0] / 255, TRAIN[1][1])]}, "mixes uint8 and float images"),
    "no images": ({"train": []}, "the training loader gave no images"),
    "empty batches": ({"validation": [(TRAIN[0][0][:0], TRAIN[0][1][:0])]}, "the validation loader gave no images"),
    "one class": ({"train": with_labels(torch.zeros_like)}, "all training images are of class 0, expected two"),
    "labels as floats": ({"train": with_labels(torch.Tensor.float)}, "labels .* are torch.float32 of shape"),
    "one-hot labels": ({"train": with_labels(nn.functional.one_hot)}, r"int64 of shape \(32, 3\), expected int64"),
    "too few labels": ({"train": with_labels(lambda x: x[1:])}, r"of shape \(31,\), expected int64 \(32,\)"),
    "batches of dictionaries": ({"train": [{"image": 1}]}, r"training loader is a dict, expected a pair of tensors"),
    "batches of three": ({"train": [(*TRAIN[0], TRAIN[0][1])]}, "is a tuple, expected a pair"),
    "labels beyond the outputs": (
        {"train": with_labels(lambda x: x + 1)}, "training labels reach from 1 to 3, the model has 3 outputs"),
    "negative labels": ({"train": with_labels(lambda x: x - 1)}, "reach from -1 to 1, the model has 3 outputs"),
    "validation labels beyond the outputs": (
        {"validation": with_labels(lambda x: x + 1)}, "validation labels reach from 1 to 3"),
    "no tensor": ({"model": returning(lambda y: {"logits": y})}, r"a dict for 2 images, expected logits \(2, classes"),
    "a map": ({"model": returning(lambda y: y[:, :, None])}, r"returns shape \(2, 3, 1\) for 2 images"),
    "one output for all": ({"model": returning(lambda y: y[:1])}, r"returns shape \(1, 3\) for 2 images"),
    "diverged": ({"learning_rate": 1e30}, r"the loss is (nan|inf) in epoch 1, expected a number"),
    "unknown device": ({"device": "abacus"}, "device abacus cannot be used"),
    "folder missing": ({"checkpoint": "missing/run.pt"}, "checkpoint missing/run.pt has no folder to stand in"),
    "checkpoint is a folder": ({"checkpoint": "."}, r"checkpoint \. is a folder, expected a file"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_trained_says_why_and_what_to_do(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options, message = CASES[case]
    with pytest.raises(LockError, match=message) as caught:
        tune(**options)
    assert caught.value.hint


def test_a_missing_gpu_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(LockError, match="device cuda cannot be used"):
        tune(device="cuda")


def test_the_smallest_subset_of_the_hint_is_taken() -> None:
    with pytest.raises(LockError) as caught:
        tune(subset=0.01)
    assert caught.value.hint == "take at least subset=0.017"
    assert tune(subset=0.017, epochs=1).report.images == 3


def test_a_loss_that_is_no_number_leaves_the_checkpoint_of_the_epoch_before(tmp_path: Path) -> None:
    class Late(Net):
        steps = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Late.steps += self.training
            result: torch.Tensor = super().forward(x)
            return result * (math.nan if Late.steps > 6 else 1)

    with pytest.raises(LockError, match="the loss is nan in epoch 2, expected a number") as caught:
        tune(network(Late), checkpoint=tmp_path / "run.pt")
    assert caught.value.hint == "take a smaller learning_rate, such as 0.005"
    assert len(torch.load(tmp_path / "run.pt", weights_only=True)["state"]["history"]) == 1
