"""Baselines are as good as the attacks they are compared with, and know nothing of the locked weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from audit_world import Shipped
from torch import nn

import networks
from keylatch.audit import (
    AuditImages,
    Clock,
    Given,
    LabeledImages,
    Resources,
    Scene,
    Variant,
    _baselines,
    load_plain,
    split_images,
)
from keylatch.audit._baselines import FromScratch, PublicBase
from keylatch.audit._draw import draw_case, seeded
from keylatch.audit._linear_layers import linear_layers
from keylatch.audit._public_base import with_classes
from keylatch.audit._scratch import fresh_network
from keylatch.audit._training import FINE_TUNE_STEPS, accuracy
from keylatch.audit.onnx_network import OnnxNetwork


@pytest.fixture(scope="module")
def images() -> AuditImages:
    digits = networks.trained_digits()
    return split_images(LabeledImages(digits.images, digits.labels), 10)


@pytest.fixture(scope="module")
def scene(shipped: Shipped, images: AuditImages) -> Scene:
    base = load_plain(shipped.folder / "plain", shipped.target.spec)
    return Scene(shipped.target, images, base=base, original=base)


def fresh(shipped: Shipped, images: AuditImages, seed: int = 0) -> OnnxNetwork:
    return fresh_network(shipped.target, images.attacker.images, seeded(seed, "attack"))


def test_fresh_weights_do_not_depend_on_the_locked_ones(shipped: Shipped, images: AuditImages) -> None:
    with torch.no_grad():
        changed = replace(shipped.target, _network=shipped.target.network())
        for parameter in changed._network.parameters():
            parameter.mul_(-3).add_(1)
    other = fresh_network(changed, images.attacker.images, seeded(0, "attack"))
    own, original = fresh(shipped, images).state_dict(), shipped.target.network().state_dict()
    trained = {name for name, _ in other.named_parameters()}
    for name, value in other.state_dict().items():
        if name in trained:
            assert torch.allclose(value, own[name], atol=1e-5), name
            assert name not in original or not torch.allclose(value, original[name], atol=1e-3), name


def test_the_gates_are_gone(shipped: Shipped, images: AuditImages) -> None:
    network = fresh(shipped, images)
    before = network(images.attacker.images[:4])
    for name in shipped.target.gate_names:
        if "mean" in name:
            network.substitute(name, torch.full_like(network.initializer(name), 50.0))
    assert torch.equal(network(images.attacker.images[:4]), before)


def test_every_layer_starts_with_unit_variance(shipped: Shipped, images: AuditImages) -> None:
    network = fresh(shipped, images)
    layers = linear_layers(network, shipped.target.gate_names)
    outputs = [layer.node.outputs[0] for layer in layers if layer.weight.startswith("body.")]
    assert len(outputs) == 5
    with torch.no_grad():
        values = network.values(images.attacker.images[:16], outputs)
    assert [float(values[name].std()) for name in outputs] == pytest.approx([1.0] * 5, rel=0.01)


def test_every_layer_is_trained(shipped: Shipped, images: AuditImages) -> None:
    """Weights that a license brings are no exception: a baseline without them would be a weak one."""
    network = fresh(shipped, images)
    network(images.attacker.images[:4]).square().sum().backward()
    trained = [parameter for parameter in network.parameters() if parameter.grad is not None]
    assert len(trained) == 10  # weights and biases of five layers
    assert all(float(parameter.grad.abs().max()) > 0 for parameter in trained)  # type: ignore[union-attr]


def test_a_network_from_scratch_learns(scene: Scene) -> None:
    case = draw_case(scene, Variant(Given(labeled=100)), 0, Clock())
    outcome = FromScratch().run(case)
    assert not outcome.truncated
    assert outcome.cost["steps"] == FINE_TUNE_STEPS and outcome.cost["choosing_steps"] == FINE_TUNE_STEPS
    assert accuracy(outcome.predict, scene.images.evaluation.images, scene.images.evaluation.labels) > 60


@pytest.mark.parametrize(
    ("labeled", "rates"),
    [
        (8, (1e-9, 3e-3)),  # of eight, none are held out
        (100, (3e-3, 1e-9)),
        pytest.param(8, (3e-3, 1e-9), marks=pytest.mark.slow),
        pytest.param(100, (1e-9, 3e-3), marks=pytest.mark.slow),
    ],
)
def test_the_better_learning_rate_is_taken(
    labeled: int, rates: tuple[float, float], scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_baselines, "LEARNING_RATES", rates)
    case = draw_case(scene, Variant(Given(labeled=labeled)), 0, Clock())
    assert FromScratch().run(case).cost["learning_rate"] == 3e-3


def test_a_baseline_stops_with_its_clock(scene: Scene) -> None:
    outcome = FromScratch().run(draw_case(scene, Variant(Given(labeled=20)), 0, Clock(0)))
    assert outcome.truncated and outcome.cost["steps"] == 0
    assert outcome.predict(scene.images.evaluation.images[:2]).shape == (2, 10)


def _variants(base: bool, base_classes: int, labeled: Sequence[int] = (5, 9)) -> list[tuple[int, bool]]:
    resources = Resources(100, 100, tuple(labeled), 10, base, False)
    return [(v.given.labeled, v.given.base) for v in PublicBase(base_classes).variants(None, resources)]


def test_the_public_base_is_measured_as_it_is_only_if_its_classes_may_be_the_model_s() -> None:
    assert _variants(True, 10) == [(0, True), (5, True), (9, True)]
    assert _variants(True, 12) == [(5, True), (9, True)]
    assert _variants(False, 10) == []


def test_the_public_base_as_it_is_is_not_trained(scene: Scene) -> None:
    outcome = PublicBase(10).run(draw_case(scene, Variant(Given(base=True)), 0, Clock()))
    assert scene.base is not None
    probe = scene.images.evaluation.images[:5]
    assert torch.equal(outcome.predict(probe), scene.base.network(probe))


def test_fine_tuning_leaves_the_base_itself_alone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scene.base is not None
    monkeypatch.setattr(_baselines, "FINE_TUNE_STEPS", 4)
    before = {name: value.clone() for name, value in scene.base.network.state_dict().items()}
    PublicBase(10).run(draw_case(scene, Variant(Given(labeled=20, base=True)), 0, Clock()))
    assert all(torch.equal(value, before[name]) for name, value in scene.base.network.state_dict().items())


def test_a_base_with_other_classes_gets_a_fresh_last_layer(scene: Scene) -> None:
    assert scene.base is not None
    probe = scene.images.evaluation.images[:5]
    network = with_classes(draw_case(scene, Variant(Given(base=True)), 0, Clock()).base, probe, 4)
    assert torch.equal(network(probe), torch.zeros(5, 4))
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert any(parameter.shape == (4, 96) for parameter in trained) and len(trained) > 5
    case = draw_case(scene, Variant(Given(labeled=100, base=True)), 0, Clock())
    assert isinstance(PublicBase(12).run(case).predict, nn.Module)
