"""Single nodes: from protobufs to what the network is made of."""

from __future__ import annotations

from typing import Any

import torch
from onnx import AttributeProto
from torch import Tensor

from keylatch.audit.onnx_network._external_data import TensorReader
from keylatch.audit.onnx_network._graph import Node
from keylatch.errors import InputError


def parse_node(proto: Any, read: TensorReader) -> Node:
    """Read a NodeProto.

    Raises:
        InputError: If it has an attribute that PyTorch has no counterpart for.
    """
    op = proto.op_type if proto.domain in {"", "ai.onnx"} else f"{proto.domain}::{proto.op_type}"
    name = proto.name or next((output for output in proto.output if output), op)
    attributes = {entry.name: _attribute(entry, name, read) for entry in proto.attribute}
    return Node(name, op, tuple(proto.input), tuple(proto.output), attributes)


def _attribute(entry: Any, node: str, read: TensorReader) -> Any:
    match entry.type:
        case AttributeProto.FLOAT:
            return entry.f
        case AttributeProto.INT:
            return entry.i
        case AttributeProto.STRING:
            return str(entry.s, "utf-8", "replace")
        case AttributeProto.TENSOR:
            return read(entry.t)
        case AttributeProto.FLOATS | AttributeProto.INTS:
            return tuple(entry.floats) + tuple(entry.ints)
        case AttributeProto.STRINGS:
            return tuple(item.decode("utf-8", "replace") for item in entry.strings)
    raise InputError(f"the attribute {entry.name} of node {node} is of a kind that has no PyTorch counterpart")


def constant_tensor(node: Node) -> Tensor:
    """The tensor of a Constant node, which keeps it in an attribute."""
    kind, value = next(iter(node.attributes.items()), ("nothing", None))
    if isinstance(value, Tensor):
        return value
    if kind in {"value_float", "value_floats"}:
        return torch.tensor(value, dtype=torch.float32)
    if kind in {"value_int", "value_ints"}:
        return torch.tensor(value, dtype=torch.int64)
    raise InputError(f"the constant {node.name} holds {kind}, which PyTorch does not have")
