"""Nodes that a detector lock adds to a captured graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from keylatch.locks._fold_batch_norm import add_parameter

aten = torch.ops.aten


def added(module: fx.GraphModule, before: fx.Node, target: Any, *arguments: Any) -> fx.Node:
    """A new node in front of another one."""
    with module.graph.inserting_before(before):
        return module.graph.call_function(target, arguments)


def with_parameter(module: fx.GraphModule, before: fx.Node, name: str, value: torch.Tensor) -> fx.Node:
    """A new parameter, and the node that reads it."""
    while hasattr(module, name):
        name += "_"
    return add_parameter(module, before, name, value.clone())


def picked(module: fx.GraphModule, before: fx.Node, value: fx.Node, axis: int, places: torch.Tensor) -> fx.Node:
    """Some places along a dimension."""
    name = "detector_places"
    module.register_buffer(name, places.clone())
    with module.graph.inserting_before(before):
        index = module.graph.get_attr(name)
    return added(module, before, aten.index_select.default, value, axis, index)


def shaped_for(
    module: fx.GraphModule, before: fx.Node, value: fx.Node, rank: int, channels: int, *, maps: bool
) -> fx.Node:
    """Values of channels, (N, C), in a shape that meets a batch of features.

    Args:
        module: The graph.
        before: In front of which node.
        value: (N, C).
        rank: Dimensions of the features.
        channels: C.
        maps: Whether the features are (N, C, ...), not (N, ..., C).
    """
    if rank == 2:
        return value
    ones = [1] * (rank - 2)
    shape = [-1, channels, *ones] if maps else [-1, *ones, channels]
    return added(module, before, aten.reshape.default, value, shape)
