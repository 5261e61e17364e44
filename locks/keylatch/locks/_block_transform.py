"""Keyed block transforms of images: shuffled, negated and encrypted pixels (arXiv 2103.03525).

An image is cut into blocks of M x M pixels, each a vector of p = channels * M * M entries in the order
(row, column, channel). One key serves all blocks and images:
    shf   b'[k] = b[v[k]], v a permutation
    np    b'[k] = 255 - b[k] for half of the entries k
    ffx   b'[k] = table[b[k]] for half of the entries k, a number of three digits; then the whole block is divided by
          the table's largest entry

Pixels are transformed before normalization: augment, transform, normalize, network.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, Self

import numpy as np
import numpy.typing as npt
import torch

from keylatch.errors import LockError
from keylatch.locks._block_arrays import arrays_of, parse_arrays
from keylatch.locks._block_key_space import PASSWORD_BITS, log2_key_space, require_steps
from keylatch.locks._block_key_space import Step as Step
from keylatch.locks._block_layout import block_entries, depth_to_space, require_images, space_to_depth
from keylatch.locks._ffx import byte_table
from keylatch.locks._randomness import SEED_BYTES, SeededDraws


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BlockTransform:
    """A block transform with its key; secret, belongs in the issuer's vault and nowhere else.

    However many steps there are, they are one permutation, then negation, then encryption: what np negated before
    shf stands in `negated` where shf has moved it.

    Attributes:
        steps: In the order applied.
        block_size: M.
        channels: Image channels.
        permutation: (p,) int64; output entry k reads input entry permutation[k].
        negated: (p,) bool, by output entry.
        encrypted: (p,) bool, by output entry; all False without ffx.
        table: (256,) int16, from byte to 0..999; 0..255 without ffx.
    """

    steps: tuple[Step, ...]
    block_size: int
    channels: int
    permutation: torch.Tensor
    negated: torch.Tensor
    encrypted: torch.Tensor
    table: torch.Tensor

    @classmethod
    def draw(cls, steps: Sequence[Step], *, block_size: int, channels: int = 3, seed: bytes | None = None) -> Self:
        """Draw a key; each step from its own stream of the seed, so that adding a step changes no other.

        Args:
            steps: In the order applied, each at most once, ffx last.
            block_size: M, 2 or larger.
            channels: Image channels.
            seed: 32 secret bytes; drawn when left out.

        Raises:
            LockError: If an argument is not as above, or the keys are few enough to try: np alone at M = 2.
        """
        entries = block_entries(block_size, channels)
        require_steps(steps, block_size=block_size, channels=channels)
        seed = secrets.token_bytes(SEED_BYTES) if seed is None else seed
        key = cls(tuple(steps), block_size, channels, *_nothing(entries))
        for step in steps:
            key = key._drawn(step, SeededDraws(seed, f"block transform {step}"))
        return key

    def _drawn(self, step: Step, draws: SeededDraws) -> Self:
        if step == "shf":
            order = draws.permutation(self.parameters)
            return replace(self, permutation=self.permutation[order], negated=self.negated[order])
        half = _half(draws, self.parameters)
        if step == "np":
            return replace(self, negated=half)
        return replace(self, encrypted=half, table=byte_table(draws.bytes(PASSWORD_BITS // 8)))

    def __repr__(self) -> str:
        blocks = f"blocks of {self.block_size} x {self.block_size} x {self.channels}"
        return f"BlockTransform({'+'.join(self.steps) or 'no steps'}, {blocks}, {self.log2_key_space:.1f} bits)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a block transform's key is not pickled; write it to a vault")

    @property
    def parameters(self) -> int:
        """p, the length of a block's vector."""
        return self.channels * self.block_size**2

    @property
    def divisor(self) -> int:
        """What numbers are divided by, after the transform: 255, or the largest entry of the table with ffx."""
        return int(self.table.max())

    @property
    def is_linear(self) -> bool:
        """Whether pixels only move and change sign about 1/2: without ffx."""
        return "ffx" not in self.steps

    @property
    def log2_key_space(self) -> float:
        """Bits of key: shf log2(p!), np log2 C(p, p // 2), ffx as np and 256 more for its password."""
        return log2_key_space(self.steps, self.parameters)

    def values(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the network is shown, before normalization.

        Args:
            pixels: (N, channels, H, W) uint8, or float in [0, 1]; H and W divisible by M. On any device.

        Returns:
            (N, channels, H, W) in [0, 1], the transformed number / `divisor`: float32. Float pixels without ffx keep
            their dtype, and are x or 1 - x exactly; with ffx they are rounded to bytes first.

        Raises:
            LockError: If the images are of another kind or size, or outside [0, 1].
        """
        require_images(pixels, block_size=self.block_size, channels=self.channels)
        if self.is_linear and pixels.is_floating_point():
            return depth_to_space(self._moved(pixels, white=1), self.block_size)
        numbers = self._encrypted(self._moved(_as_bytes(pixels), white=255)).to(torch.float32)
        # By a tensor: CUDA multiplies by the reciprocal of a plain number, which is not the quotient in the last bit.
        shown = numbers / torch.full((), self.divisor, dtype=torch.float32, device=numbers.device)
        return depth_to_space(shown, self.block_size)

    def bytes(self, pixels: torch.Tensor) -> torch.Tensor:
        """The transformed image as bytes.

        Args:
            pixels: (N, channels, H, W) uint8, H and W divisible by M.

        Returns:
            (N, channels, H, W) uint8.

        Raises:
            LockError: If there is an ffx step, whose numbers are no bytes, or the images are of another kind or size.
        """
        if not self.is_linear:
            raise LockError("numbers after ffx reach 999 and are no bytes", hint="use values()")
        if pixels.dtype != torch.uint8:
            raise LockError(f"images are {pixels.dtype}, expected uint8", hint="use values() for float images")
        require_images(pixels, block_size=self.block_size, channels=self.channels)
        return depth_to_space(self._moved(pixels, white=255), self.block_size)

    def _moved(self, pixels: torch.Tensor, *, white: int) -> torch.Tensor:
        blocks = space_to_depth(pixels, self.block_size).index_select(1, self.permutation.to(pixels.device))
        return torch.where(self.negated.to(pixels.device).view(-1, 1, 1), white - blocks, blocks)

    def _encrypted(self, blocks: torch.Tensor) -> torch.Tensor:
        if self.is_linear:
            return blocks
        numbers = self.table.to(blocks.device)[blocks.to(torch.int32)]
        return torch.where(self.encrypted.to(blocks.device).view(-1, 1, 1), numbers, blocks.to(torch.int16))

    def near(self, share_or_count: float, generator: torch.Generator) -> Self:
        """A key that is almost this one: so many of the p entries are wrong in every step; the table stays.

        Entries of the permutation are exchanged in pairs, and as many True as False are flipped, so that halves stay
        halves: the number of wrong entries is rounded up to an even one.

        Args:
            share_or_count: Wrong entries: a count from 1 to p if whole (int), a share in (0, 1] of p if float.
            generator: On the CPU. It may be any: who measures near keys knows the right one.

        Raises:
            LockError: If the count is outside these bounds, or there are no steps.
        """
        pairs = self._pairs(share_or_count)
        return replace(
            self,
            permutation=_exchange(self.permutation, pairs, generator) if "shf" in self.steps else self.permutation,
            negated=_flip(self.negated, pairs, generator) if "np" in self.steps else self.negated,
            encrypted=_flip(self.encrypted, pairs, generator) if "ffx" in self.steps else self.encrypted,
        )

    def _pairs(self, share_or_count: float) -> int:
        if not self.steps:
            raise LockError("a transform without steps has no key to come near", hint="draw one with steps")
        count = share_or_count * self.parameters if isinstance(share_or_count, float) else share_or_count
        if not 0 < count <= self.parameters:
            raise LockError(
                f"{share_or_count} wrong entries cannot be had, expected a share in (0, 1] or 1 to {self.parameters}",
                hint="give a float for a share, an int for a count",
            )
        return min(math.ceil(count / 2), self.parameters // 2)

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Named arrays for the vault."""
        tensors = (self.permutation, self.negated, self.encrypted, self.table)
        return arrays_of(self.steps, self.block_size, self.channels, tensors)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Self:
        """Read what `to_arrays` gave.

        Raises:
            FormatError: If an array is missing, or is not what `draw` could have given.
        """
        return cls(*parse_arrays(arrays))


def identity_transform(block_size: int, channels: int) -> BlockTransform:
    """The transform that does nothing: what a file without a key does."""
    return BlockTransform((), block_size, channels, *_nothing(block_entries(block_size, channels)))


def _nothing(entries: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    unset = torch.zeros(entries, dtype=torch.bool)
    return torch.arange(entries), unset, unset.clone(), torch.arange(256, dtype=torch.int16)


def _half(draws: SeededDraws, entries: int) -> torch.Tensor:
    mask = torch.zeros(entries, dtype=torch.bool)
    mask[draws.permutation(entries)[: entries // 2]] = True
    return mask


def _as_bytes(pixels: torch.Tensor) -> torch.Tensor:
    if pixels.dtype == torch.uint8:
        return pixels
    # Rounded, never truncated: normalized and back, up to 61 of the 256 values come out just below, and the ciphertext
    # of a neighbor is unrelated.
    wide = pixels.to(torch.promote_types(pixels.dtype, torch.float32))
    return (wide * 255).round().to(torch.uint8)


def _exchange(permutation: torch.Tensor, pairs: int, generator: torch.Generator) -> torch.Tensor:
    first, second = torch.randperm(len(permutation), generator=generator)[: 2 * pairs].chunk(2)
    exchanged = permutation.clone()
    exchanged[first], exchanged[second] = permutation[second], permutation[first]
    return exchanged


def _flip(mask: torch.Tensor, pairs: int, generator: torch.Generator) -> torch.Tensor:
    flipped = mask.clone()
    for places in (mask.nonzero().view(-1), mask.logical_not().nonzero().view(-1)):
        chosen = places[torch.randperm(len(places), generator=generator)[:pairs]]
        flipped[chosen] = ~mask[chosen]
    return flipped
