"""Signs from statistics, on layers that are trained by construction."""

from __future__ import annotations

import pytest
import torch

from keylatch.audit.attacks._sign_statistics import Objective, gated_layer

CHANNELS, OUTPUTS, IMAGES = 48, 64, 4000


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def inputs(taps: int = 1) -> torch.Tensor:
    """(images, channels, taps) rectified, correlated inputs."""
    factors = torch.randn(IMAGES, 6, taps, generator=generator()).double()
    mixing = torch.randn(CHANNELS, 6, generator=generator()).double()
    noise = torch.randn(IMAGES, CHANNELS, taps, generator=generator()).double()
    return (torch.einsum("cf,nft->nct", mixing, factors) + noise).relu()


def aligned_weight(samples: torch.Tensor) -> torch.Tensor:
    """(outputs, channels, taps) weights that lie where the inputs vary, as trained ones do."""
    rows = samples.flatten(1) - samples.flatten(1).mean(0)
    random = torch.randn(OUTPUTS, rows.shape[1], generator=generator()).double()
    return (random @ (rows.T @ rows / len(rows))).reshape(OUTPUTS, *samples.shape[1:])


def scrambled(weight: torch.Tensor, centered: bool, samples: torch.Tensor, bias: torch.Tensor):
    """The layer as a sign lock stores it, and the signs."""
    signs = torch.randint(0, 2, (CHANNELS,), generator=generator()).double() * 2 - 1
    mean = samples.mean((0, 2))
    stored = bias + weight.sum(2) @ mean if centered else bias
    return gated_layer(weight * signs[:, None], stored, samples, mean if centered else None), signs


def right(found: torch.Tensor, signs: torch.Tensor) -> float:
    return float((found == signs).double().mean())


def best(layer, alignment: float, level: bool) -> torch.Tensor:
    return Objective(layer, alignment, level).best(generator())[1]


def test_alike_means_give_the_signs_of_a_lock_that_does_not_center():
    samples = inputs()
    weight = torch.randn(OUTPUTS, CHANNELS, 1, generator=generator()).double()
    normalized_away = -torch.einsum("oct,ct->o", weight, samples.mean(0))  # what batch normalization leaves in the bias
    layer, signs = scrambled(weight, False, samples, normalized_away)
    assert right(best(layer, 0.0, True), signs) > 0.95


def test_small_biases_give_the_signs_of_a_lock_that_centers():
    samples = inputs()
    weight = torch.randn(OUTPUTS, CHANNELS, 1, generator=generator()).double()
    layer, signs = scrambled(weight, True, samples, torch.zeros(OUTPUTS).double())
    assert right(best(layer, 0.0, True), signs) > 0.95


@pytest.mark.parametrize("taps", [1, 4])
def test_aligned_weights_give_the_signs_up_to_inversion(taps):
    samples = inputs(taps)
    bias = torch.randn(OUTPUTS, generator=generator()).double()
    layer, signs = scrambled(aligned_weight(samples), True, samples, bias)
    share = right(best(layer, 1.0, False), signs)
    assert max(share, 1 - share) > 0.95


def test_taps_that_are_too_many_are_taken_one_by_one(monkeypatch):
    monkeypatch.setattr("keylatch.audit.attacks._sign_statistics._MOST_COVARIANCE", 10)
    samples = inputs(4)
    layer, signs = scrambled(aligned_weight(samples), True, samples, torch.zeros(OUTPUTS).double())
    share = right(best(layer, 1.0, False), signs)
    assert max(share, 1 - share) > 0.9


@pytest.mark.parametrize(("alignment", "level"), [(1.0, False), (0.0, True), (1.0, True), (-1.0, False)])
def test_flips_are_counted_right(alignment, level):
    samples = inputs(2)
    layer, _ = scrambled(aligned_weight(samples), True, samples, torch.randn(OUTPUTS, generator=generator()).double())
    objective = Objective(layer, alignment, level)
    value, signs = objective.climb(torch.ones(CHANNELS).double())
    outputs = torch.einsum("oct,nct->no", layer.weight * signs[:, None], samples - samples.mean(0))
    response, wanted = layer.levels
    expected = alignment * outputs.var(0, correction=0).log().sum()
    if level:
        floor = 0.1 * (wanted.square().sum() + response.square().sum())
        expected = expected - OUTPUTS / 2 * ((wanted - response @ signs).square().sum() + floor).log()
    assert value == pytest.approx(float(expected), rel=1e-6)
    assert objective.climb(signs)[0] == pytest.approx(value)  # a top: no flip helps
