"""What training under a key learns from: subsets, batches, randomness; and when it stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from key_training_world import (
    SPEC,
    TRAIN,
    Net,
    assert_same_weights,
    batches,
    network,
    textures,
    tune,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from keylatch.locks._key_training import TrainingProgress
from keylatch.locks._key_training_data import (
    ImageSet,
    draw_subset,
    generator_for,
    read_images,
)

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
