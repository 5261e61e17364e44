"""Permuted feature maps: the key, training under it for segmentation, and the lock."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from keylatch.errors import FormatError, LockError
from keylatch.locks import (
    ChannelKey,
    FineTuned,
    Locked,
    LockSecret,
    channel_lock,
    fine_tune,
    identity_transform,
    load_locked,
    save_locked,
)
from keylatch.locks._key_accuracy import mean_iou

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from dense_scenes import LAYERS, SPEC, scenes, segmenter

SEED = bytes(range(32))
TRAIN, VALIDATION = [scenes(200, 0)], [scenes(60, 1)]


def draw(seed: bytes = SEED) -> ChannelKey:
    return ChannelKey.draw(segmenter(), LAYERS, seed=seed)


def tune(model: nn.Module, key: Any, **options: Any) -> FineTuned:
    return fine_tune(
        model, SPEC, key, TRAIN, VALIDATION, **{"epochs": 5, "batch": 16, "progress": lambda _: None, **options}
    )


@pytest.fixture(scope="module")
def tuned() -> FineTuned:
    return tune(segmenter(), draw())


@pytest.fixture(scope="module")
def locked(tuned: FineTuned) -> Locked:
    return channel_lock(tuned.model, SPEC, draw())


def test_a_seed_gives_the_key_and_another_seed_another() -> None:
    first, again, other = draw(), draw(), draw(bytes(32))
    for mine, same, foreign in zip(first.permutations, again.permutations, other.permutations, strict=True):
        assert torch.equal(mine, same)
        assert not torch.equal(mine, foreign)
        assert torch.equal(mine.sort().values, torch.arange(32))
    assert not torch.equal(*first.permutations)
    assert first.log2_key_space == pytest.approx(2 * math.log2(math.factorial(32)))


def test_the_key_permutes_what_its_layers_read_and_goes_again() -> None:
    model, key = segmenter(), draw()
    image = torch.rand(2, 3, 32, 32)
    features = model.stem(image)
    hidden = torch.relu(model.norm(model.middle(features[:, key.permutations[0]])))
    expected = model.head(torch.relu(model.late(hidden[:, key.permutations[1]])))
    plain = model(image)
    with key.applied(model):
        torch.testing.assert_close(model(image), expected)
    torch.testing.assert_close(model(image), plain)


def test_the_right_key_is_learned_and_others_are_clearly_worse(tuned: FineTuned) -> None:
    report = tuned.report
    assert report.right_key > 70
    assert max(report.wrong_key, report.no_key) < report.right_key - 20
    assert list(report.near_key) == ["1 entry", "1 %", "5 %", "25 %"]
    assert report.original < 50


def test_the_baseline_is_the_same_training_without_a_key() -> None:
    report = tune(segmenter(), identity_transform(4, 3), epochs=2).report
    assert report.right_key == report.no_key == report.wrong_key
    assert report.near_key == {}


def test_mean_iou_is_the_mean_over_classes_without_ignored_pixels() -> None:
    labels = torch.tensor([[[0, 0, 1, 255]]])
    assert mean_iou(torch.tensor([[[0, 1, 1, 1]]]), labels) == pytest.approx(50.0)
    assert mean_iou(torch.tensor([[[0, 0, 1, 2]]]), labels) == pytest.approx(100.0)


def test_opened_it_is_the_trained_network_under_its_key(tuned: FineTuned, locked: Locked) -> None:
    image = torch.randn(3, 3, 32, 32)
    with torch.no_grad(), draw().applied(tuned.model):
        expected = tuned.model(image)
    with torch.no_grad(), locked.module.opened(locked.secret):
        torch.testing.assert_close(locked.module(image), expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(locked.module(image), tuned.model(image), rtol=1e-5, atol=1e-5)


def test_another_secret_does_not_fit(locked: Locked) -> None:
    with pytest.raises(LockError, match="does not fit this lock"):
        locked.module.secret_values(LockSecret.of_channels(ChannelKey(("middle",), draw().permutations[:1])))


def test_the_locked_module_and_its_secret_are_read_back(locked: Locked, tmp_path: Path) -> None:
    save_locked(tmp_path / "net.pt2", locked.module, locked.report)
    module, report = load_locked(tmp_path / "net.pt2")
    secret = LockSecret.from_arrays(locked.secret.to_arrays())
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), module.opened(secret), locked.module.opened(locked.secret):
        torch.testing.assert_close(module(image), locked.module(image))
    assert report == locked.report
    assert module.describe() == locked.module.describe()
    stored = (tmp_path / "net.pt2").read_bytes()
    assert all(key.numpy().tobytes() not in stored for key in draw().permutations)


def test_an_opened_module_is_not_saved(locked: Locked, tmp_path: Path) -> None:
    with locked.module.opened(locked.secret), pytest.raises(LockError, match="opened"):
        save_locked(tmp_path / "net.pt2", locked.module, locked.report)


def test_a_key_shows_and_leaks_nothing() -> None:
    assert repr(draw()) == "ChannelKey(2 layers, 235.3 bits)"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(draw())


@pytest.mark.parametrize("broken", ["channels.0", "channels.layers"])
def test_a_vault_without_a_part_is_refused(broken: str) -> None:
    arrays = dict(draw().to_arrays())
    del arrays[broken]
    with pytest.raises(FormatError, match="no channel key"):
        ChannelKey.from_arrays(arrays)


def test_what_is_no_permutation_is_refused() -> None:
    arrays = dict(draw().to_arrays())
    arrays["channels.1"] = arrays["channels.1"] * 0
    with pytest.raises(FormatError, match="no channel key"):
        ChannelKey.from_arrays(arrays)


def test_a_near_key_has_a_share_of_its_entries_wrong() -> None:
    generator = torch.Generator().manual_seed(0)
    for share, wrong in ((0.0, 2), (0.25, 8), (1.0, 32)):
        near = draw().near(share, generator)
        for mine, others in zip(draw().permutations, near.permutations, strict=True):
            assert int((mine != others).sum()) == wrong


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([], "expected names of one or more"),
        (["middle", "middle"], "each once"),
        (["nowhere"], "no layer nowhere"),
        (["norm"], "is a BatchNorm2d, expected an ungrouped Conv2d"),
    ],
)
def test_layers_that_cannot_be_keyed_are_refused(layers: list[str], words: str) -> None:
    with pytest.raises(LockError, match=words):
        ChannelKey.draw(segmenter(), layers)


def test_a_key_of_another_network_is_refused() -> None:
    other = segmenter()
    other.middle = nn.Conv2d(16, 32, 3, padding=1)
    with pytest.raises(LockError, match="other channels than the key"), draw().applied(other):
        pass


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 3, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.again(self.again(self.stem(image))))


def test_a_layer_that_runs_twice_cannot_be_locked() -> None:
    network = Twice().eval()
    with pytest.raises(LockError, match="runs layer again 2 times"):
        channel_lock(network, SPEC, ChannelKey.draw(network, ["again"], seed=SEED))


def test_labels_of_two_kinds_are_refused() -> None:
    images, labels = VALIDATION[0]
    with pytest.raises(LockError, match="per image"):
        fine_tune(segmenter(), SPEC, draw(), TRAIN, [(images, labels[:, 0, 0] * 0)], epochs=1)


def test_an_interrupted_training_under_a_channel_key_goes_on(tmp_path: Path) -> None:
    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        tune(segmenter(), draw(), epochs=2, checkpoint=path, progress=stop)
    resumed = tune(segmenter(), draw(), epochs=2, checkpoint=path).model.state_dict()
    whole = tune(segmenter(), draw(), epochs=2).model.state_dict()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    with pytest.raises(LockError, match="other key"):
        tune(segmenter(), draw(bytes(32)), epochs=2, checkpoint=path)


def test_keys_go_with_copies_of_a_model() -> None:
    model = segmenter()
    with draw().applied(model):
        pass
    assert not copy.deepcopy(model).middle._forward_pre_hooks
