"""Under a key a network learns the feature maps that it had on plain images, where it is asked to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from key_training_world import KEY, SIDE, SPEC, Net, accuracy, assert_same_weights, network, tune
from torch import nn

from keylatch.errors import LockError
from keylatch.locks import hint_layers, identity_transform
from keylatch.locks._key_training_data import network_input
from keylatch.locks._training_hints import take_hints

PLAIN = identity_transform(4, 3)


class Stages(nn.Module):
    """Maps of three sizes, then tokens of one, as a hybrid network has them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.middle = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.late = nn.Sequential(nn.Conv2d(12, 16, 3, 2, 1), nn.BatchNorm2d(16))
        self.mixer = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16))
        self.head = nn.Linear(16, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps = self.late(self.middle(self.stem(image)))
        scores: torch.Tensor = self.head(self.mixer(maps.flatten(2).transpose(1, 2)).mean(1))
        return scores


def pixels(seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def test_hints_come_from_the_last_layer_of_each_size_below_the_images() -> None:
    assert hint_layers(Stages(), SPEC) == ("middle", "late", "mixer")


def test_looking_for_layers_leaves_the_network_as_it_was() -> None:
    model = Net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert hint_layers(model, SPEC)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_distance_is_none_for_the_teacher_itself_and_one_variance_for_its_mean() -> None:
    teacher, shown = network(Stages).eval(), pixels(1)
    hints = take_hints(teacher, ["late"], SPEC)
    with hints.watching(teacher):
        teacher(network_input(shown, PLAIN, SPEC))
    assert float(hints.distance(shown)) == 0
    late = teacher.middle(teacher.stem(network_input(shown, PLAIN, SPEC)))
    mean = torch.nn.Sequential(nn.Identity())
    mean.late = nn.Identity()
    with hints.watching(mean):
        mean.late(teacher.late(late).mean().expand(4, 16, SIDE // 4, SIDE // 4))
    single = float(hints.distance(shown))
    with hints.watching(mean):
        answer = teacher.late(late)
        mean.late(2 * answer.mean() - answer)  # twice as far from the answer as its mean
    assert float(hints.distance(shown)) == pytest.approx(4 * single, rel=1e-4)
    assert single > 0


def test_trained_with_hints_the_feature_maps_come_nearer_to_the_plain_ones() -> None:
    model = network(Stages)
    layers = hint_layers(model, SPEC)
    hints = take_hints(network(Stages), layers, SPEC)
    distances = []
    for chosen in ((), layers):
        tuned = tune(model, epochs=6, learning_rate=0.01, hints=chosen).model
        with hints.watching(tuned), torch.no_grad():
            tuned(network_input(pixels(2), KEY, SPEC))
            distances.append(float(hints.distance(pixels(2))))
    assert distances[1] < 0.8 * distances[0]


def test_the_given_network_is_the_teacher_and_stays_as_it_is() -> None:
    model = network(Stages)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tuned = tune(model, epochs=2, hints=hint_layers(model, SPEC))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in tuned.model.parameters())
    assert not any(module._forward_hooks for module in tuned.model.modules())
    assert tuned.report.right_key == pytest.approx(accuracy(tuned.model, KEY))


def test_an_interrupted_training_with_hints_ends_with_the_same_weights(tmp_path: Path) -> None:
    layers = hint_layers(network(), SPEC)
    whole = tune(epochs=3, hints=layers)

    def stop(progress: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(epochs=3, hints=layers, checkpoint=tmp_path / "run.pt", progress=stop)
    assert_same_weights(whole.model, tune(epochs=3, hints=layers, checkpoint=tmp_path / "run.pt").model)
    with pytest.raises(LockError, match="hints"):
        tune(epochs=3, checkpoint=tmp_path / "run.pt")


@pytest.mark.parametrize(
    ("layers", "words"), [(["middel"], "no layer middel"), (["late", "head"], "head gives no feature maps")]
)
def test_layers_that_cannot_give_hints_are_refused(layers: list[str], words: str) -> None:
    with pytest.raises(LockError, match=words):
        tune(network(Stages), hints=layers)


def test_a_network_without_maps_has_no_hint_layers() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 3))
    with pytest.raises(LockError, match="no layer of the model gives feature maps"):
        hint_layers(model, SPEC)
