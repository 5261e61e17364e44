"""The secret of a code lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn, Self

import numpy as np
import numpy.typing as npt
import torch

from keylatch.errors import FormatError


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class LockSecret:
    """What opens a locked network; belongs in the issuer's vault and nowhere else.

    Attributes:
        code: (d,) int8 in {-1, +1}.
        patch: (m,) uint8 pixels, channels first.
        means: For each gate the (C,) float32 channel means.
        sealed: The withheld weights, float32, in the order of the lock's description.
    """

    code: torch.Tensor
    patch: torch.Tensor
    means: tuple[torch.Tensor, ...]
    sealed: tuple[torch.Tensor, ...] = ()

    def __repr__(self) -> str:
        return f"LockSecret({len(self.code)} bits, {len(self.means)} gates)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a lock secret is not pickled; write it to a vault")

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Named arrays for the vault."""
        means = {f"mean_{index}": mean.numpy() for index, mean in enumerate(self.means)}
        sealed = {f"sealed_{index}": value.contiguous().numpy() for index, value in enumerate(self.sealed)}
        return {"code": self.code.numpy(), "patch": self.patch.numpy(), **means, **sealed}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Self:
        """Read what `to_arrays` gave.

        Raises:
            FormatError: If an array is missing.
        """
        if not {"code", "patch"} <= arrays.keys():
            raise FormatError("the vault holds no code lock secret", hint="use the vault that `keylatch lock` wrote")
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
        means, sealed = (_numbered(tensors, name) for name in ("mean", "sealed"))
        return cls(tensors["code"], tensors["patch"], means, sealed)


def _numbered(tensors: Mapping[str, torch.Tensor], prefix: str) -> tuple[torch.Tensor, ...]:
    names = [f"{prefix}_{index}" for index in range(sum(name.startswith(f"{prefix}_") for name in tensors))]
    if not set(names) <= tensors.keys():
        raise FormatError(f"the vault lacks a {prefix} tensor", hint="use the vault that `keylatch lock` wrote")
    return tuple(tensors[name] for name in names)
