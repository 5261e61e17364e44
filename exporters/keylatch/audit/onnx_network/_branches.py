"""Branches that the file itself decides: an `If` whose condition follows from initializers becomes one of its branches.

Locked models have them (docs/decisions/0012): with the file's own gate tensors their gates are in force. onnxruntime
does the same when it opens or preprocesses a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from onnx import ModelProto, NodeProto, TensorProto, helper

from keylatch.audit.onnx_network._external_data import TensorReader, tensor_reader
from keylatch.audit.onnx_network._nodes import constant_tensor, parse_node
from keylatch.audit.onnx_network._operators import OPERATORS
from keylatch.audit.onnx_network._plan import Circumstances, make_plan

_LARGEST_CONDITION = 2**20  # elements of the initializers that a condition is computed from
_NO_IMAGE = "no image"


def taken_branches(graph: Any, read: TensorReader, opset: int) -> tuple[list[Any], list[Any]]:
    """Replace each `If` that the file decides by the nodes of its branch, nested ones too.

    Args:
        graph: An ONNX GraphProto; it stays as it is.
        read: Gives the value of an initializer.
        opset: Version of the standard operator set.

    Returns:
        Nodes and initializers. An `If` that depends on the image is still among the nodes, and so is what only the
        branches that were not taken needed.
    """
    taking = _Taking(graph, read, opset)
    taking.enter(graph.node, {})
    return taking.nodes, list(taking.tensors.values())


def without_branches(model: ModelProto) -> ModelProto:
    """A copy of a model, all its tensors inside, with the branches that it decides itself, and only what they need."""
    found = ModelProto()
    found.CopyFrom(model)
    opset = max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=1)
    nodes, tensors = taken_branches(model.graph, tensor_reader(None), opset)
    wanted, alive = {value.name for value in model.graph.output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            alive.append(node)
            wanted.update(_read_by(node))
    for field, kept in (("node", reversed(alive)), ("initializer", (one for one in tensors if one.name in wanted))):
        found.graph.ClearField(field)
        getattr(found.graph, field).extend(kept)
    return found


class _Taking:
    """Walks a graph and takes branches.

    Args:
        graph: The graph.
        read: Gives an initializer's value.
        opset: Version of the standard operator set.

    Attributes:
        nodes: What has been walked over.
        tensors: Initializers by name; those of branches that were taken come to them.
    """

    def __init__(self, graph: Any, read: TensorReader, opset: int) -> None:
        self.nodes: list[Any] = []
        self.tensors: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
        self._read, self._opset = read, opset
        self._values = {*self.tensors, *_outputs(graph.node), *(value.name for value in graph.input)}
        self._node_names = {node.name for node in graph.node}
        self._decided: dict[str, bool | None] = {}

    def enter(self, nodes: Iterable[Any], names: Mapping[str, str]) -> None:
        """Go on with some nodes.

        Args:
            nodes: In order.
            names: What values of theirs are called from now on, where that is something else.
        """
        for node in nodes:
            renamed = _renamed(node, names) if names else node
            branch = self._branch(renamed)
            if branch is None:
                self.nodes.append(renamed)
            else:
                self._take(branch, renamed)

    def _take(self, branch: Any, chosen: Any) -> None:
        place = next(name for name in chosen.output if name)
        # The other branch, or another If, may have the same names; outside, the If's own outputs are known.
        names: dict[str, str] = {}
        for inside, outside in zip(branch.output, chosen.output, strict=False):
            if outside and inside.name in _given(branch):
                names.setdefault(inside.name, outside)
        for name in _given(branch):
            if name not in names:
                names[name] = _unused(name, place, self._values)
        for tensor in branch.initializer:
            self.tensors[names[tensor.name]] = copied = TensorProto()
            copied.CopyFrom(tensor)
            copied.name = names[tensor.name]
        self.enter((self._own_name(node, place) for node in branch.node), names)
        for inside, outside in zip(branch.output, chosen.output, strict=False):
            source = names.get(inside.name, inside.name)
            if outside and source != outside:  # a value of the graph around, or one that is handed on twice
                self.nodes.append(helper.make_node("Identity", [source], [outside], name=outside))

    def _own_name(self, node: Any, place: str) -> Any:
        copied = NodeProto()
        copied.CopyFrom(node)
        copied.name = _unused(node.name, place, self._node_names) if node.name else ""
        return copied

    def _branch(self, node: Any) -> Any | None:
        if node.op_type != "If" or node.domain not in {"", "ai.onnx"} or not any(node.output):
            return None
        condition = node.input[0]
        if condition not in self._decided:
            self._decided[condition] = self._decide(condition)
        decided = self._decided[condition]
        wanted = None if decided is None else "then_branch" if decided else "else_branch"
        return next((entry.g for entry in node.attribute if entry.name == wanted), None)

    def _decide(self, condition: str) -> bool | None:
        """The value of a condition; None if it depends on more than initializers."""
        wanted, needed = {condition}, []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                needed.append(parse_node(node, self._read) if _computable(node) else None)
                wanted.update(node.input)
        nodes = [node for node in reversed(needed) if node is not None]
        made = {name for node in nodes for name in node.outputs}
        given = {name: self.tensors.get(name) for name in wanted - made - {""}}
        known = [tensor for tensor in given.values() if tensor is not None]
        if len(known) < len(given) or sum(_elements(tensor) for tensor in known) > _LARGEST_CONDITION:
            return None
        constants = {tensor.name: self._read(tensor) for tensor in known}
        constants.update((node.outputs[0], constant_tensor(node)) for node in nodes if node.op == "Constant")
        computed = [node for node in nodes if node.op != "Constant"]
        around = Circumstances(torch.device("cpu"), None, False, self._opset)
        plan = make_plan(computed, [condition], image=_NO_IMAGE, constants=constants, own={}, around=around)
        return bool(plan.run(torch.zeros(()), constants.__getitem__)[0].all())


def _computable(node: Any) -> bool:
    return node.domain in {"", "ai.onnx"} and (node.op_type in OPERATORS or node.op_type == "Constant")


def _elements(tensor: Any) -> int:
    return int(torch.Size(tensor.dims).numel())


def _unused(name: str, place: str, used: set[str]) -> str:
    """The name itself if nothing else has it, else one with the place in front; taken from now on."""
    while name in used:
        name = f"{place}/{name}"
    used.add(name)
    return name


def _outputs(nodes: Iterable[Any]) -> Iterator[str]:
    return (name for node in nodes for name in node.output if name)


def _given(graph: Any) -> list[str]:
    """The names that a branch gives itself."""
    return [*(tensor.name for tensor in graph.initializer), *_outputs(graph.node)]


def _inner(node: Any) -> list[Any]:
    return [graph for entry in node.attribute for graph in (*([entry.g] if entry.HasField("g") else []), *entry.graphs)]


def _read_by(node: Any) -> set[str]:
    """What a node reads, its inner graphs included; more, where these have names of their own."""
    names = set(node.input)
    for graph in _inner(node):
        names.update(output.name for output in graph.output)
        names.update(*(_read_by(inside) for inside in graph.node))
    return names


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    copied = NodeProto()
    copied.CopyFrom(node)
    copied.input[:] = [names.get(name, name) for name in node.input]
    copied.output[:] = [names.get(name, name) for name in node.output]
    for graph in _inner(copied):
        around = {name: names[name] for name in names.keys() - set(_given(graph))}
        renamed = [_renamed(inside, around) for inside in graph.node]
        graph.ClearField("node")
        graph.node.extend(renamed)
        for output in graph.output:
            output.name = around.get(output.name, output.name)
    return copied
