"""Nodes that a detector lock adds to a captured graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from keylatch.locks._detector_lock._corner import CornerReader
from keylatch.locks._fold_batch_norm import CONV2D, add_parameter
from keylatch.locks._gate_sites import input_of

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


def corner_values(module: fx.GraphModule, reader: CornerReader) -> fx.Node:
    """What a detector reads, (N, m), in front of its layer: a later operator may change the input in place."""
    layer = reader.site.node
    source, maps = input_of(layer), layer.target is CONV2D
    rank = source.meta["val"].dim()
    if rank == 2:
        return source
    ends = (2, rank - 1) if maps else (1, rank - 2)
    flat = added(module, layer, aten.flatten.using_ints, source, *ends)
    name = "detector_places"
    module.register_buffer(name, reader.places.clone())
    with module.graph.inserting_before(layer):
        index = module.graph.get_attr(name)
    picked = added(module, layer, aten.index_select.default, flat, ends[0], index)
    return added(module, layer, aten.flatten.using_ints, picked, 1)


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
