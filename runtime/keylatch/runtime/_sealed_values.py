"""Withheld values that are too many for licenses: encrypted beside the model, under a key that licenses bring.

values.sealed is made as weights.sealed is (`_sealed_weights`), with a label of its own. Its plaintext is the values of
the gate tensors that the manifest says are in it, in the manifest's order, in C order, little-endian, each from a
multiple of 64 bytes on, zeros in between. They are decrypted into memory while a session is made and never written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from keylatch.runtime._aligned_buffer import Buffer

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

VALUES_KEY_NAME = "withheld_values.key"
VALUES_LABEL = b"keylatch/1 sealed values"
_ALIGNMENT_BYTES = 64


class Placed(Protocol):
    """A gate tensor: its name, dtype and shape."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


def values_bytes(tensors: Sequence[Placed]) -> int:
    """Size of the plaintext."""
    return max((end for _, _, end in _places(tensors)), default=0)


def pack_values(tensors: Sequence[Placed], values: Mapping[str, Array]) -> bytes:
    """The plaintext.

    Args:
        tensors: In the manifest's order.
        values: By name, in the dtypes and shapes of the tensors.
    """
    plain = bytearray(values_bytes(tensors))
    for tensor, start, end in _places(tensors):
        plain[start:end] = np.ascontiguousarray(values[tensor.name]).tobytes()
    return bytes(plain)


def unpack_values(tensors: Sequence[Placed], plain: Buffer) -> dict[str, Array]:
    """The values by name, as views of the plaintext."""
    return {
        tensor.name: plain[start:end].view(tensor.dtype).reshape(tensor.shape)
        for tensor, start, end in _places(tensors)
    }


def _places(tensors: Sequence[Placed]) -> Iterator[tuple[Placed, int, int]]:
    """Each tensor with its first byte and the one after its last."""
    end = 0
    for tensor in tensors:
        start = end + -end % _ALIGNMENT_BYTES
        end = start + math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
        yield tensor, start, end
