"""What holds for all tests; stands here so that pytest puts this folder on the import path, for `networks`."""

from __future__ import annotations

import functools
import gc
from collections import Counter
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from torch.onnx._internal.exporter import _registration

import networks


@pytest.hookimpl(trylast=True)  # tests that are deselected do not count
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of few tests go first, since those are the long tests: two processes then end at nearly the same time."""
    _skip_without_device(items)
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: tests[item.path])


def _skip_without_device(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` compute on a CUDA device: without one there is nothing that they could show."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_collection_finish() -> None:
    """8,000 tests and torch's modules live to the end: searching them for garbage again and again takes a tenth."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 10)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    with networks.one_thread():
        yield


@pytest.fixture(scope="session", autouse=True)
def _operators_are_read_once() -> Iterator[None]:
    """torch.onnx parses the source of its 500 operators at every export: half of a small network's time."""
    registry = _registration.ONNXRegistry
    read = staticmethod(functools.cache(registry.from_torchlib))
    with mock.patch.object(registry, "from_torchlib", read):
        yield
