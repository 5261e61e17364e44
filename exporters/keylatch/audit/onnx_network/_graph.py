"""Nodes of an ONNX graph: which are alive, and what the initializers are for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

WEIGHT_POSITIONS: Mapping[str, frozenset[int]] = {
    "Conv": frozenset({1, 2}),
    "ConvTranspose": frozenset({1, 2}),
    "Gemm": frozenset({1, 2}),
    "MatMul": frozenset({1}),
    "PRelu": frozenset({1}),
    "BatchNormalization": frozenset({1, 2}),
    "InstanceNormalization": frozenset({1, 2}),
    "GroupNormalization": frozenset({1, 2}),
    "LayerNormalization": frozenset({1, 2}),
    "RMSNormalization": frozenset({1}),
}
_STATISTICS = {"BatchNormalization": frozenset({3, 4})}
_CARRIERS = frozenset({"Identity", "Cast"})  # exporters put these between an initializer and its layer


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of the graph.

    Attributes:
        name: The node's name, or its first output's if it has none.
        op: Operator type; with ``domain::`` before it outside the standard domain.
        inputs: Value names; ``""`` for an absent optional input.
        outputs: Value names; ``""`` for one that nobody wants.
        attributes: Numbers, strings, tuples of them, and tensors.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Graph:
    """An ONNX graph, its tensors loaded.

    Attributes:
        nodes: In topological order, only those that an output needs.
        input_name: The image.
        output_names: At least one.
        tensors: Initializers and constants that the nodes read, by value name.
        opset: Version of the standard operator set.
    """

    nodes: tuple[Node, ...]
    input_name: str
    output_names: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    opset: int


@dataclass(frozen=True, slots=True)
class Roles:
    """What becomes of the initializers.

    Attributes:
        trainable: Parameters.
        buffers: Tensors that move with the network but are not trained: frozen ones and running statistics.
        constants: All others: integers, scalars, sizes. They are read when a plan is made.
    """

    trainable: frozenset[str]
    buffers: frozenset[str]
    constants: frozenset[str]


def live_nodes(nodes: Sequence[Node], outputs: Iterable[str]) -> tuple[Node, ...]:
    """The nodes that these outputs need, in the given order, which must be topological."""
    wanted, alive = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(name for name in node.outputs if name):
            alive.append(node)
            wanted.update(node.inputs)
    return tuple(reversed(alive))


def initializer_roles(graph: Graph, frozen: Collection[str], host_inputs: Mapping[str, frozenset[int]]) -> Roles:
    """Decide which initializers are trained.

    A float initializer is a weight unless it is frozen, a running statistic, used for sizes only, or a single number
    that no layer takes for its weight: such numbers are epsilons and limits.

    Args:
        graph: The graph.
        frozen: Initializers that must not be trained.
        host_inputs: Input positions of each operator that take sizes, axes and the like.
    """
    sizes, statistics, weights = _host_only(graph, host_inputs), _used_at(graph, _STATISTICS), _single_weights(graph)
    trainable, buffers = set(), set()
    for name, tensor in graph.tensors.items():
        if name in frozen or (name in statistics and tensor.is_floating_point()):
            buffers.add(name)
        elif tensor.is_floating_point() and name not in sizes and (tensor.numel() > 1 or name in weights):
            trainable.add(name)
    return Roles(frozenset(trainable), frozenset(buffers), frozenset(set(graph.tensors) - trainable - buffers))


def _single_weights(graph: Graph) -> set[str]:
    return {name for name in _used_at(graph, WEIGHT_POSITIONS) if name in graph.tensors}


def _used_at(graph: Graph, positions: Mapping[str, frozenset[int]]) -> set[str]:
    """Values that are read at these positions, directly or through identities and casts."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op in _CARRIERS and found.intersection(node.outputs):
            found.add(node.inputs[0])
        found.update(node.inputs[place] for place in positions.get(node.op, ()) if place < len(node.inputs))
    return found - {""}


def _host_only(graph: Graph, host_inputs: Mapping[str, frozenset[int]]) -> set[str]:
    """Values that decide about sizes alone, as the scales of a Resize do."""
    as_data, anywhere = set(graph.output_names), set()
    for node in reversed(graph.nodes):
        for_sizes = not as_data.intersection(node.outputs)
        for place, name in enumerate(node.inputs):
            anywhere.add(name)
            if place not in host_inputs.get(node.op, ()) and not for_sizes:
                as_data.add(name)
    return anywhere - as_data
