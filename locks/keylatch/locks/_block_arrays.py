"""The key of a block transform as named arrays, the form that a vault stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch

from keylatch.errors import FormatError, LockError
from keylatch.locks._block_key_space import Step, require_steps
from keylatch.locks._block_layout import block_entries
from keylatch.locks._ffx import LARGEST_NUMBER

Arrays: TypeAlias = Mapping[str, npt.NDArray[np.generic]]
KeyTensors: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]

_DTYPES = {"steps": "uint8", "size": "int64"}
_KEY_DTYPES = {"permutation": "int64", "negated": "bool", "encrypted": "bool", "table": "int16"}
_HINT = "use the vault that `keylatch lock` wrote"


def arrays_of(steps: Sequence[Step], block_size: int, channels: int, key: KeyTensors) -> dict[str, npt.NDArray[Any]]:
    """Name a key's arrays.

    Args:
        steps: In the order applied; stored as ASCII, ``shf+np``.
        block_size: M.
        channels: Image channels.
        key: Permutation, negated, encrypted, table, on the CPU.
    """
    described: dict[str, npt.NDArray[Any]] = {
        "blocks.steps": np.array(list("+".join(steps).encode()), dtype=np.uint8),
        "blocks.size": np.array([block_size, channels], dtype=np.int64),
    }
    return described | {f"blocks.{name}": value.numpy() for name, value in zip(_KEY_DTYPES, key, strict=True)}


def parse_arrays(
    arrays: Arrays,
) -> tuple[tuple[Step, ...], int, int, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Read what `arrays_of` gave: the fields of a `BlockTransform`.

    Raises:
        FormatError: If an array is missing, or is not what `draw` could have given.
    """
    steps, block_size, channels, entries = _parse_description(arrays)
    shapes = {name: (256,) if name == "table" else (entries,) for name in _KEY_DTYPES}
    found = {name: _array(arrays, name, dtype, shapes[name]) for name, dtype in _KEY_DTYPES.items()}
    wrong = next((name for name, fits in _checks(steps, found) if not fits), None)
    if wrong is not None:
        raise FormatError(f"the vault's block key is damaged: {wrong} does not fit its steps", hint=_HINT)
    permutation, negated, encrypted, table = (torch.from_numpy(np.array(found[name])) for name in _KEY_DTYPES)
    return steps, block_size, channels, permutation, negated, encrypted, table


def _parse_description(arrays: Arrays) -> tuple[tuple[Step, ...], int, int, int]:
    named = _array(arrays, "steps", _DTYPES["steps"]).tobytes().decode("ascii", "replace")
    block_size, channels = (int(size) for size in _array(arrays, "size", _DTYPES["size"], (2,)))
    steps = cast(tuple[Step, ...], tuple(named.split("+")) if named else ())
    try:
        entries = block_entries(block_size, channels)
        if steps:
            require_steps(steps, block_size=block_size, channels=channels)
    except LockError as error:
        raise FormatError(f"the vault holds no block key: {error.message}", hint=_HINT) from None
    return steps, block_size, channels, entries


def _array(arrays: Arrays, name: str, dtype: str, shape: tuple[int, ...] | None = None) -> npt.NDArray[Any]:
    array = arrays.get(f"blocks.{name}")
    if array is None:
        raise FormatError("the vault holds no block key", hint=_HINT)
    if array.dtype.name != dtype or array.ndim != 1 or shape not in (None, array.shape):
        raise FormatError(
            f"the vault's block key has {name} {array.dtype.name} {array.shape}, expected {dtype} {shape or '(n,)'}",
            hint=_HINT,
        )
    return array


def _checks(steps: Sequence[Step], key: Mapping[str, npt.NDArray[Any]]) -> Iterator[tuple[str, bool]]:
    identity = np.arange(len(key["permutation"]))
    order = key["permutation"] if "shf" not in steps else np.sort(key["permutation"])
    half = len(identity) // 2
    yield "permutation", np.array_equal(order, identity)
    yield "negated", key["negated"].sum() == (half if "np" in steps else 0)
    yield "encrypted", key["encrypted"].sum() == (half if "ffx" in steps else 0)
    yield "table", _table_fits(key["table"]) if "ffx" in steps else np.array_equal(key["table"], np.arange(256))


def _table_fits(table: npt.NDArray[Any]) -> bool:
    return len(np.unique(table)) == len(table) and bool(table.min() >= 0 and table.max() <= LARGEST_NUMBER)
