"""Decisions drawn from a fuzzer's bytes, front to back; when they run out, everything is zero.

In place of Atheris's FuzzedDataProvider, so that a harness replays its corpus where Atheris is not installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


class ByteSource:
    """What one input decides."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data, self._position = data, 0

    def __bool__(self) -> bool:
        return self._position < len(self._data)

    def take(self, count: int) -> bytes:
        """Up to `count` bytes."""
        taken = self._data[self._position : self._position + count]
        self._position += len(taken)
        return taken

    def rest(self) -> bytes:
        """All bytes that are left."""
        return self.take(len(self._data))

    def below(self, bound: int) -> int:
        """An integer from 0 to `bound` - 1; 0 if `bound` is 0."""
        if bound <= 1:
            return 0
        return int.from_bytes(self.take(((bound - 1).bit_length() + 7) // 8), "big") % bound

    def choose(self, options: Sequence[_T]) -> _T:
        """One of `options`."""
        return options[self.below(len(options))]
