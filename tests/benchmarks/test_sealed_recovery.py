"""The attacker of sealed weights: what he starts from, what he trains, and when he stops."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from keylatch.audit import LabeledImages
from keylatch.locks import InputSpec, Locked, seal_lock
from strength.early_stopping import train_best
from strength.recovery_curve import draw_recovery
from strength.sealed_recovery import starting

SPEC = InputSpec(3, 8, 8)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 4)]
        return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def locked() -> Locked:
    return seal_lock(network(), SPEC, share=0.05, seed=bytes(32))


def images_of(labeler: nn.Module) -> LabeledImages:
    images = torch.rand(40, *SPEC.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return LabeledImages(images, labeler(images).argmax(1))


def test_the_mean_of_what_is_left_stands_in_the_withheld_places(locked: Locked) -> None:
    start, original = starting("fine-tune", network(), locked)(), network()
    for part in locked.module.withheld.parts:
        weight, mask = start.get_parameter(part.parameter).detach(), part.mask()
        assert torch.equal(weight[~mask], original.get_parameter(part.parameter)[~mask])
        assert torch.allclose(weight[mask], weight[~mask].mean())


@pytest.mark.parametrize(("attack", "all_of_them"), [("refill", False), ("fine-tune", True)])
def test_refilling_trains_withheld_weights_alone(locked: Locked, attack: str, all_of_them: bool) -> None:
    begin = starting(attack, network(), locked)
    made = train_best(begin, images_of(network()), steps=8, seed=0, moving_statistics=False)
    assert made.step > 0
    before, parts = begin(), {part.parameter: part.mask() for part in locked.module.withheld.parts}
    for name, value in made.network.named_parameters():
        moved = value != before.get_parameter(name)
        mask = parts.get(name, torch.zeros_like(moved))
        assert bool(moved[~mask].any()) == (all_of_them and bool((~mask).any()))
        assert not mask.any() or bool(moved[mask].any())


def test_training_that_makes_nothing_better_is_not_kept() -> None:
    sure = network()
    with torch.no_grad():
        sure[-1].weight.mul_(1e5)  # right on every image with a loss of zero
    made = train_best(lambda: sure, images_of(sure), steps=4, seed=0, moving_statistics=True)
    assert (made.step, made.merit[0]) == (0, 100.0)


def test_the_curve_shows_the_better_attack_on_each_share_beside_training_from_scratch() -> None:
    rows = [
        {"share": share, "labeled": labeled, "recovered": recovered, "from_scratch": scratch}
        for share, labeled, recovered, scratch in (
            (0.1, 500, 30.0, 20.0), (0.1, 100, 10.0, 12.0), (0.1, 500, 40.0, 20.0), (0.01, 500, 80.0, 20.0),
        )
    ]  # fmt: skip
    figure = draw_recovery(rows, "a network", 90.0)
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert lines["10 % withheld"] == [[100, 10], [500, 40]]
    assert lines["1 % withheld"] == [[500, 80]]
    assert lines["from scratch"] == [[100, 12], [500, 20]]
