"""Similarity of two layers that does not see changed signs."""

from __future__ import annotations

import torch

_MOST_ROUNDS = 20
_SMALLEST = 1e-12


def matching_signs(weight: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Input signs that make one layer's weights most similar to another's, and how similar they are then.

    An output's sign may differ too, as a folded batch normalization's negative scale turns it: the products of both
    are, up to noise, an outer product of output and input signs. What is left, one sign for all, is taken so that
    most outputs agree.

    Args:
        weight: (outputs, inputs, taps) float64.
        other: Of the same shape.

    Returns:
        (inputs,) float32 signs, and the mean over outputs of the cosine's size, 0 to 1.
    """
    products = (_unit(weight) * _unit(other)).sum(2)
    signs = signs_of(torch.linalg.svd(products, full_matrices=False)[2][0])
    for _ in range(_MOST_ROUNDS):
        turned = signs_of(products.T @ signs_of(products @ signs))
        if torch.equal(turned, signs):
            break
        signs = turned
    agreement = products @ signs
    return (signs if agreement.sum() >= 0 else -signs).float(), float(agreement.abs().mean())


def signs_of(values: torch.Tensor) -> torch.Tensor:
    """+1 where values >= 0, else -1, in their dtype."""
    return torch.where(values >= 0, 1.0, -1.0).to(values)


def _unit(weight: torch.Tensor) -> torch.Tensor:
    lengths: torch.Tensor = torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True)
    return weight / lengths.clamp(min=_SMALLEST)
