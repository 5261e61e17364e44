"""Random draws from a 32-byte seed: the only source of randomness of a lock, secret or public.

A global torch or numpy generator is never used: its state is small, shared, and often seeded with 0.
"""

from __future__ import annotations

import hashlib

import torch
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keylatch.errors import LockError

SEED_BYTES = 32


class SeededDraws:
    """A stream of draws: HKDF-SHA256 (RFC 5869) of the seed and a purpose, expanded by SHAKE-256 (FIPS 202).

    Args:
        seed: 32 bytes.
        purpose: Separates the streams of one seed, e.g. ``"code"``.
    """

    def __init__(self, seed: bytes, purpose: str) -> None:
        if len(seed) != SEED_BYTES:
            raise LockError(
                f"a seed has {SEED_BYTES} bytes, got {len(seed)}", hint="draw it with secrets.token_bytes(32)"
            )
        hkdf = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"keylatch/1 " + purpose.encode())
        self._key = hkdf.derive(seed)
        self._block = 0

    def bytes(self, count: int) -> bytes:
        """The next `count` bytes."""
        self._block += 1
        return hashlib.shake_256(self._key + self._block.to_bytes(8, "big")).digest(count)

    def signs(self, *shape: int) -> torch.Tensor:
        """Uniform entries in {-1, +1}, int8."""
        count = int(torch.Size(shape).numel())
        packed = torch.frombuffer(bytearray(self.bytes((count + 7) // 8)), dtype=torch.uint8)
        bits = (packed.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)) & 1
        return (bits.reshape(-1)[:count].to(torch.int8) * 2 - 1).reshape(shape)

    def uniform(self, *shape: int) -> torch.Tensor:
        """Uniform entries in (0, 1), float64 with 52 random bits."""
        count = int(torch.Size(shape).numel())
        words = torch.frombuffer(bytearray(self.bytes(8 * count)), dtype=torch.int64)
        return ((((words >> 12) & (2**52 - 1)).to(torch.float64) + 0.5) / 2**52).reshape(shape)

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal entries, float64, through the inverse error function."""
        normal: torch.Tensor = torch.special.ndtri(self.uniform(*shape))
        return normal

    def permutation(self, count: int) -> torch.Tensor:
        """A uniform permutation of 0..count-1 (Fisher-Yates, Knuth TAOCP 3.4.2 P), int64 (count,)."""
        order = list(range(count))
        for last in range(count - 1, 0, -1):
            other = self._below(last + 1)
            order[last], order[other] = order[other], order[last]
        return torch.tensor(order, dtype=torch.int64)

    def _below(self, bound: int) -> int:
        # Rejection: a plain modulo would favor small numbers.
        limit = (1 << 32) - (1 << 32) % bound
        while True:
            word = int.from_bytes(self.bytes(4), "big")
            if word < limit:
                return word % bound
