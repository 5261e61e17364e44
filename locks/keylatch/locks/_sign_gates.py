"""Scramble the signs of chosen layers, and put in the gates that unscramble them.

Layer l gets g * (a - mu) instead of its input a; its weights become W diag(s), its bias b + W mu. With g = s this is
the original layer. mu keeps the bias from telling what the layer's mean output should be, from which the signs would
follow (docs/locks.md). mu itself is a gate tensor, kept out of the file: the mean of a later gated layer's input says
how the layers before it must behave.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import fx

from keylatch.locks._capture import image_node
from keylatch.locks._fold_batch_norm import CONV2D, LINEAR, set_bias, tensor_at, weight_of
from keylatch.locks._gate_sites import GateSite, padding_of
from keylatch.locks._randomness import SeededDraws

aten = torch.ops.aten


def mean_name(index: int) -> str:
    """Name of the buffer that holds the channel means of gate `index`."""
    return f"gate_mean_{index}"


def pad_explicitly(module: fx.GraphModule, sites: Sequence[GateSite]) -> None:
    """Move the zero padding of gated convolutions in front of the gate, which centers the border too."""
    for site in sites:
        rows, columns = padding_of(site.node)
        if rows or columns:
            with module.graph.inserting_before(site.node):
                pads = [columns, columns, rows, rows]
                padded = module.graph.call_function(aten.constant_pad_nd.default, (site.node.args[0], pads))
            weight, *options = site.node.args[1:]
            options = [*options, None, [1, 1]][: max(2, len(options))]
            site.node.args = (padded, weight, *options[:2], [0, 0], *options[3:])
    module.recompile()


def insert_gates(
    module: fx.GraphModule,
    sites: Sequence[GateSite],
    signs: torch.Tensor,
    means: Sequence[torch.Tensor],
    defaults: SeededDraws,
) -> None:
    """Scramble the layers in place and add the graph's second input, the signs.

    Args:
        module: Graph `(image) -> outputs`; becomes `(image, signs) -> outputs`.
        sites: The layers to gate.
        signs: (sum of channels,) the secret signs s, in the order of `sites`.
        means: For each site (C,) channel means; only used for the new bias.
        defaults: Public draws for the buffers. All zeros would do, but exporters merge equal tensors into one.
    """
    parts = _split_signs(module, [site.channels for site in sites])
    secrets = torch.split(signs, [site.channels for site in sites])
    for index, site in enumerate(sites):
        _scramble(module, site, secrets[index], means[index])
        _gate(module, site, parts[index], index, defaults.uniform(site.channels))
    module.graph.lint()
    module.recompile()


def _split_signs(module: fx.GraphModule, sizes: list[int]) -> list[fx.Node]:
    graph = module.graph
    with graph.inserting_after(image_node(graph)):
        signs = graph.placeholder("signs")
    with graph.inserting_after(signs):
        split = graph.call_function(aten.split_with_sizes.default, (signs, sizes, 1))
    parts = []
    after = split
    for index in range(len(sizes)):
        with graph.inserting_after(after):
            after = graph.call_function(operator.getitem, (split, index))
        parts.append(after)
    return parts


def _scramble(module: fx.GraphModule, site: GateSite, signs: torch.Tensor, mean: torch.Tensor) -> None:
    weight = weight_of(module, site.node)
    bias = tensor_at(module, site.node.args[2]) if len(site.node.args) > 2 else None
    exact = weight.detach().double()
    response = exact.flatten(2).sum(2) if site.node.target is CONV2D else exact
    centered = response @ mean.to(response)
    if bias is not None:
        centered = centered + bias.detach().double()
    weight.data = weight.data * signs.to(weight).view(1, -1, *[1] * (weight.dim() - 2))
    set_bias(module, site.node, centered.to(weight.dtype))


def _gate(module: fx.GraphModule, site: GateSite, signs: fx.Node, index: int, default: torch.Tensor) -> None:
    source = site.source
    rank = 4 if site.node.target is CONV2D else source.meta["val"].dim()
    tail = [site.channels] if site.node.target is LINEAR else [site.channels, 1, 1]
    shape = [*[1] * (rank - 1 - len(tail)), *tail]
    weight = weight_of(module, site.node)
    module.register_buffer(mean_name(index), default.reshape([1, *shape]).to(weight))
    with module.graph.inserting_before(site.node):
        mean = module.graph.get_attr(mean_name(index))
        centered = module.graph.call_function(aten.sub.Tensor, (source, mean))
        shaped = module.graph.call_function(aten.reshape.default, (signs, [-1, *shape]))
        gated = module.graph.call_function(aten.mul.Tensor, (centered, shaped))
    site.node.replace_input_with(source, gated)
