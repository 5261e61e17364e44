"""Clear errors for inputs that a model does not take; looked at only after onnxruntime has refused them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keylatch.errors import InputError

_NUMPY_TYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(uint8)": "uint8",
    "tensor(int8)": "int8", "tensor(int32)": "int32", "tensor(int64)": "int64", "tensor(bool)": "bool",
}  # fmt: skip


def explain_inputs(feed: Mapping[str, Any], inputs: Sequence[Any]) -> InputError | None:
    """The error that says what is wrong with a feed, or None if nothing is.

    Args:
        feed: Input name to array.
        inputs: The session's `get_inputs()`.
    """
    expected = {node.name: node for node in inputs}
    names = ", ".join(repr(name) for name in expected)
    for name in feed:
        if name not in expected:
            return InputError(f"the model has no input {name!r:.60}", hint=f"its inputs are {names}")
    for name, node in expected.items():
        if name not in feed:
            return InputError(f"input {name!r} is missing", hint=f"give a value for {names}")
        wrong = _explain(name, feed[name], node)
        if wrong is not None:
            return wrong
    return None


def _explain(name: str, value: Any, node: Any) -> InputError | None:
    if not isinstance(value, np.ndarray):
        return None  # an OrtValue, or something that onnxruntime converts
    dtype = _NUMPY_TYPES.get(node.type, node.type)
    if value.dtype.name != dtype:
        return InputError(
            f"input {name!r} has dtype {value.dtype.name}, expected {dtype}", hint=f"convert it: x.astype('{dtype}')"
        )
    shape = tuple(node.shape)
    fits = len(value.shape) == len(shape) and all(
        not isinstance(size, int) or size == got for size, got in zip(shape, value.shape, strict=True)
    )
    if fits:
        return None
    wanted = ", ".join(str(size) for size in shape)
    return InputError(
        f"input {name!r} has shape {tuple(value.shape)}, expected ({wanted})",
        hint="the first dimension is the batch; a single image needs x[None]",
    )
