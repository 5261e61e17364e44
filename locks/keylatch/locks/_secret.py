"""The secret of a lock."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn, Self

import numpy as np
import numpy.typing as npt
import torch

from keylatch.errors import FormatError, LockError
from keylatch.locks._block_transform import BlockTransform
from keylatch.locks._channel_key import ChannelKey, has_channel_key
from keylatch.locks._model_lock._edit_key import EditKey, has_edit_key

DOMAIN = "domain."


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
        withheld: The original weights of withheld parts, float32, in the order of the parts.
        domains: For each domain the places where its mask withholds a weight: bool, of the shapes of `sealed` and
            then of `withheld`.
        edit: The key of an edit, if there is one.
    """

    code: torch.Tensor
    patch: torch.Tensor
    means: tuple[torch.Tensor, ...]
    sealed: tuple[torch.Tensor, ...] = ()
    blocks: BlockTransform | None = None
    channels: ChannelKey | None = None
    withheld: tuple[torch.Tensor, ...] = ()
    domains: Mapping[str, tuple[torch.Tensor, ...]] = field(default_factory=dict)
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

    @classmethod
    def of_parts(cls, withheld: tuple[torch.Tensor, ...]) -> Self:
        """The secret of a lock that only withholds weights."""
        return replace(cls.of_blocks(None), withheld=withheld)

    def for_domains(self, paid: Collection[str]) -> Self:
        """What a license for some domains carries: weights that an unpaid domain's mask covers are zero.

        Args:
            paid: Names of domains.

        Raises:
            LockError: If there is no such domain.
        """
        unknown = sorted(set(paid) - set(self.domains))
        if unknown:
            raise LockError(
                f"there is no domain {unknown[0]!r:.40}",
                hint=f"the domains are {', '.join(sorted(self.domains)) or 'none: this lock has no domains'}",
            )
        values = (*self.sealed, *self.withheld)
        for name, masks in self.domains.items():
            if name not in paid:
                values = tuple(value.masked_fill(mask, 0) for value, mask in zip(values, masks, strict=True))
        return replace(self, sealed=values[: len(self.sealed)], withheld=values[len(self.sealed) :])

    def __repr__(self) -> str:
        others = "".join(f", {key!r}" for key in (self.blocks, self.channels, self.edit) if key is not None)
        return f"LockSecret({len(self.code)} bits, {len(self.means)} gates{others})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a lock secret is not pickled; write it to a vault")

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Named arrays for the vault."""
        means = {f"mean_{index}": mean.numpy() for index, mean in enumerate(self.means)}
        sealed = {f"sealed_{index}": value.contiguous().numpy() for index, value in enumerate(self.sealed)}
        withheld = {f"withheld_{index}": value.contiguous().numpy() for index, value in enumerate(self.withheld)}
        masks = {
            f"{DOMAIN}{name}.{index}": mask.numpy()
            for name, masks in self.domains.items()
            for index, mask in enumerate(masks)
        }
        own = {"code": self.code.numpy(), "patch": self.patch.numpy(), **means, **sealed, **withheld, **masks}
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
        means, sealed, withheld = (_numbered(tensors, f"{name}_") for name in ("mean", "sealed", "withheld"))
        names = {name.removeprefix(DOMAIN).rpartition(".")[0] for name in tensors if name.startswith(DOMAIN)}
        domains = {name: _numbered(tensors, f"{DOMAIN}{name}.") for name in sorted(names)}
        keyed = any(name.startswith("blocks.") for name in arrays)
        blocks = BlockTransform.from_arrays(arrays) if keyed else None
        channels = ChannelKey.from_arrays(arrays) if has_channel_key(arrays) else None
        edit = EditKey.from_arrays(arrays) if has_edit_key(arrays) else None
        return cls(tensors["code"], tensors["patch"], means, sealed, blocks, channels, withheld, domains, edit)


def _numbered(tensors: Mapping[str, torch.Tensor], prefix: str) -> tuple[torch.Tensor, ...]:
    names = [f"{prefix}{index}" for index in range(sum(name.startswith(prefix) for name in tensors))]
    if not set(names) <= tensors.keys():
        raise FormatError(f"the vault lacks a tensor {prefix}N", hint="use the vault that `keylatch lock` wrote")
    return tuple(tensors[name] for name in names)
