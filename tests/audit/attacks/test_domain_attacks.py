"""Attacks on models whose weights are withheld for domains: they apply there, and get back what can be got back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from attack_world import POOL

import networks
from keylatch.audit._attack import Case, Given, Resources, Variant
from keylatch.audit._clock import Clock
from keylatch.audit._images import LabeledImages
from keylatch.audit._target import Target, load_target
from keylatch.audit._training import accuracy
from keylatch.audit.attacks.noisy_fine_tuning import NoisyFineTuning, disturbed
from keylatch.audit.attacks.zero_refill import ZeroRefill
from keylatch.exporters import export
from keylatch.locks import InputSpec, domain_lock

RESOURCES = Resources(POOL, POOL, (30, 150), 10, base=False, owner=False)


@pytest.fixture(scope="module")
def shipped(trained: networks.Digits, tmp_path_factory: pytest.TempPathFactory) -> Target:
    """A classifier of digits without half of one layer's weights, as if for a domain."""
    layers = [(name, value) for name, value in trained.network.named_parameters() if value.dim() == 4]
    name, weight = max(layers, key=lambda layer: layer[1].numel())
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    locked = domain_lock(trained.network, networks.SPEC, {"other": {name: mask}})
    path = tmp_path_factory.mktemp("domains") / "digits.latch"
    return load_target(export(locked.module, locked.secret, path, report=locked.report).path)


def run(attack: NoisyFineTuning | ZeroRefill, target: Target, digits: networks.Digits, count: int) -> float:
    case = Case(
        target, Variant(Given(labeled=count)), digits.images[:count], digits.labels[:count], 10,
        torch.Generator().manual_seed(0), Clock(60),
    )  # fmt: skip
    return accuracy(attack.run(case).predict, digits.images[POOL:], digits.labels[POOL:])


def test_withheld_weights_of_domains_are_refilled(shipped: Target, trained: networks.Digits) -> None:
    before = accuracy(shipped.network(), trained.images[POOL:], trained.labels[POOL:])
    assert [variant.given.labeled for variant in ZeroRefill().variants(shipped, RESOURCES)] == [30, 150]
    assert run(ZeroRefill(), shipped, trained, 150) > before + 10


def test_noise_and_blur_are_tried_on_domains_and_nowhere_else(
    shipped: Target, trained: networks.Digits, locked_artifact: Path
) -> None:
    attack = NoisyFineTuning()
    assert [variant.given.labeled for variant in attack.variants(shipped, RESOURCES)] == [30, 150]
    assert attack.variants(load_target(locked_artifact), RESOURCES) == []
    before = accuracy(shipped.network(), trained.images[POOL:], trained.labels[POOL:])
    assert run(attack, shipped, trained, 150) > before + 10


@pytest.mark.parametrize(
    "spec",
    [InputSpec(3, 32, 32), InputSpec(3, 32, 32, (0.5,), (0.25,)), InputSpec(3, 32, 32, layout="NHWC", dtype="uint8")],
)
def test_copies_are_noisy_and_blurred_and_still_the_model_s_images(spec: InputSpec) -> None:
    pixels = torch.randint(0, 256, (5, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    known = LabeledImages(spec.from_pixels(pixels), torch.arange(5))
    copies = disturbed(known, spec, torch.Generator().manual_seed(1))
    assert copies.images.dtype == known.images.dtype
    assert copies.images.shape == (20, *known.images.shape[1:])
    assert copies.labels.tolist() == [0, 1, 2, 3, 4] * 4
    noisy, noisier, blurred, smoother = (part.float() for part in copies.images.split(5))
    plain = known.images.float()
    assert (noisier - plain).std() > (noisy - plain).std() > 0
    assert smoother.std() < blurred.std() < plain.std()
    low, high = (spec.from_pixels(torch.full_like(pixels, value)).float() for value in (0, 255))
    assert copies.images.min() >= low.min() - 1e-6 and copies.images.max() <= high.max() + 1e-6
