"""The graph as a list of calls: what depends on no image is computed once, shape arithmetic stays on the CPU.

Values live in numbered slots. A value may have two: one on the CPU, for those who take sizes from it, and one on the
image's device. Whatever comes from `Shape` stays on the CPU until an operator wants it as data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from keylatch.audit.onnx_network._graph import Node
from keylatch.audit.onnx_network._operator import Operation, Site
from keylatch.audit.onnx_network._operators import OPERATORS
from keylatch.audit.onnx_network._rewiring import INSERTED

_SHAPE_OPERATORS = frozenset({"Shape", "Size"})
_LARGEST_FOLDED = 2**24  # elements; larger constants are computed again each time


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a plan is made for.

    Attributes:
        device: Of the image.
        float_dtype: What the network's floats were cast to; None if they are as in the file.
        straight_through: Whether thresholds pass a surrogate gradient.
        opset: Version of the standard operator set.
    """

    device: torch.device
    float_dtype: torch.dtype | None
    straight_through: bool
    opset: int


@dataclass(frozen=True, slots=True)
class Step:
    """One call.

    Attributes:
        run: Takes the inputs' values.
        inputs: Their slots.
        outputs: Slots of the results; one: `run` gives a tensor. Several: a tuple. -1: nobody wants it.
        spent: Slots whose values nobody reads later.
        name: The node's.
    """

    run: Operation
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    spent: tuple[int, ...]
    name: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Calls in order.

    Attributes:
        slots: Initial values: constants where they belong, else None.
        image: Slot of the image.
        feeds: Slots of tensors that are asked for anew each time, with their names.
        steps: The calls.
        wanted: Slots of the results.
    """

    slots: tuple[Tensor | None, ...]
    image: int
    feeds: tuple[tuple[int, str], ...]
    steps: tuple[Step, ...]
    wanted: tuple[int, ...]

    def run(self, image: Tensor, tensor: Callable[[str], Tensor]) -> list[Tensor]:
        """Compute the wanted values.

        Args:
            image: The input.
            tensor: Gives the current value of a parameter or buffer.
        """
        values: list[Any] = list(self.slots)
        values[self.image] = image
        for slot, name in self.feeds:
            values[slot] = tensor(name)
        for step in self.steps:
            try:
                result = step.run(*[values[slot] for slot in step.inputs])
            except Exception as error:  # goes on as it is: torch raises any kind, and none says in which node
                error.add_note(f"in node {step.name} of the ONNX graph")
                raise
            if len(step.outputs) == 1:
                values[step.outputs[0]] = result
            else:
                for slot, value in zip(step.outputs, result, strict=False):
                    if slot >= 0:
                        values[slot] = value
            for slot in step.spent:
                values[slot] = None
        return [values[slot] for slot in self.wanted]


def make_plan(
    nodes: Sequence[Node],
    wanted: Sequence[str],
    *,
    image: str,
    constants: Mapping[str, Tensor],
    own: Mapping[str, Operation],
    around: Circumstances,
) -> Plan:
    """Make a plan.

    Args:
        nodes: In an order in which they can be run, with inputs resolved.
        wanted: Values to compute.
        image: Name of the input.
        constants: Tensors that never change. Every other value that no node gives is asked for at each run.
        own: Inserted modules, by node name.
        around: What for.
    """
    planning = _Planning(image, dict(constants), own, around)
    for node in nodes:
        planning.enter(node)
    slots = [planning.slot(name, host=False) for name in wanted]
    return planning.finish(slots)


@dataclass(slots=True)
class _Planning:
    """A plan in the making.

    Attributes:
        image: Name of the input.
        constants: Known values, grown by folding.
        own: Inserted modules, by node name.
        around: What for.
        host: Values that come from shapes and stay on the CPU.
        device: Values that nodes give on the image's device.
    """

    image: str
    constants: dict[str, Any]
    own: Mapping[str, Operation]
    around: Circumstances
    host: set[str] = field(default_factory=set)
    device: set[str] = field(default_factory=set)
    places: dict[tuple[str, bool], int] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)
    feeds: list[tuple[int, str]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def enter(self, node: Node) -> None:
        present = [name for name in node.inputs if name]
        inserted = node.op == INSERTED
        if not inserted and all(name in self.constants for name in present) and self._fold(node):
            return
        on_host = node.op in _SHAPE_OPERATORS or (
            not inserted and all(name in self.constants or name in self.host for name in present)
        )
        (self.host if on_host else self.device).update(name for name in node.outputs if name)
        lanes = [
            (on_host and node.op not in _SHAPE_OPERATORS) or place in self._asks(node)
            for place in range(len(node.inputs))
        ]
        inputs = tuple(self._input(name, host=lane) for name, lane in zip(node.inputs, lanes, strict=True))
        outputs = tuple(self._new_slot(name, host=on_host) if name else -1 for name in node.outputs)
        self.steps.append(Step(self._operation(node, host=on_host), inputs, outputs, (), node.name))

    def slot(self, name: str, *, host: bool) -> int:
        """The slot of a value on the CPU or on the device; made if need be."""
        host = host and name not in self.device and (name in self.constants or name in self.host)
        if (name, host) not in self.places:
            self._bring(name, host=host)
        return self.places[name, host]

    def finish(self, wanted: list[int]) -> Plan:
        """Let go of values after their last use, and seal the plan."""
        image = self.slot(self.image, host=False)
        kept = {image, *wanted, *(slot for slot, _ in self.feeds)}
        kept.update(slot for slot, value in enumerate(self.values) if value is not None)
        steps = []
        for step in reversed(self.steps):
            spent = {slot for slot in (*step.inputs, *step.outputs) if slot >= 0} - kept
            kept |= spent
            steps.append(Step(step.run, step.inputs, step.outputs, tuple(sorted(spent)), step.name))
        return Plan(tuple(self.values), image, tuple(self.feeds), tuple(reversed(steps)), tuple(wanted))

    def _asks(self, node: Node) -> frozenset[int]:
        return frozenset() if node.op == INSERTED else OPERATORS[node.op].host_inputs

    def _input(self, name: str, *, host: bool) -> int:
        return self.slot(name, host=host) if name else self._absent()

    def _absent(self) -> int:
        return self.places.get(("", False)) or self._new_slot("", host=False)

    def _bring(self, name: str, *, host: bool) -> None:
        """Make a slot for a value that stands elsewhere: a constant, the image, a tensor, or on the CPU."""
        if name in self.constants:
            value = self.constants[name]
            self.values[self._new_slot(name, host=host)] = value if host else self._moved(value)
        elif name in self.host and not host:
            source, target = self.places[name, True], self._new_slot(name, host=False)
            self.steps.append(Step(self._moved, (source,), (target,), (), f"of {name}"))
        else:
            slot = self._new_slot(name, host=host)
            if name != self.image:
                self.feeds.append((slot, name))

    def _new_slot(self, name: str, *, host: bool) -> int:
        self.values.append(None)
        self.places[name, host] = len(self.values) - 1
        return len(self.values) - 1

    def _moved(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._moved(item) for item in value]
        floating = value.is_floating_point() and self.around.float_dtype is not None
        return value.to(self.around.device, self.around.float_dtype if floating else value.dtype)

    def _operation(self, node: Node, *, host: bool) -> Operation:
        if node.op == INSERTED:
            return self.own[node.name]
        constants = {place: self.constants[name] for place, name in enumerate(node.inputs) if name in self.constants}
        tensors = {place: value for place, value in constants.items() if isinstance(value, Tensor)}
        # On the CPU all is exact: sizes computed in bfloat16 would be wrong.
        surrogate = self.around.straight_through and not host
        dtype = None if host else self.around.float_dtype
        return OPERATORS[node.op].build(Site(node, self.around.opset, tensors, surrogate, dtype))

    def _fold(self, node: Node) -> bool:
        """Compute a node that depends on constants alone; whether that was done."""
        if not any(node.inputs):
            return False
        with torch.no_grad():
            result = self._operation(node, host=True)(*[self.constants[name] if name else None for name in node.inputs])
        results = (result,) if len(node.outputs) == 1 else tuple(result)
        if sum(value.numel() for value in results if isinstance(value, Tensor)) > _LARGEST_FOLDED:
            return False
        self.constants.update((name, value) for name, value in zip(node.outputs, results, strict=False) if name)
        return True
