"""Bounds of detectors: against closed forms, exact sums, and random directions."""

from __future__ import annotations

import math

import pytest
import torch
from stain_world import held_out, images, reader_of

import networks
from keylatch.locks._detector._beta import log_incomplete_beta
from keylatch.locks._detector._bounds import (
    direction_p_value,
    expected_rate,
    hit_rate_bound,
    log_cap_chance,
    needed_cosine,
    quoted_rate,
    threshold_for,
    worst_direction_rate,
)
from keylatch.locks._detector._features import measure_spread, responses


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_directions(count: int, dimensions: int, seed: int = 0) -> torch.Tensor:
    """Drawn here with torch's own generator, not with the library's draws."""
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, dimensions, generator=generator), dim=1)


def binomial_tail(hits: int, trials: int, chance: float) -> float:
    """P(at least `hits`), summed term by term."""
    return math.fsum(math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k) for k in range(hits, trials + 1))


@pytest.mark.parametrize("x", [1e-6, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_the_incomplete_beta_function_agrees_with_its_closed_forms(x: float) -> None:
    closed = {
        (0.5, 0.5): 2 / math.pi * math.asin(math.sqrt(x)),
        (3.0, 1.0): x**3,
        (1.0, 2.5): -math.expm1(2.5 * math.log1p(-x)),
        (7.0, 14.0): binomial_tail(7, 20, x),
        (40.0, 3.0): binomial_tail(40, 42, x),
    }
    for (a, b), value in closed.items():
        assert float(log_incomplete_beta(doubles(x), a, b)) == pytest.approx(math.log(value), rel=1e-9, abs=1e-12)


def test_the_incomplete_beta_function_has_its_ends_and_is_tiny_where_floats_end() -> None:
    assert log_incomplete_beta(doubles(0.0, 1.0), 5.0, 0.5).tolist() == [-math.inf, 0.0]
    # I_x(a, 1/2) ~ x^a / (a B(a, 1/2) sqrt(1 - x)) for small x
    x, a = 1e-3, 400.0
    beta = math.lgamma(a) + math.lgamma(0.5) - math.lgamma(a + 0.5)
    expected = a * math.log(x) - math.log(a) - beta
    assert float(log_incomplete_beta(doubles(x), a, 0.5)) == pytest.approx(expected, abs=2e-3)


def test_a_cap_of_a_circle_and_of_a_ball_have_their_known_shares() -> None:
    cosines = doubles(0.0, 0.1, 0.5, 0.9, 1.0, 1.5)
    circle = torch.acos(cosines.clamp(max=1)) / math.pi
    ball = ((1 - cosines) / 2).clamp(min=0)  # Archimedes
    torch.testing.assert_close(log_cap_chance(cosines, 2).exp(), circle)
    torch.testing.assert_close(log_cap_chance(cosines, 3).exp(), ball)


@pytest.mark.parametrize(("dimensions", "cosine"), [(5, 0.4), (20, 0.3), (192, 0.1), (576, 0.05)])
def test_random_directions_fall_into_a_cap_as_often_as_computed(dimensions: int, cosine: float) -> None:
    count = 40_000
    share = float((random_directions(count, dimensions)[:, 0] >= cosine).double().mean())
    chance = float(log_cap_chance(doubles(cosine), dimensions).exp())
    assert abs(share - chance) <= 4 * math.sqrt(chance / count)


def test_bound_a_is_the_mean_over_directions_of_the_share_that_fires_or_more() -> None:
    features = torch.randn(60, 4, 12, generator=torch.Generator().manual_seed(1))
    radii, threshold = features.norm(dim=2), 3.2
    directions = random_directions(4000, 12)
    fires = (features @ directions.T).amax(1) > threshold
    expected = expected_rate(radii, threshold, 12)
    measured = float(fires.double().mean())
    assert 0.8 * expected <= measured <= 1.05 * expected  # positions are summed: a little more than the chance of any


def test_radii_in_bins_give_no_smaller_a_bound_than_one_by_one() -> None:
    radii = torch.rand(500, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.5
    one_by_one = float(log_cap_chance(0.9 / radii, 40).exp().sum() / len(radii))
    assert one_by_one <= expected_rate(radii, 0.9, 40) <= 1.1 * one_by_one


def test_the_quoted_bound_pays_for_every_try_and_for_the_one_direction_in_use() -> None:
    assert quoted_rate(1e-9, 1) == pytest.approx(1e-7)
    assert quoted_rate(1e-9, 5) == pytest.approx(5e-7)
    assert quoted_rate(0.5, 3) == 1.0


def test_of_many_directions_at_most_one_in_a_hundred_beats_the_quoted_bound() -> None:
    features = torch.randn(40, 3, 6, generator=torch.Generator().manual_seed(3))
    features *= torch.tensor([4.0, 1, 1, 1, 1, 1])  # stretched: some directions are far worse than the mean
    for threshold in (6.0, 9.0, 12.0):
        bound = quoted_rate(expected_rate(features.norm(dim=2), threshold, 6), 1)
        shares = ((features @ random_directions(3000, 6).T).amax(1) > threshold).double().mean(0)
        assert float((shares > bound).double().mean()) <= 0.01


def test_the_threshold_is_the_smallest_that_keeps_the_bound() -> None:
    radii = torch.rand(50, 9, generator=torch.Generator().manual_seed(4)) + 1
    threshold = threshold_for(radii, 300, 1e-6, 4)
    assert quoted_rate(expected_rate(radii, threshold, 300), 4) <= 1e-6
    assert quoted_rate(expected_rate(radii, 0.999 * threshold, 300), 4) > 1e-6


def test_narrower_layers_and_more_positions_need_a_larger_share_of_the_radius() -> None:
    wanted = [needed_cosine(m, 49, 1e-6, 4) for m in (27, 147, 500, 4608)]
    assert wanted == sorted(wanted, reverse=True)
    assert wanted[0] > 0.85 > 0.35 > wanted[2]
    assert needed_cosine(500, 1, 1e-6, 4) < needed_cosine(500, 3136, 1e-6, 4)


def test_bound_b_holds_for_the_worst_direction_and_says_nothing_for_low_thresholds() -> None:
    spread = torch.randn(400, 8, generator=torch.Generator().manual_seed(6))
    crowded = torch.nn.functional.normalize(spread + torch.tensor([5.0, 0, 0, 0, 0, 0, 0, 0]), dim=1)
    worst = torch.nn.functional.normalize(crowded.mean(0), dim=0)
    for threshold in (0.75, 0.9, 0.97):
        fires = float((crowded @ worst >= threshold).double().mean())
        assert fires <= worst_direction_rate(crowded, threshold, 1.0)
    assert worst_direction_rate(crowded, 0.97, 1.0) < 1
    assert worst_direction_rate(crowded, 0.7, 1.0) == 1.0


def test_bound_d_is_three_over_n_without_a_hit_and_clopper_pearson_with_some() -> None:
    for images_seen in (10, 1000, 10**6):
        assert hit_rate_bound(0, images_seen) == pytest.approx(-math.expm1(math.log(0.05) / images_seen), rel=1e-6)
    assert hit_rate_bound(0, 1000) == pytest.approx(3 / 1000, rel=0.01)
    for hits, seen in ((1, 20), (3, 50), (49, 50)):
        bound = hit_rate_bound(hits, seen)
        assert 1 - binomial_tail(hits + 1, seen, bound) == pytest.approx(0.05, rel=1e-6)
    assert hit_rate_bound(7, 7) == 1.0


def test_the_p_value_of_a_cosine_is_the_share_of_random_directions_that_reach_it() -> None:
    assert direction_p_value(-0.2, 100) == direction_p_value(0.0, 100) == 1.0
    assert direction_p_value(0.2, 3) == pytest.approx(0.4)
    assert direction_p_value(0.5, 3, looked_at=2) == pytest.approx(0.5)
    assert direction_p_value(0.1, 3, looked_at=50) == 1.0
    assert 0 < direction_p_value(0.9, 300) < 1e-100


@pytest.mark.parametrize("layer", ["3", "6"])
def test_measured_false_positives_of_a_network_never_beat_the_printed_bound(layer: str) -> None:
    reader = reader_of(networks.settle(networks.PaddedConvs), layer)
    spread = measure_spread(reader, images())
    dimensions = reader.site.fan_in
    directions = random_directions(4000, dimensions, seed=9)
    for shown in (images(), held_out()):
        with torch.no_grad():
            answers = responses(reader(shown), spread.center, directions)
            radii = (reader(shown) - spread.center).norm(dim=2)
        for share in (0.05, 0.08, 0.12):
            threshold = share * float(radii.max())
            expected = expected_rate(radii, threshold, dimensions)
            rates = (answers > threshold).double().mean(0)
            error = float(rates.std()) / math.sqrt(len(directions))
            assert float(rates.mean()) <= expected + 4 * error
            assert float((rates > quoted_rate(expected, 1)).double().mean()) <= 0.01
