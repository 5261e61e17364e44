"""Named arrays as headers: ``value: gate.patch uint8 [4] 5a11c377``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def value_headers(values: Mapping[str, Array]) -> tuple[tuple[str, str], ...]:
    """Returns a header for each array: its name, dtype, shape and little-endian bytes."""
    return tuple(
        ("value", f"{name} {value.dtype.name} {json.dumps(list(value.shape))} {value.tobytes().hex()}".rstrip())
        for name, value in sorted(values.items())
    )


def parse_values(headers: Iterable[str]) -> dict[str, Array]:
    """Reads what `value_headers` wrote."""
    values = {}
    for text in headers:
        name, _, rest = text.partition(" ")
        dtype, _, rest = rest.partition(" ")
        shape, _, data = rest.partition("]")
        values[name] = np.frombuffer(bytes.fromhex(data), np.dtype(dtype)).reshape(json.loads(shape + "]"))
    return values
