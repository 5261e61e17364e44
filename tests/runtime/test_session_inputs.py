"""Inputs that a model does not take: errors that say what it does; everything else as in onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from runtime_world import LockedModel, same

from keylatch.errors import InputError
from keylatch.runtime import GRAPH_NAME, InferenceSession

WRONG: dict[str, tuple[Callable[[Any], dict[str, Any]], str, str]] = {
    "float64": (lambda x: {"image": x.astype(np.float64)}, "dtype float64, expected float32", "x.astype('float32')"),
    "uint8": (lambda x: {"image": x.astype(np.uint8)}, "dtype uint8, expected float32", "x.astype('float32')"),
    "int64": (lambda x: {"image": x.astype(np.int64)}, "dtype int64, expected float32", "x.astype('float32')"),
    "one row less": (lambda x: {"image": x[:, :, 1:]}, "shape (3, 3, 31, 32), expected (batch, 3, 32, 32)", "batch"),
    "channels last": (
        lambda x: {"image": x.transpose(0, 2, 3, 1)}, "shape (3, 32, 32, 3), expected (batch, 3, 32, 32)", "batch",
    ),
    "no batch": (lambda x: {"image": x[0]}, "shape (3, 32, 32), expected (batch, 3, 32, 32)", "x[None]"),
    "flat": (lambda x: {"image": x.ravel()}, "expected (batch, 3, 32, 32)", "x[None]"),
    "a scalar": (lambda x: {"image": np.zeros((), np.float32)}, "shape (), expected (batch, 3, 32, 32)", "x[None]"),
    "no input": (lambda x: {}, "input 'image' is missing", "'image'"),
    "another name": (lambda x: {"data": x}, "no input 'data'", "'image'"),
    "one too many": (lambda x: {"image": x, "data": x}, "no input 'data'", "'image'"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_input_is_explained(made: LockedModel, case: str) -> None:
    feed, message, hint = WRONG[case]
    for session in (made.open(), InferenceSession.locked(made.path)):
        with pytest.raises(InputError) as caught:
            session.run(None, feed(made.images))
        assert message in caught.value.message
        assert hint in str(caught.value.hint)
        assert isinstance(caught.value, ValueError)
        assert caught.value.__cause__ is not None  # onnxruntime's own words stay within reach
    assert same(session.run(None, made.feed())[0], made.locked)


@pytest.mark.parametrize("case", WRONG)
def test_onnxruntime_refuses_the_same_inputs(made: LockedModel, case: str) -> None:
    stock = onnxruntime.InferenceSession(made.path / GRAPH_NAME)
    with pytest.raises(Exception):  # noqa: B017 - of which kind is onnxruntime's affair
        stock.run(None, WRONG[case][0](made.images))


RIGHT: dict[str, Callable[[Any], Any]] = {
    "a list": lambda x: x.tolist(),
    "an OrtValue": lambda x: onnxruntime.OrtValue.ortvalue_from_numpy(x),
    "another order in memory": lambda x: np.asfortranarray(x),
    "a view": lambda x: np.repeat(x, 2, axis=0)[::2],
    "read-only": lambda x: np.frombuffer(x.tobytes(), np.float32).reshape(x.shape),
    "big-endian": lambda x: x.astype(">f4"),
    "one image": lambda x: x[:1],
    "many images": lambda x: np.concatenate([x] * 5),
    "no image": lambda x: x[:0],
}


@pytest.mark.parametrize("case", RIGHT)
def test_what_onnxruntime_takes_is_taken(made: LockedModel, case: str) -> None:
    stock, locked = onnxruntime.InferenceSession(made.path / GRAPH_NAME), InferenceSession.locked(made.path)
    given = RIGHT[case](made.images)
    expected = stock.run(None, {"image": given})[0]
    assert np.array_equal(locked.run(None, {"image": given})[0], expected, equal_nan=True)
    assert made.open().run(None, {"image": given})[0].shape == expected.shape


OTHER: dict[str, tuple[Any, Any]] = {
    "an unknown output": (["nothing"], lambda x: {"image": x}),
    "an output name that is no list": ("output", lambda x: {"image": x}),
    "a string for an image": (None, lambda x: {"image": "x"}),
    "a list of another length": (None, lambda x: {"image": x[0].tolist()}),
    "no dictionary": (None, lambda x: [x]),
}


@pytest.mark.parametrize("case", OTHER)
def test_other_mistakes_get_onnxruntime_s_own_error(made: LockedModel, case: str) -> None:
    names, feed = OTHER[case]
    with pytest.raises(Exception) as theirs:
        onnxruntime.InferenceSession(made.path / GRAPH_NAME).run(names, feed(made.images))
    with pytest.raises(Exception) as ours:
        made.open().run(names, feed(made.images))
    assert type(ours.value) is type(theirs.value)
    assert ours.value.__cause__ is None  # an error that is its own cause sends loggers into an endless loop
