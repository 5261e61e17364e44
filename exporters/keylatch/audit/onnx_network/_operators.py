"""The table of all operators that can be converted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from keylatch.audit.onnx_network import (  # noqa: F401
    _activations,
    _arithmetic,
    _attention,
    _convolution,
    _creation,
    _indexing,
    _layout,
    _logic,
    _normalization,
    _padding,
    _pooling,
    _quantization,
    _reductions,
    _resize,
    _selection,
    _sequences,
)
from keylatch.audit.onnx_network._graph import Node
from keylatch.audit.onnx_network._operator import TABLE, Operator
from keylatch.errors import InputError

OPERATORS: Mapping[str, Operator] = TABLE


def require_known(nodes: Iterable[Node]) -> None:
    """Refuse a graph with operators that are not in the table, all of them at once.

    Raises:
        InputError: If there are any.
    """
    unknown: dict[str, str] = {}
    for node in nodes:
        if node.op not in OPERATORS:
            unknown.setdefault(node.op, node.name)
    if unknown:
        listed = ", ".join(f"operator {op} of node {name}" for op, name in unknown.items())
        raise InputError(
            f"cannot convert {listed} to PyTorch",
            hint="export the network again with another opset, so that it decomposes them, or cut them off the graph",
        )
