"""A locked network in bfloat16: what is rounded, and what stays float32.

Weights in the file are bfloat16. Gate tensors stay float32, there and in licenses, each behind a Cast of the graph:
NumPy has no bfloat16, and so no format of ours needs one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from keylatch.errors import ExportError
from keylatch.exporters._graph_builder import GraphBuilder, add_initializer
from keylatch.exporters._onnx_program import InPrecision
from keylatch.locks import InputSpec, LockedModule, LockSecret
from keylatch.locks._capture import capture
from keylatch.locks._fold_batch_norm import fold_batch_norms

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

OPSET = 22  # the first in which Conv, pooling and HardSwish take bfloat16 (ONNX 1.17)
_BODY = "body."


def require_opset(opset: int | None) -> int:
    """The operator set to export with.

    Raises:
        ExportError: If the one that was asked for is older than `OPSET`.
    """
    if opset is not None and opset < OPSET:
        raise ExportError(
            f"opset {opset} has no convolutions in bfloat16, expected {OPSET} or newer", hint="leave opset out"
        )
    return opset or OPSET


def rounded(module: LockedModule, secret: LockSecret) -> tuple[LockedModule, LockSecret]:
    """The float32 network that a bfloat16 export stands for, and its secret: weights rounded to bfloat16.

    Normalizations are folded first: an exporter would fold them in bfloat16.

    Args:
        module: The locked module, float32 on the CPU; it is not changed.
        secret: What opens it.

    Raises:
        LockError: If the secret is that of another lock, or a normalization cannot be folded.
    """
    made, restored = copy.deepcopy(module), copy.deepcopy(module)
    values = restored.secret_values(secret)
    restored.withheld.write(restored.body, {name: values[name] for name in restored.withheld.names()})
    for each in (made, restored):
        fold_batch_norms(each.body)
    withheld = tuple(_rounded(value) for value in restored.withheld.read(restored.body).values())
    exact = {name.removeprefix(_BODY) for name in made.gate_names()}
    for name, value in (*made.body.named_parameters(), *made.body.named_buffers()):
        if name not in exact and value.is_floating_point():
            value.data = _rounded(value.data)
    return made, replace(secret, withheld=withheld)


def _rounded(value: torch.Tensor) -> torch.Tensor:
    return value.bfloat16().to(value.dtype)


def in_bfloat16(module: LockedModule) -> LockedModule:
    """A copy that computes in bfloat16, but for reading codes and for preprocessing."""
    made = copy.deepcopy(module)
    preprocess, made.preprocess = made.preprocess, None
    made.bfloat16()
    made.preprocess = preprocess
    return made


def plain_in_bfloat16(model: nn.Module, spec: InputSpec) -> nn.Module:
    """A copy of a network without any lock that computes in bfloat16, its normalizations folded, images float32."""
    graph, _ = capture(model, spec)
    fold_batch_norms(graph)
    return InPrecision(graph, "bfloat16")


def carry_in_float32(model: ir.Model, module: LockedModule, values: Mapping[str, Array]) -> dict[str, Array]:
    """Put gate tensors back as float32, in place.

    Args:
        model: As `to_onnx` gives it for `in_bfloat16(module)`, withheld weights put in.
        module: From `rounded`.
        values: The secret values by gate tensor name.

    Returns:
        The secret values, float32 where they were bfloat16.
    """
    graph, parts = model.graph, set(module.withheld.names())
    found = {name: value.numpy() for name, value in module.gate_tensors().items() if name not in parts}
    builder = GraphBuilder(graph, "carried")
    for name in values:
        old = graph.initializers.get(name)
        if old is not None and old.dtype == ir.DataType.BFLOAT16 and old.const_value is not None:
            _carry(builder, old, found.get(name, old.const_value.numpy()).astype(np.float32))
    graph.sort()
    return {name: _widened(value) for name, value in values.items()}


def _widened(value: Array) -> Array:
    return value.astype(np.float32) if value.dtype.name == "bfloat16" else value


def _carry(builder: GraphBuilder, old: ir.Value, exact: Array) -> None:
    name, shape = str(old.name), old.shape
    assert shape is not None  # noqa: S101  initializers have one
    uses = tuple(old.uses())
    del builder.graph.initializers[name]
    carried = add_initializer(builder.graph, name, exact.reshape(tuple(int(str(size)) for size in shape)))
    cast = builder.add("Cast", carried, to=int(ir.DataType.BFLOAT16))
    cast.type, cast.shape = old.type, shape
    for user, index in uses:
        user.replace_input_with(index, cast)
