"""Channel means from batch-normalization statistics, without any image.

A normalization's shift and scale are its output's mean and standard deviation over the training images. From there a
channel is followed as a Gaussian through elementwise functions (by its quantiles), sums and spatial averages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import fx

from keylatch.locks._fold_batch_norm import Moments

_QUANTILES = 1024

aten = torch.ops.aten
_ELEMENTWISE = {
    aten.relu.default, aten.relu_.default, aten.relu6.default, aten.hardtanh.default, aten.hardtanh_.default,
    aten.clamp.default, aten.silu.default, aten.silu_.default, aten.gelu.default, aten.hardswish.default,
    aten.hardswish_.default, aten.leaky_relu.default, aten.leaky_relu_.default, aten.sigmoid.default, aten.elu.default,
}  # fmt: skip
_SAME = {aten.dropout.default, aten.clone.default, aten.contiguous.default, aten.detach.default}
_AVERAGES = {aten.adaptive_avg_pool2d.default, aten.avg_pool2d.default, aten.mean.dim}
_SUMS = {aten.add.Tensor, aten.add_.Tensor}


def propagate(node: fx.Node, known: Mapping[fx.Node, Moments]) -> Moments | None:
    """Moments of a node's channels, or None where they do not follow from normalizations alone.

    Args:
        node: A node whose value has channels in dimension 1.
        known: Moments of the nodes that end in a folded normalization.
    """
    if node in known:
        return known[node]
    rule = _rule(node)
    return rule(node, known) if rule else None


_Rule = Callable[[fx.Node, Mapping[fx.Node, Moments]], Moments | None]


def _rule(node: fx.Node) -> _Rule | None:
    if node.target in _ELEMENTWISE:
        return _through_function
    if node.target in _SUMS:
        return _through_sum
    if node.target in _SAME or node.target in _AVERAGES or _flattens_single_pixels(node):
        return _unchanged
    return None


def _flattens_single_pixels(node: fx.Node) -> bool:
    if node.target not in (aten.flatten.using_ints, aten.view.default, aten.reshape.default, aten.squeeze.default):
        return False
    source, value = node.args[0], node.meta["val"]
    return isinstance(source, fx.Node) and value.dim() == 2 and value.shape[1] == source.meta["val"].shape[1]


def _unchanged(node: fx.Node, known: Mapping[fx.Node, Moments]) -> Moments | None:
    # An average keeps the mean; its variance is at most this one, and only the mean is used past a pooling.
    source = node.args[0]
    return propagate(source, known) if isinstance(source, fx.Node) else None


def _through_sum(node: fx.Node, known: Mapping[fx.Node, Moments]) -> Moments | None:
    terms = [propagate(term, known) if isinstance(term, fx.Node) else None for term in node.args[:2]]
    first, second = terms
    if first is None or second is None:
        return None
    return Moments(first.mean + second.mean, first.variance + second.variance)


def _through_function(node: fx.Node, known: Mapping[fx.Node, Moments]) -> Moments | None:
    source = node.args[0]
    inner = propagate(source, known) if isinstance(source, fx.Node) else None
    if inner is None or not callable(node.target):
        return None
    quantiles = torch.special.ndtri((torch.arange(_QUANTILES, dtype=torch.float64) + 0.5) / _QUANTILES).unsqueeze(1)
    values = node.target(
        quantiles * inner.variance.double().sqrt() + inner.mean.double(), *node.args[1:], **node.kwargs
    )
    mean, variance = values.mean(0), values.var(0, unbiased=False)
    return Moments(mean.float(), variance.float())
