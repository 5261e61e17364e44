"""Masks take domains away, and nothing else: the three settings, several targets, both granularities."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mask_world import SPEC, domain, held_out, learn, red, trained
from torch import nn
from torch.nn import functional

from keylatch.errors import LockError
from keylatch.locks import DomainMasks, domain_lock, masked_model, measure_domains, union_of_masks
from keylatch.locks._augmentation import no_augment
from keylatch.locks._mask_pruning._learner import Learner
from keylatch.locks._mask_pruning._objective import Batch, Objective
from keylatch.locks._mask_pruning._scores import DomainScores, maskable_weights
from keylatch.locks._mask_pruning._settings import LearningSettings
from keylatch.locks._training_hints import map_layers, take_hints


@pytest.fixture(scope="module")
def one() -> DomainMasks:
    return learn(source=red(), targets={"green": domain("green", 256, 11)})


@pytest.fixture(scope="module")
def two() -> DomainMasks:
    targets = {"green": domain("green", 256, 11), "blue": domain("blue", 256, 12)}
    return learn(source=red(), targets=targets, epochs=24)


def accuracies(learned: DomainMasks, *paid: str) -> dict[str, float]:
    made = masked_model(trained(), learned.masks, paid=paid)
    found = measure_domains(trained(), made, SPEC, held_out(), source="red", targets=["green", "blue"])
    return {each.name: each.masked for each in found.domains}


def test_the_source_is_kept_and_the_target_is_lost(one: DomainMasks) -> None:
    made = masked_model(trained(), one.masks)
    found = measure_domains(trained(), made, SPEC, held_out(), source="red", targets=["green"])
    source, target, third = found.domains
    assert (source.role, target.role, third.role) == ("source", "target", "third")
    assert min(source.original, target.original, third.original) > 90
    assert source.masked > 90
    assert target.masked < 40
    assert found.st_d is not None and found.st_d < 0.1
    assert found.st_d == pytest.approx(source.relative_drop / target.relative_drop)


def test_weights_and_statistics_stay_as_they_are() -> None:
    network = copy.deepcopy(trained())
    before = copy.deepcopy(network.state_dict())
    learned = learn(model=network, source=red(64), targets={"green": domain("green", 64, 11)}, epochs=2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    left = masked_model(network, learned.masks).state_dict()
    for name, value in before.items():
        mask = learned.masks["green"].get(name, torch.zeros_like(value, dtype=torch.bool))
        assert torch.equal(left[name], torch.where(mask, torch.zeros_like(value), value))


def test_each_license_gives_the_source_and_what_it_names(two: DomainMasks) -> None:
    original, nothing = accuracies(two, "green", "blue"), accuracies(two)
    assert nothing["red"] > 90 and max(nothing["green"], nothing["blue"]) < 60
    for paid, unpaid in (("green", "blue"), ("blue", "green")):
        found = accuracies(two, paid)
        assert found["red"] > 90 and found[paid] > 85 and found[unpaid] < 60
    assert min(original.values()) > 90


def test_all_domains_paid_are_the_original_bit_by_bit(two: DomainMasks) -> None:
    opened = masked_model(trained(), two.masks, paid=["green", "blue"]).state_dict()
    assert all(torch.equal(value, opened[name]) for name, value in trained().state_dict().items())
    assert union_of_masks(two.masks, paid=["blue", "green"]) == {}


def test_a_locked_network_is_the_masked_one_and_opens_exactly(two: DomainMasks) -> None:
    locked = domain_lock(trained(), SPEC, two.masks)
    images = SPEC.from_pixels(held_out()["red"][0][0])
    with torch.no_grad():
        assert torch.allclose(locked.module(images), masked_model(trained(), two.masks)(images), atol=1e-5)
        with locked.module.opened(locked.secret):
            assert torch.equal(locked.module(images), trained()(images))
        with locked.module.opened(locked.secret.for_domains(["blue"])):
            expected = masked_model(trained(), two.masks, paid=["blue"])(images)
            assert torch.allclose(locked.module(images), expected, atol=1e-5)


def test_channel_masks_withhold_whole_channels() -> None:
    learned = learn(source=red(), targets={"green": domain("green", 256, 11)}, granularity="channel", epochs=24)
    for mask in learned.masks["green"].values():
        rows = mask.flatten(1)
        assert torch.equal(rows.any(1), rows.all(1))
    found = accuracies(learned)
    assert found["red"] > 90 and found["green"] < 75


def test_only_the_named_layers_are_masked() -> None:
    learned = learn(source=red(64), targets={"green": domain("green", 64, 11)}, layers=["hidden.weight"])
    assert set(learned.masks["green"]) == {"hidden.weight"}
    assert learned.report.parameters == trained().hidden.weight.numel()


def test_without_source_images_the_source_is_kept_too() -> None:
    network = trained(names=("red",))
    pink = domain("pink", 256, 11)[0][0]
    learned = learn(model=network, setting="SF", targets={"pink": [pink]}, epochs=24)
    domains = {"red": held_out()["red"], "pink": domain("pink", 200, 23)}
    made = masked_model(network, learned.masks)
    source, target = measure_domains(network, made, SPEC, domains, source="red", targets=["pink"]).domains
    assert min(source.original, target.original) > 90
    assert source.masked > 85 and target.masked < 70
    assert learned.report.source_images == 0 and learned.report.normalizations == 2


def test_without_any_image_masks_are_learned_for_others() -> None:
    learned = learn(setting="DF", epochs=2, batch=256)
    assert list(learned.masks) == ["others"]
    assert learned.report.domains[0].images == 0
    assert len(learned.report.history) == 2


@pytest.mark.parametrize(("given", "cap"), [({"source": red(64)}, 1.0), ({"setting": "SF"}, 0.5)])
def test_the_target_is_capped_lower_where_the_source_is_made(given: dict[str, Any], cap: float, tmp_path: Path) -> None:
    given = {"targets": {"green": domain("green", 64, 11)}, "epochs": 1, "checkpoint": tmp_path / "run.pt", **given}
    by_default = learn(**given)
    assert_same(by_default, learn(target_cap=cap, **given))  # goes on from its checkpoint: the same run
    with pytest.raises(LockError, match="objective"):
        learn(target_cap=1.5 - cap, **given)


def test_hints_pay_for_what_masks_change_in_feature_maps_of_the_source_alone() -> None:
    network = copy.deepcopy(trained())
    settings = LearningSettings(
        "SF", "element", None, Objective(), 2, 32, 0.02, torch.device("cpu"), False, 0, no_augment
    )  # fmt: skip
    originals = maskable_weights(network, None)
    scores = DomainScores(originals, ["green"], "element")
    with torch.no_grad():
        for each in scores.parameters():
            each[..., 0] = 0.0  # is withheld
    (pixels, labels), *_ = domain("red", 8, 10)
    batch = Batch((pixels, labels), {"green": domain("green", 8, 11)[0]})
    hints = take_hints(network, map_layers(network, SPEC), SPEC, weight=2.0)
    learners = [Learner(network, SPEC, scores, originals, settings, taken) for taken in (None, hints)]
    with torch.no_grad():
        plain, hinted = (float(learner._loss(batch, ["green"])) for learner in learners)
    wanted, found = (maps_of(made, pixels) for made in (network, masked_model(network, scores.masks(originals))))
    distance = functional.mse_loss(found, wanted) / wanted.var()
    assert float(distance) > 0.01
    assert hinted - plain == pytest.approx(2 * float(distance), rel=1e-4)


def maps_of(network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """What its last layer with feature maps gives."""
    with torch.no_grad():
        first = torch.relu(network.norms[0](network.first(SPEC.from_pixels(pixels))))
        return network.norms[1](network.second(first))


def test_source_free_masks_do_not_look_at_labels() -> None:
    images, labels = domain("green", 64, 11)[0]
    wrong = (labels + 1) % 4
    first = learn(setting="SF", targets={"green": [(images, labels)]}, epochs=2)
    second = learn(setting="SF", targets={"green": [(images, wrong)]}, epochs=2)
    assert_same(first, second)


def test_an_interrupted_run_ends_with_the_same_masks(tmp_path: Path) -> None:
    for setting, given in {
        "SA": {"source": red(64), "targets": {"green": domain("green", 64, 11)}},
        "SF": {"targets": {"green": domain("green", 64, 11)}},
    }.items():
        whole = learn(setting=setting, epochs=4, **given)

        def stop(state: object) -> None:
            if state.epoch == 3:  # type: ignore[attr-defined]
                raise KeyboardInterrupt

        path = tmp_path / f"{setting}.pt"
        with pytest.raises(KeyboardInterrupt):
            learn(setting=setting, epochs=4, checkpoint=path, progress=stop, **given)
        assert_same(whole, learn(setting=setting, epochs=4, checkpoint=path, **given))


def assert_same(first: DomainMasks, second: DomainMasks) -> None:
    assert first.masks.keys() == second.masks.keys()
    for name, masks in first.masks.items():
        assert masks.keys() == second.masks[name].keys()
        assert all(torch.equal(mask, second.masks[name][parameter]) for parameter, mask in masks.items())
    assert first.report.history == second.report.history


def test_learning_neither_reads_nor_moves_the_global_generator() -> None:
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    first = learn(source=red(64), targets={"green": domain("green", 64, 11)}, epochs=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(1)
    assert_same(first, learn(source=red(64), targets={"green": domain("green", 64, 11)}, epochs=2))


def test_mixed_precision_learns_masks_too() -> None:
    learned = learn(source=red(), targets={"green": domain("green", 256, 11)}, mixed_precision=True)
    assert accuracies(learned)["red"] > 90 and accuracies(learned)["green"] < 45


def test_the_report_counts_what_is_withheld_and_is_json(one: DomainMasks) -> None:
    report = json.loads(json.dumps(one.report.to_json()))
    withheld = sum(int(mask.sum()) for mask in one.masks["green"].values())
    assert report["domains"] == [
        {"name": "green", "images": 256, "withheld": withheld, "share": withheld / report["parameters"]}
    ]
    assert 0 < withheld < report["parameters"] / 10
    assert report["overlaps"][0]["first"] == "source" and report["overlaps"][0]["similarity"] < 0.2
    assert report["history"][-1]["accuracy"] > 95


def test_the_target_term_is_weighted_and_capped() -> None:
    scores = torch.tensor([[4.0, 0.0], [0.0, 30.0]])
    images = torch.zeros(1, 3, 8, 8)
    batch = Batch((images, torch.tensor([0])), {"t": (images, torch.tensor([0]))})
    source = torch.log1p(torch.exp(torch.tensor(-4.0)))
    assert Objective(0.01, 1.0)(scores, batch, ["t"]) == pytest.approx(float(source - 0.01 * 30))
    assert Objective(0.1, 1.0)(scores, batch, ["t"]) == pytest.approx(float(source - 1))
    assert Objective(0.1, 1.0)(scores * 1.0, batch, ["t"]).item() < 0
    other = Batch(batch.source, {"t": batch.targets["t"], "paid": (images, torch.tensor([1]))})
    three = torch.cat([scores, torch.tensor([[0.0, 4.0]])])
    assert Objective(0.1, 1.0)(three, other, ["t"]) == pytest.approx(float(source - 1))


def test_the_gradient_passes_the_threshold() -> None:
    weights = {"w": torch.ones(3, 2)}
    scores = DomainScores(weights, ["t"], "element")
    kept = scores.weights(weights, ["t"])["w"]
    assert torch.equal(kept, weights["w"])  # nothing is withheld at first
    (kept * torch.arange(6.0).view(3, 2)).sum().backward()
    gradient = next(iter(scores.parameters())).grad
    assert gradient is not None and torch.equal(gradient, torch.arange(6.0).view(3, 2))


@pytest.mark.gpu
def test_masks_are_learned_on_a_gpu_in_mixed_precision() -> None:
    learned = learn(source=red(), targets={"green": domain("green", 256, 11)}, device="cuda")
    assert all(mask.device.type == "cpu" for mask in learned.masks["green"].values())
    found = accuracies(learned)
    assert found["red"] > 90 and found["green"] < 45
