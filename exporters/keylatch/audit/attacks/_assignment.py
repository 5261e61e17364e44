"""One partner for each: a permutation from a table of how well any two fit."""

from __future__ import annotations

import torch

_WORST = -1e300  # above what is taken


def greedy_assignment(scores: torch.Tensor) -> torch.Tensor:
    """Pair rows with columns, the best fitting pair first.

    Not the best assignment overall (Kuhn 1955), which needs no more where the right partner stands out.

    Args:
        scores: (p, p) floats, larger fits better.

    Returns:
        (p,) int64, the column of each row; a permutation.
    """
    left = torch.nan_to_num(scores.detach().double(), nan=_WORST, neginf=_WORST)
    columns = torch.zeros(len(left), dtype=torch.int64)
    best, places = left.max(1)
    for _ in range(len(left)):
        row = int(best.argmax())
        column = int(places[row])
        columns[row] = column
        left[:, column] = -torch.inf
        left[row] = -torch.inf
        best[row] = -torch.inf
        taken = (places == column) & (best > -torch.inf)
        if taken.any():
            best[taken], places[taken] = left[taken].max(1)
    return columns
