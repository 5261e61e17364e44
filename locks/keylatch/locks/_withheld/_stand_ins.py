"""What stands in the file where weights are withheld, and which weights can be."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from keylatch.errors import LockError
from keylatch.locks._fold_batch_norm import count_uses
from keylatch.locks._randomness import SeededDraws
from keylatch.locks._withheld._part import Part

LEAST_TELLING = 32  # of so many weights mean and variance tell nothing of any
_LEAST_SPREAD = 1e-3
_SMALL = 0.02  # the spread of stand-ins for a few numbers of which nothing is left, such as a bias


def require_usable(body: fx.GraphModule, parts: Sequence[Part]) -> None:
    """Refuse parts of a parameter that the network reads in two places: an exporter may write it twice.

    Raises:
        LockError: If there is one.
    """
    uses = count_uses(body)
    tied = [part.parameter for part in parts if uses[id(body.get_parameter(part.parameter))] > 1]
    if tied:
        raise LockError(
            f"the network uses {tied[0]} more than once, and weights of it cannot be withheld",
            hint="leave this parameter out",
        )


def plausible(part: Part, full: torch.Tensor, draws: SeededDraws) -> torch.Tensor:
    """Random stand-ins for a part, with the mean and variance of what it withholds.

    Of few weights these would tell the weights: then with those of the weights that are left.

    Args:
        part: The part.
        full: The parameter.
        draws: For the stand-ins.
    """
    weight = full.detach().double().cpu()
    withheld, left = part.read(weight), weight[~part.mask()]
    shown = withheld if part.weights >= LEAST_TELLING else left
    spread, mean = (
        torch.std_mean(shown, correction=0) if shown.numel() >= LEAST_TELLING else (weight.new_tensor(_SMALL), 0.0)
    )
    # Biases of a fresh network are all zero, and exporters merge equal tensors into one.
    return (draws.normal(*part.shape) * spread.clamp(min=_LEAST_SPREAD) + mean).to(full)
