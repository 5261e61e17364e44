"""Named numpy arrays to safetensors bytes and back, for secret values and vaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from keylatch.errors import FormatError
from keylatch.keys._encoding import parse_json_object

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

MAX_NAME_CHARACTERS = 512
# What ONNX, numpy and safetensors all have a type for.
DTYPES = frozenset(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()  # noqa: SIM905
)

# Asked first: NumPy spells a dtype's name in Python, which was a tenth of opening a license.
_NATIVE = frozenset(map(np.dtype, DTYPES))

# safetensors keeps its own metadata under this name.
_RESERVED = "__metadata__"
# In front of the header, which is JSON.
_LENGTH_BYTES = 8


def serialize_tensors(tensors: Mapping[str, Array]) -> bytes:
    """Returns safetensors bytes, tensors in the order of their names.

    Raises:
        FormatError: A name or dtype that cannot be stored.
    """
    return bytes(safetensors.numpy.save({name: _storable(name, tensors[name]) for name in sorted(tensors)}))


def parse_tensors(data: bytes) -> dict[str, Array]:
    """Reads safetensors bytes.

    Raises:
        FormatError: Not safetensors, or a dtype not in `DTYPES`.
    """
    _check_names_differ(data)
    try:
        tensors: dict[str, Array] = safetensors.numpy.load(data)
    except (SafetensorError, ValueError, TypeError, KeyError):
        # KeyError: a dtype that safetensors has and numpy has not, such as BF16.
        raise FormatError("not safetensors that numpy can read", hint="get an undamaged copy of the file") from None
    for name, tensor in tensors.items():
        check_tensor(name, tensor)
    return tensors


def _check_names_differ(data: bytes) -> None:
    # safetensors takes a name twice if both entries are the same: two encodings of one set of tensors.
    header_bytes = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if len(data) - _LENGTH_BYTES >= header_bytes:  # else safetensors says what is wrong
        parse_json_object(data[_LENGTH_BYTES : _LENGTH_BYTES + header_bytes], "safetensors header")


def check_tensor(name: str, tensor: object) -> None:
    """Refuses what cannot be stored.

    Raises:
        FormatError: A name that is empty, too long, reserved or unprintable; a value that is no array of `DTYPES`.
    """
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS or name == _RESERVED or not name.isprintable():
        hint = f"name it with 1 to {MAX_NAME_CHARACTERS} printable characters"
        raise FormatError(f"tensor name {name!a:.40} cannot be stored", hint=hint)
    if isinstance(tensor, np.ndarray) and tensor.dtype in _NATIVE:
        return
    if not isinstance(tensor, np.ndarray) or tensor.dtype.name not in DTYPES:
        kind = tensor.dtype.name if isinstance(tensor, np.ndarray) else type(tensor).__name__
        hint = f"give a numpy array of one of {', '.join(sorted(DTYPES))}"
        raise FormatError(f"tensor {name} is a {kind}, which cannot be stored", hint=hint)


def _storable(name: str, tensor: Array) -> Array:
    check_tensor(name, tensor)
    # safetensors reads the memory as it lies: a transposed or big-endian array would be stored wrongly. asarray, not
    # ascontiguousarray, which turns a scalar into a vector.
    return np.asarray(tensor, dtype=tensor.dtype.newbyteorder("<"), order="C")
