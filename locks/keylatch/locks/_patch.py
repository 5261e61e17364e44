"""Find a patch of 8-bit pixels that carries a given code with a wide margin."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from keylatch.errors import LockError

STEPS = 400
_FIRST_SHARPNESS, _LAST_SHARPNESS = 8.0, 200.0


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch that carries a code.

    Attributes:
        pixels: (m,) uint8.
        margin: min_i b_i V_i (p - 1/2), in pixel units of 1; one 8-bit step is 1/255.
    """

    pixels: torch.Tensor
    margin: float


def find_patch(projection: torch.Tensor, code: torch.Tensor) -> Patch:
    """Find a patch whose code is `code`.

    Starts from the feasible point 1/2 + a V^T b and widens the smallest margin by projected gradient ascent on a
    soft minimum whose sharpness grows (docs/locks.md). Deterministic.

    Args:
        projection: (d, m) orthonormal rows.
        code: (d,) in {-1, +1}.

    Raises:
        LockError: If rounding to 8 bits leaves a code bit wrong.
    """
    signed = (projection * code.to(projection.dtype).unsqueeze(1)).to(torch.float64)
    start = signed.sum(0)
    offset = start * (0.5 / start.abs().max())
    best = offset.clone()
    for step in range(STEPS):
        sharpness = _FIRST_SHARPNESS * (_LAST_SHARPNESS / _FIRST_SHARPNESS) ** (step / STEPS)
        margins = signed @ offset
        ascent = torch.softmax(-sharpness * margins, 0) @ signed
        rate = 0.5 * (1 - step / STEPS) + 0.01
        offset = (offset + rate * ascent / ascent.norm()).clamp(-0.5, 0.5)
        if (signed @ offset).min() > (signed @ best).min():
            best = offset.clone()
    return _rounded(signed, best)


def _rounded(signed: torch.Tensor, offset: torch.Tensor) -> Patch:
    pixels = ((offset + 0.5) * 255).round().clamp(0, 255).to(torch.uint8)
    margin = float((signed @ (pixels.to(torch.float64) / 255 - 0.5)).min())
    if margin <= 0:
        raise LockError(
            f"no 8-bit patch was found for this code, best margin {margin:.4f}",
            hint="take a larger patch or fewer code bits",
        )
    return Patch(pixels, margin)
