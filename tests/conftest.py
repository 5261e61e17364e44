"""What holds for all tests; stands here so that pytest puts this folder on the import path, for `networks`."""

from __future__ import annotations

import functools
import gc
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from onnxscript.rewriter import _basics, _matcher
from torch._export import utils as export_utils
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


@pytest.fixture(scope="session", autouse=True)
def _operators_are_looked_up_once() -> Iterator[None]:
    """torch.export looks up its composite operators 54 times an export; torch would not see those registered later."""
    find = functools.cache(export_utils._materialize_cpp_cia_ops)
    with mock.patch.object(export_utils, "_materialize_cpp_cia_ops", find):
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_match_is_tried_that_cannot_be() -> Iterator[None]:
    """onnxscript's patterns with several outputs read the whole graph at each node before they look at the node."""
    match = _matcher.SimplePatternMatcher.match

    def matched(self: Any, model: Any, graph: Any, node: Any, **options: Any) -> Any:
        wanted = self.pattern.output_nodes[0].op_identifier()
        if not self.pattern.has_single_output_node and wanted not in (None, node.op_identifier()):
            return _basics.MatchResult().fail("another operator")
        return match(self, model, graph, node, **options)

    with mock.patch.object(_matcher.SimplePatternMatcher, "match", matched):
        yield
