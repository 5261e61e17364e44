"""How often a detector may fire on images that it was not made for: bounds (A), (B) and (D) of docs/locks.md.

A detector fires on an image if `v . (phi(x) - c) > T` at any position. `phi(x)` are the m values that a unit reads
there, `c` is their mean, and `v` is uniform on the sphere S^(m-1), drawn without regard to any image.
"""

from __future__ import annotations

from functools import cache

import torch

from keylatch.locks._detector._beta import log_incomplete_beta

MARKOV_CONFIDENCE = 0.99
HITS_CONFIDENCE = 0.95
_BINS = 256  # of radii; each is rounded up to the largest of its bin, so a bound only grows
_BISECTIONS = 60
_PAIRS = 512  # images at most whose pairs are looked at


def log_cap_chance(cosine: torch.Tensor, dimensions: int) -> torch.Tensor:
    """Log of the chance that a uniformly random direction has at least this cosine with a fixed one.

    It is I_(1 - cosine^2)((m - 1)/2, 1/2) / 2, the share of the sphere that its cap covers.

    Args:
        cosine: Any shape, 0 or more; above 1 the chance is zero.
        dimensions: m, 2 or more.

    Returns:
        float64 logarithms, the shape of `cosine`.
    """
    inside = (1 - cosine.to(torch.float64) ** 2).clamp(min=0)
    return log_incomplete_beta(inside, (dimensions - 1) / 2, 0.5) - torch.log(torch.tensor(2.0, dtype=torch.float64))


def direction_p_value(cosine: float, dimensions: int, looked_at: int = 1) -> float:
    """Chance that the best of `looked_at` fixed vectors has this cosine or more with a uniformly random direction.

    Exact for one vector, whatever it is; for several the sum of their chances (Bonferroni). It assumes only that the
    vectors do not depend on the direction: that their owner did not know it.
    """
    if cosine <= 0:
        return 1.0
    one = float(log_cap_chance(torch.tensor(cosine, dtype=torch.float64), dimensions).exp())
    return min(1.0, looked_at * one)


def expected_rate(radii: torch.Tensor, threshold: float, dimensions: int) -> float:
    """Bound (A) before its correction: the mean, over the random direction, of the share of images that fire.

    Each position of each image adds the chance that a random direction reaches T there; positions are summed (an
    image fires if any of them does), images averaged.

    Args:
        radii: (N, positions), |phi(x) - c|.
        threshold: T.
        dimensions: m.
    """
    largest, counts = _binned(radii)
    chances = log_cap_chance(threshold / largest.clamp(min=1e-300), dimensions).exp()
    return min(1.0, float((chances * counts).sum()) / len(radii))


def quoted_rate(expected: float, tries: int) -> float:
    """Bound (A) for the one direction in use: with 99 % confidence it fires on no larger share of such images.

    Markov: of all directions at most 1 % have more than 100 times the mean rate. Trying several directions and keeping
    one multiplies the bound by their number.

    Args:
        expected: Of `expected_rate`.
        tries: Directions that were tried.
    """
    return min(1.0, expected * tries / (1 - MARKOV_CONFIDENCE))


def threshold_for(radii: torch.Tensor, dimensions: int, rate: float, tries: int) -> float:
    """The smallest T whose bound (A), for one of `tries` directions, is at most `rate`.

    Args:
        radii: (N, positions), |phi(x) - c| of calibration images.
        dimensions: m.
        rate: Share of images, 0 to 1.
        tries: Directions that may be tried.
    """
    low, high = 0.0, float(radii.max())  # at the largest radius nothing fires
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if quoted_rate(expected_rate(radii, middle, dimensions), tries) <= rate:
            high = middle
        else:
            low = middle
    return high


@cache
def needed_cosine(dimensions: int, positions: int, rate: float, tries: int) -> float:
    """T as a share of the radius, if all positions of all images had the same one: how narrow a layer may be.

    A trigger has to reach half as much again, and a cosine ends at 1.
    """
    return threshold_for(torch.ones(1, positions, dtype=torch.float64), dimensions, rate, tries)


def worst_direction_rate(centered: torch.Tensor, threshold: float, largest_radius: float) -> float:
    """Bound (B): no direction whatever, not even a chosen one, fires at a random position with more than this chance.

    Two features that both reach T have a cosine of at least 2t^2 - 1 with each other, t = T / largest radius; the
    share of pairs that do is at least the square of the share that fires. For t <= 0.707 it says nothing: 1.

    Args:
        centered: (N, m), phi(x) - c, one position of each of N images.
        threshold: T.
        largest_radius: Of all features.
    """
    share = threshold / largest_radius
    if 2 * share**2 - 1 <= 0 or len(centered) < 2:
        return 1.0
    units = torch.nn.functional.normalize(centered[:_PAIRS].to(torch.float64), dim=1)
    cosines = (units @ units.T)[~torch.eye(len(units), dtype=torch.bool)]
    return float((cosines >= 2 * share**2 - 1).to(torch.float64).mean().sqrt())


def hit_rate_bound(hits: int, images: int) -> float:
    """Bound (D): the largest rate that `hits` in `images` allow, with 95 % confidence.

    One-sided, of Clopper and Pearson (1934); without a hit about 3 / images. It assumes images drawn independently from
    those it speaks of.
    """
    if hits >= images:
        return 1.0
    low, high = hits / images, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        # P(at most `hits` of `images`) at this rate, a beta tail
        log_chance = log_incomplete_beta(torch.tensor(1 - middle, dtype=torch.float64), images - hits, hits + 1)
        low, high = (middle, high) if float(log_chance.exp()) > 1 - HITS_CONFIDENCE else (low, middle)
    return high


def _binned(radii: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Largest radius and count of each bin, float64."""
    ordered = radii.to(torch.float64).flatten().sort().values
    bins = ordered.tensor_split(min(_BINS, len(ordered)))
    largest = torch.stack([values[-1] for values in bins])
    return largest, torch.tensor([len(values) for values in bins], dtype=torch.float64)
