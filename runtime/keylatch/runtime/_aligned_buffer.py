"""Memory that starts on a page, as a mapped file does: tensors keep the alignment they have in the file."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Buffer: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

_PAGE_BYTES = 4096


def aligned_buffer(size: int) -> Buffer:
    """An uninitialized buffer, (size,) uint8. NumPy's own start 16 bytes behind a page, off every cache line."""
    room: Buffer = np.empty(size + _PAGE_BYTES, dtype=np.uint8)
    start = -room.ctypes.data % _PAGE_BYTES
    return room[start : start + size]
