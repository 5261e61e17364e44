"""The secret of a lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NoReturn, Self

import numpy as np
import numpy.typing as npt
import torch

from keylatch.errors import FormatError
from keylatch.locks._block_transform import BlockTransform
from keylatch.locks._channel_key import ChannelKey, has_channel_key
from keylatch.locks._model_lock._edit_key import EditKey, has_edit_key


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class LockSecret:
    """What opens a locked network; belongs in the issuer's vault and nowhere else.

    Attributes:
        code: (d,) int8 in {-1, +1}; (0,) without a code lock.
        patch: (m,) uint8 pixels, channels first; (0,) without.
        means: For each gate the (C,) float32 channel means.
        sealed: The withheld weights, float32, in the order of the lock's description.
        blocks: The block transform's key, if there is one.
        channels: The key of feature maps, if there is one.
        edit: The key of an edit, if there is one.
    """

    code: torch.Tensor
    patch: torch.Tensor
    means: tuple[torch.Tensor, ...]
    sealed: tuple[torch.Tensor, ...] = ()
    blocks: BlockTransform | None = None
    channels: ChannelKey | None = None
    edit: EditKey | None = None

    @classmethod
    def of_blocks(cls, transform: BlockTransform | None) -> Self:
        """The secret of a lock without a code."""
        return cls(torch.zeros(0, dtype=torch.int8), torch.zeros(0, dtype=torch.uint8), (), (), transform)

    @classmethod
    def of_channels(cls, key: ChannelKey) -> Self:
        """The secret of a lock that permutes feature maps and has no code."""
        return replace(cls.of_blocks(None), channels=key)

    @classmethod
    def of_edit(cls, key: EditKey) -> Self:
        """The secret of a ModelLock."""
        return replace(cls.of_blocks(None), edit=key)

    @classmethod
    def of_patch(cls, pixels: torch.Tensor) -> Self:
        """The secret of a detector lock: a patch without a code, (C, k, k) uint8."""
        return replace(cls.of_blocks(None), patch=pixels.flatten())

    def __repr__(self) -> str:
        others = "".join(f", {key!r}" for key in (self.blocks, self.channels, self.edit) if key is not None)
        return f"LockSecret({len(self.code)} bits, {len(self.means)} gates{others})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a lock secret is not pickled; write it to a vault")

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Named arrays for the vault."""
        means = {f"mean_{index}": mean.numpy() for index, mean in enumerate(self.means)}
        sealed = {f"sealed_{index}": value.contiguous().numpy() for index, value in enumerate(self.sealed)}
        own = {"code": self.code.numpy(), "patch": self.patch.numpy(), **means, **sealed}
        keys = [key.to_arrays() for key in (self.blocks, self.channels, self.edit) if key is not None]
        return {name: array for arrays in (own, *keys) for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Self:
        """Read what `to_arrays` gave.

        Raises:
            FormatError: If an array is missing.
        """
        if not {"code", "patch"} <= arrays.keys():
            raise FormatError("the vault holds no lock secret", hint="use the vault that `keylatch lock` wrote")
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
        means, sealed = (_numbered(tensors, name) for name in ("mean", "sealed"))
        keyed = any(name.startswith("blocks.") for name in arrays)
        blocks = BlockTransform.from_arrays(arrays) if keyed else None
        channels = ChannelKey.from_arrays(arrays) if has_channel_key(arrays) else None
        edit = EditKey.from_arrays(arrays) if has_edit_key(arrays) else None
        return cls(tensors["code"], tensors["patch"], means, sealed, blocks, channels, edit)


def _numbered(tensors: Mapping[str, torch.Tensor], prefix: str) -> tuple[torch.Tensor, ...]:
    names = [f"{prefix}_{index}" for index in range(sum(name.startswith(f"{prefix}_") for name in tensors))]
    if not set(names) <= tensors.keys():
        raise FormatError(f"the vault lacks a {prefix} tensor", hint="use the vault that `keylatch lock` wrote")
    return tuple(tensors[name] for name in names)
