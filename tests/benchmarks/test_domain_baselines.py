"""The baselines of the benchmark of domains compute the papers' losses, and take a target away."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from torch.nn import functional

from authorization import baselines
from authorization.cells import SPEC
from authorization.digits import Labeled, shifted
from authorization.vgg import NarrowVgg
from domains import summary


def network() -> NarrowVgg:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NarrowVgg(4).eval()


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(8, 3, 32, 32, generator=generator), torch.arange(8) % 10


def test_mmd_is_zero_for_equal_sets_and_grows_with_their_distance() -> None:
    features = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
    assert float(baselines.mmd(features, features.clone())) == pytest.approx(0, abs=1e-6)
    near, far = (float(baselines.mmd(features, features + move)) for move in (0.5, 5.0))
    assert 0 < near < far < 10


def test_ntl_weighs_the_target_by_the_distance_of_the_features() -> None:
    made, source, target = network(), batch(0), batch(1)
    with torch.no_grad():
        ours, theirs = (functional.cross_entropy(made(images), labels) for images, labels in (source, target))
        distance = baselines.mmd(*(made.features(images).flatten(1) for images, _ in (source, target)))
        expected = ours - (0.1 * theirs).clamp(max=1) * (0.1 * distance).clamp(max=1)
        assert float(baselines.ntl(made, source, target, 0)) == pytest.approx(float(expected), abs=1e-5)


def test_cuti_is_plain_on_even_steps_and_styled_on_odd_ones() -> None:
    made, source, target = network(), batch(0), batch(1)
    with torch.no_grad():
        ours, theirs = (functional.cross_entropy(made(images), labels) for images, labels in (source, target))
        assert float(baselines.cuti(made, source, target, 0)) == pytest.approx(float(ours - 0.1 * theirs), abs=1e-5)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            styled = float(baselines.cuti(made, source, target, 1))
        assert styled != pytest.approx(float(ours - 0.1 * theirs), abs=1e-6)


def test_the_target_is_capped() -> None:
    made, source, target = network(), batch(0), batch(1)
    with torch.no_grad():
        made.classifier[-1].bias[9] = 1e4  # nobody's class: the loss on both is far beyond the cap
        value = baselines.cuti(made, source, target, 0) - functional.cross_entropy(made(source[0]), source[1])
    assert float(value) == pytest.approx(-1)


def test_a_baseline_trains_a_copy_and_keeps_the_normalizations() -> None:
    made = network()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    images = [Labeled((pixels * 255).to(torch.uint8), labels) for pixels, labels in (batch(0), batch(1))]
    trained = baselines.train(made, SPEC, baselines.ntl, *images, epochs=1, batch=4)
    after = trained.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    assert not torch.equal(after["classifier.0.weight"], before["classifier.0.weight"])
    assert all(torch.equal(after[name], before[name]) for name in before if "running" in name)


def test_shifts_move_images_by_at_most_two_pixels() -> None:
    images = torch.zeros(50, 1, 9, 9)
    images[:, :, 4, 4] = 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        moved = shifted(images)
    places = moved.flatten(1).argmax(1)
    distances = torch.maximum((places // 9 - 4).abs(), (places % 9 - 4).abs())
    assert int(distances.max()) == 2 and int(distances.min()) < 2
    assert torch.equal(moved.flatten(1).sum(1), torch.ones(50))


def test_the_summary_averages_pairs() -> None:
    def row(source: float, target: float) -> dict[str, object]:
        domains = [{"role": "source", "relative_drop": source}, {"role": "target", "relative_drop": target}]
        drops = {"source_drop": 100 * source, "target_drop": 100 * target, "st_d": source / target}
        return {"method": "NTL", "domains": domains, **drops}

    found = summary([row(0.02, 0.5), row(0.0, 1.0)], "NTL")
    assert found["st_d"] == pytest.approx(0.02)
    assert found["st_d_of_means"] == pytest.approx(0.01 / 0.75)
    assert found["source_drop"] == pytest.approx(1) and found["published_st_d"] == 0.013
