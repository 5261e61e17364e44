"""Made pictures to train an editor on: shapes and strokes in two colors on a ramp, every one different."""

from __future__ import annotations

import torch

from keylatch.locks._model_lock._draws import Draws

_STROKES = 3


def made_pictures(count: int, side: int, draws: Draws) -> torch.Tensor:
    """(count, 3, side, side) float32 in [0, 1].

    Args:
        count: How many.
        side: Height and width in pixels.
        draws: Where chance comes from.
    """
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))  # (2, side, side): row, column
    edge = draws.between(0.5, 1.5, count, 1, 1) * 2 / side
    body = torch.where(draws.uniform(count, 1, 1) < 0.6, _strokes(points, count, draws), _shapes(points, count, draws))
    cover = torch.sigmoid(-4 * body / edge).unsqueeze(1)
    ramp = (points * draws.between(-0.2, 0.2, count, 2, 1, 1)).sum(1, keepdim=True)
    below, above = draws.uniform(count, 3, 1, 1), draws.uniform(count, 3, 1, 1)
    return ((below + ramp) * (1 - cover) + above * cover).clamp(0, 1)


def _strokes(points: torch.Tensor, count: int, draws: Draws) -> torch.Tensor:
    """Signed distance to a bent line of three strokes, as in handwriting; (count, side, side)."""
    corners = draws.between(-0.7, 0.7, count, _STROKES + 1, 2, 1, 1)
    width = draws.between(0.06, 0.22, count, 1, 1)
    nearest = torch.full((count, *points.shape[1:]), torch.inf)
    for index in range(_STROKES):
        start, end = corners[:, index], corners[:, index + 1]
        along = end - start
        place = ((points - start) * along).sum(1, keepdim=True) / (along.square().sum(1, keepdim=True) + 1e-6)
        distance = (points - start - place.clamp(0, 1) * along).square().sum(1).sqrt()
        nearest = torch.minimum(nearest, distance)
    return nearest - width


def _shapes(points: torch.Tensor, count: int, draws: Draws) -> torch.Tensor:
    """Signed distance to a disk, ring, square, diamond or cross; (count, side, side)."""
    center, size = draws.between(-0.3, 0.3, count, 2, 1, 1), draws.between(0.3, 0.7, count, 1, 1)
    row, column = (points - center).abs().unbind(1)
    radius = (row.square() + column.square()).sqrt()
    kinds = (
        radius - size,
        (radius - size).abs() - 0.15,
        torch.maximum(row, column) - size,
        (row + column - 1.3 * size) / 2**0.5,
        torch.maximum(torch.minimum(row, column) - 0.15, torch.maximum(row, column) - size),
    )
    chosen = (draws.uniform(count) * len(kinds)).long().clamp(max=len(kinds) - 1)
    return torch.stack(kinds)[chosen, torch.arange(count)]
