"""What an operator is told when it is built, and the table that builders are entered in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from keylatch.audit.onnx_network._graph import Node
from keylatch.errors import InputError

# Takes the node's inputs in order, None for absent ones; gives one tensor, or one for each output.
Operation: TypeAlias = Callable[..., Any]
Ints: TypeAlias = tuple[int, ...]
Number: TypeAlias = int | float | bool


@dataclass(frozen=True, slots=True)
class Site:
    """A node, and what is known before any image comes.

    Attributes:
        node: The node.
        opset: Version of the standard operator set.
        constants: Inputs that never change, by position; on the CPU.
        straight_through: Whether thresholds and rounding pass a surrogate gradient.
        float_dtype: What floats are cast to, when the network was; None: what the graph says.
    """

    node: Node
    opset: int
    constants: Mapping[int, Tensor]
    straight_through: bool = False
    float_dtype: torch.dtype | None = None

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute, or what it is if the node does not say."""
        return self.node.attributes.get(name, default)

    def has(self, position: int) -> bool:
        """Whether the optional input is there."""
        return position < len(self.node.inputs) and self.node.inputs[position] != ""

    def wants(self, position: int) -> bool:
        """Whether somebody names the optional output."""
        return position < len(self.node.outputs) and self.node.outputs[position] != ""

    def scalar(self, position: int) -> Number | None:
        """A constant input of one element as a number, else None."""
        constant = self.constants.get(position)
        return None if constant is None or constant.numel() != 1 else constant.item()

    def ints(self, name: str, position: int) -> Callable[[Tensor | None], Ints | None]:
        """A reader of whole numbers that are an attribute in old operator sets and an input in new ones.

        Args:
            name: The attribute.
            position: The input.

        Returns:
            Takes the input's value and gives the numbers; None if they are in neither place. What is known now is
            not read again.
        """
        fixed = self.attribute(name)
        if fixed is not None:
            return _always((fixed,) if isinstance(fixed, int) else tuple(fixed))
        if not self.has(position):
            return _always(None)
        if position in self.constants:
            return _always(as_ints(self.constants[position]))
        return _read_ints

    def dtype(self, onnx_type: int) -> torch.dtype:
        """The PyTorch type for an ONNX one; the network's own, for floats, when it was cast.

        Raises:
            InputError: If PyTorch has no such type.
        """
        dtype = DTYPES.get(onnx_type)
        if dtype is None:
            raise self.refusal(f"has the ONNX data type {onnx_type}, which PyTorch does not have")
        return self.float_dtype if self.float_dtype is not None and dtype.is_floating_point else dtype

    def refusal(self, what: str) -> InputError:
        """An error that names this node."""
        return InputError(
            f"cannot convert operator {self.node.op} of node {self.node.name} to PyTorch: it {what}",
            hint="export the network again with another opset, or simplify the graph first",
        )


@dataclass(frozen=True, slots=True)
class Operator:
    """How to build an operator.

    Attributes:
        build: Gives the callable of a node.
        host_inputs: Positions of inputs that say how, not what: shapes, axes, scales. They stay on the CPU.
    """

    build: Callable[[Site], Operation]
    host_inputs: frozenset[int]


# By ONNX data type (TensorProto.DataType).
DTYPES: Mapping[int, torch.dtype] = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 4: torch.uint16, 5: torch.int16, 6: torch.int32, 7: torch.int64,
    9: torch.bool, 10: torch.float16, 11: torch.float64, 12: torch.uint32, 13: torch.uint64, 16: torch.bfloat16,
}  # fmt: skip
TABLE: dict[str, Operator] = {}


def operator(
    *names: str, host_inputs: tuple[int, ...] = ()
) -> Callable[[Callable[[Site], Operation]], Callable[[Site], Operation]]:
    """Enter a builder in the table, under these ONNX operator types."""

    def enter(build: Callable[[Site], Operation]) -> Callable[[Site], Operation]:
        for name in names:
            TABLE[name] = Operator(build, frozenset(host_inputs))
        return build

    return enter


def elementwise(functions: Mapping[str, Operation]) -> None:
    """Enter functions that are the operator as they are."""
    for name, function in functions.items():
        TABLE[name] = Operator(lambda _site, function=function: function, frozenset())  # type: ignore[misc]


def as_ints(tensor: Tensor) -> Ints:
    """The whole numbers in a tensor, in order."""
    return tuple(int(number) for number in tensor.reshape(-1).tolist())


def _always(numbers: Ints | None) -> Callable[[Tensor | None], Ints | None]:
    return lambda _value: numbers


def _read_ints(value: Tensor | None) -> Ints | None:
    return None if value is None else as_ints(value)
