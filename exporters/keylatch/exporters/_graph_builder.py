"""Add nodes and branches to an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class GraphBuilder:
    """Adds nodes to a graph, with names that nothing else has.

    Args:
        graph: The graph.
        prefix: Of the names; a different one for each builder of a graph.
    """

    def __init__(self, graph: ir.Graph, prefix: str = "opened") -> None:
        self.graph, self._prefix = graph, prefix
        self._count = 0

    def name(self) -> str:
        """A new name."""
        self._count += 1
        return f"{self._prefix}_{self._count}"

    def add(self, op: str, *inputs: ir.Value, **attributes: int | Sequence[int]) -> ir.Value:
        """The output of a new node."""
        node = self.make(op, *inputs, **attributes)
        self.graph.append(node)
        return node.outputs[0]

    def make(self, op: str, *inputs: ir.Value, **attributes: int | Sequence[int]) -> ir.Node:
        """A node that is in no graph yet."""
        name = self.name()
        return ir.node(op, inputs, attributes, outputs=[ir.Value(name=name)], name=name)

    def constant(self, values: Sequence[int]) -> ir.Value:
        """A new initializer, (n,) int64."""
        return self.initializer(np.array(values, dtype=np.int64))

    def initializer(self, array: Array, name: str | None = None) -> ir.Value:
        """A new initializer of any shape and dtype, with a name of its own or one that is given."""
        return add_initializer(self.graph, name or self.name(), array)

    def copied(self, nodes: Iterable[ir.Node], replaced: Mapping[ir.Value, ir.Value]) -> dict[ir.Value, ir.Value]:
        """Copies of nodes, with other inputs; from each old value to its new one."""
        mapping: dict[ir.Value | None, ir.Value | None] = dict(replaced.items())
        for node in nodes:
            outputs = [ir.Value(name=self.name(), type=value.type) for value in node.outputs]
            copied = ir.Node(
                node.domain,
                node.op_type,
                [mapping.get(value, value) for value in node.inputs],
                list(node.attributes.values()),
                outputs=outputs,
                name=self.name(),
            )
            self.graph.append(copied)
            mapping.update(zip(node.outputs, outputs, strict=True))
        return {old: new for old, new in mapping.items() if old is not None and new is not None}

    def choose(
        self,
        condition: ir.Value,
        opened: ir.Graph,
        otherwise: Sequence[ir.Node],
        outputs: Sequence[ir.Value],
        *,
        free_batch: bool = False,
    ) -> list[ir.Value]:
        """Put an If in the place of some nodes, which become its other branch.

        Args:
            condition: The If's.
            opened: The branch for true.
            otherwise: Nodes of the graph; they leave it, and use its values still.
            outputs: Their values that are used outside.
            free_batch: Whether the branches have different batch dimensions.

        Returns:
            What stands for `outputs` outside.
        """
        inside, chosen = set(otherwise), []
        for value in outputs:
            sizes = None if value.shape is None else [None, *value.shape[1:]] if free_batch else list(value.shape)
            new = ir.Value(name=self.name(), type=value.type, shape=None if sizes is None else ir.Shape(sizes))
            for user, index in tuple(value.uses()):
                if user not in inside:
                    user.replace_input_with(index, new)
            for index, output in enumerate(self.graph.outputs):
                if output is value:
                    value.name, new.name = f"{value.name}_locked", value.name
                    self.graph.outputs[index] = new
            chosen.append(new)
        self.graph.remove(otherwise)
        branches = {
            "then_branch": opened,
            "else_branch": ir.Graph([], outputs, nodes=otherwise, name=f"{otherwise[0].name}_locked"),
        }
        self.graph.append(ir.node("If", [condition], branches, outputs=chosen, name=self.name()))
        return chosen


def add_initializer(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """A new initializer of a graph."""
    tensor = ir.tensor(array, name=name)
    shape = ir.Shape(array.shape)
    value = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def put_behind(graph: ir.Graph, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Put nodes that read a value behind the node that gives it; what the last of them gives takes its place elsewhere.

    Args:
        graph: Where that node stands.
        value: Not an input.
        nodes: In no graph yet; the last has one output, which has a type.
    """
    new, inside, source = nodes[-1].outputs[0], set(nodes), value.producer()
    if source is None:
        raise ValueError(f"{value.name} is given by no node")
    new.shape = value.shape
    for user, index in tuple(value.uses()):
        if user not in inside:
            user.replace_input_with(index, new)
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = new
    graph.insert_after(source, nodes)


def inverse_permutation(builder: GraphBuilder, permutation: ir.Value) -> ir.Value:
    """The inverse of a permutation (n,) int64: place permutation[k] holds k."""
    size = 0 if permutation.shape is None else int(str(permutation.shape[0]))
    places = builder.constant(range(size))
    return builder.add("ScatterElements", places, permutation, places)


def drop_unread(graph: ir.Graph, value: ir.Value) -> None:
    """Remove the nodes that nothing reads any more, from the one that gives `value` back."""
    waiting = [value, *(user.outputs[0] for user in value.consumers())]
    while waiting:
        node = waiting.pop().producer()
        if node is not None and node.graph is graph and not any(output.uses() for output in node.outputs):
            waiting.extend(found for found in node.inputs if found is not None)
            graph.remove(node, safe=True)


def drop_unused_initializers(graph: ir.Graph) -> None:
    """Drop what nodes that are gone have left: onnxruntime warns of each one whenever it opens the file."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
