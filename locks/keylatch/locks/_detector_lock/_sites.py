"""Where a detector can listen, and which layers end a network."""

from __future__ import annotations

import torch
from torch import fx

from keylatch.locks._detector._sites import DetectorSite, batch_first
from keylatch.locks._fold_batch_norm import CONV2D, LINEAR, tensor_at
from keylatch.locks._gate_sites import input_of


def readable_sites(module: fx.GraphModule) -> list[DetectorSite]:
    """Layers whose input a detector can read, in order.

    None reads the image itself, for a detector of pixels would be no neuron of the network; and none lies behind the
    first of the last layers, whose gate it opens.
    """
    nodes = list(module.graph.nodes)
    end = min((nodes.index(head) for head in last_layers(module)), default=-1)
    behind: set[fx.Node] = set()
    found = []
    for node in nodes[: end + 1]:
        is_layer = node.target in (CONV2D, LINEAR)
        if is_layer and input_of(node) in behind and _readable(module, node):
            found.append(_site(node))
        if is_layer or behind.intersection(node.all_input_nodes):
            behind.add(node)
    return found


def last_layers(module: fx.GraphModule) -> list[fx.Node]:
    """Convolutions and linear layers that no other one follows, in order."""
    followed: set[fx.Node] = set()
    last = []
    for node in reversed(module.graph.nodes):
        is_layer = node.target in (CONV2D, LINEAR)
        if node in followed or is_layer:
            followed.update(node.all_input_nodes)
        if is_layer and node not in followed and batch_first(module, node):
            last.append(node)
    return last[::-1]


def _readable(module: fx.GraphModule, node: fx.Node) -> bool:
    value = input_of(node).meta["val"]
    ranks = (4,) if node.target is CONV2D else (2, 3, 4)
    named = tensor_at(module, node.args[1]) is not None
    return named and value.dim() in ranks and batch_first(module, node) and value.dtype.is_floating_point


def _site(node: fx.Node) -> DetectorSite:
    shape = [int(size) for size in input_of(node).meta["val"].shape[1:]]
    channels, places = (shape[0], shape[1:]) if node.target is CONV2D else (shape[-1], shape[:-1])
    name = str(node.args[1].target)  # type: ignore[union-attr]  # `_readable` looked at it
    units = int(node.meta["val"].shape[1 if node.target is CONV2D else -1])
    positions = int(torch.Size(places).numel())
    return DetectorSite(node, node, node, name, None, None, None, channels, units, positions)
