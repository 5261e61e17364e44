"""From a patch to gate signs: the patch carries a code, the code is expanded to one sign for each gated channel.

Public, drawn from a public seed:
    projection  V, (d, m), orthonormal rows: code = sign(V (corner - 1/2))
    expansion   A, (d, u) in {-1, +1}: units = sign(A^T code + 1 for even d)
    picks       (5, C): a channel's gate sign is the product of five distinct units

With one linear threshold for a sign, sign(A b), every sign that an attacker recovers by statistics would be a noisy
linear equation on the code, and enough of them would give the code (docs/decisions/0002). The product of five
thresholds has no linear part to correlate with (it is a 5-XOR arbiter PUF with 256 stages), and it turns one wrong
code bit into 17 % wrong signs instead of 4 %. Five is odd, so that the inverted code inverts the signs.

Entries of A are +-1 and sums are whole numbers below 256: the expansion is exact in fp16, bf16 and on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from keylatch.errors import LockError
from keylatch.locks._randomness import SeededDraws

UNITS = 256
FAN_IN = 5
MINIMUM_BITS = 64
DEFAULT_BITS = 256


@dataclass(frozen=True, slots=True)
class CodeMap:
    """The public map from patch to gate signs.

    Attributes:
        projection: (d, m) float64, orthonormal rows.
        expansion: (d, UNITS) int8 in {-1, +1}.
        picks: (FAN_IN, channels) int64 in [0, UNITS).
    """

    projection: torch.Tensor
    expansion: torch.Tensor
    picks: torch.Tensor

    def code(self, patch: torch.Tensor) -> torch.Tensor:
        """Code of a patch.

        Args:
            patch: (m,) float, pixels in [0, 1], channels first.

        Returns:
            (d,) int8 in {-1, +1}.
        """
        return as_signs(self.projection @ (patch.to(torch.float64) - 0.5)).to(torch.int8)

    def signs(self, code: torch.Tensor) -> torch.Tensor:
        """Gate signs of a code.

        Args:
            code: (d,) in {-1, +1}.

        Returns:
            (channels,) float32 in {-1, +1}.
        """
        sums = code.to(torch.float32) @ self.expansion.to(torch.float32)
        return as_signs(sums + tie_break(len(code)))[self.picks].prod(0)


def as_signs(values: torch.Tensor) -> torch.Tensor:
    """+1 where values >= 0, else -1; never 0, unlike `torch.sign`."""
    return torch.where(values >= 0, 1.0, -1.0).to(torch.float32)


def tie_break(code_bits: int) -> float:
    """Sums of an even number of signs are even: adding 1 moves them off zero, by the same margin on both sides."""
    return 1.0 if code_bits % 2 == 0 else 0.0


def code_bits_for(pixels: int, wanted: int | None) -> int:
    """The number of code bits for a patch of `pixels` values.

    Raises:
        LockError: If the patch cannot carry that many bits, or they are too few to be a lock.
    """
    bits = min(DEFAULT_BITS, pixels // 3) if wanted is None else wanted
    if bits > pixels:
        raise LockError(
            f"a patch of {pixels} values cannot carry {bits} code bits",
            hint=f"take a larger patch, or at most {pixels // 3} bits for a safe margin",
        )
    if bits < MINIMUM_BITS:
        raise LockError(
            f"{bits} code bits are too few for a lock, expected at least {MINIMUM_BITS}",
            hint=f"take a patch of at least {3 * MINIMUM_BITS} values (8x8 with three channels), or name code_bits",
        )
    return bits


def draw_code_map(seed: bytes, *, code_bits: int, pixels: int, channels: int) -> CodeMap:
    """Draw the public map.

    Args:
        seed: 32 public bytes.
        code_bits: d.
        pixels: m, values in the patch.
        channels: Gate signs wanted over all gated layers.
    """
    gaussian = SeededDraws(seed, "projection").normal(pixels, code_bits)
    basis, triangle = torch.linalg.qr(gaussian)
    projection = (basis * torch.diagonal(triangle).sign()).T.contiguous()  # Haar measure: fix the signs of R
    expansion = SeededDraws(seed, "expansion").signs(code_bits, UNITS)
    return CodeMap(projection, expansion, _draw_picks(seed, channels))


def _draw_picks(seed: bytes, channels: int) -> torch.Tensor:
    # The FAN_IN smallest of UNITS uniform numbers: distinct units, uniformly chosen.
    scores = SeededDraws(seed, "picks").uniform(channels, UNITS)
    return scores.topk(FAN_IN, dim=1, largest=False).indices.T.contiguous()


def log2_chance_within(code_bits: int, wrong_bits: int) -> float:
    """log2 of the chance, over the secret code, that a fixed input comes within `wrong_bits` of it: a binomial tail.

    It holds for every distribution of images that does not depend on the code: 2^-d for no wrong bit.
    """
    tail = sum(math.comb(code_bits, wrong) for wrong in range(wrong_bits + 1))
    return math.log2(tail) - code_bits
