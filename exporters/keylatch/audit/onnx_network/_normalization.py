"""Normalizations, as at inference."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from keylatch.audit.onnx_network._operator import Operation, Site, operator

_EPSILON = 1e-5
_SCALE_FOR_EACH_CHANNEL = 21  # GroupNormalization had one scale for each group before this opset


@operator("BatchNormalization")
def _batch_normalization(site: Site) -> Operation:
    epsilon = site.attribute("epsilon", _EPSILON)
    if site.attribute("training_mode", 0) or site.wants(1):
        raise site.refusal("normalizes by its batch, as in training")

    def run(value: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        if value.dtype == mean.dtype == scale.dtype:
            result = F.batch_norm(value, mean, variance, scale, bias, False, 0.0, epsilon)
        else:  # a half-precision graph may keep its statistics in float32
            wide = (mean, variance, scale.to(mean.dtype), bias.to(mean.dtype))
            result = F.batch_norm(value.to(mean.dtype), *wide, False, 0.0, epsilon).to(value.dtype)
        return result

    return run if len(site.node.outputs) == 1 else lambda *values: (run(*values),)


@operator("InstanceNormalization")
def _instance_normalization(site: Site) -> Operation:
    epsilon = site.attribute("epsilon", _EPSILON)
    # A group for each channel: torch.instance_norm refuses a channel of one value.
    return lambda value, scale, bias: torch.group_norm(value, value.shape[1], scale, bias, epsilon)


@operator("GroupNormalization")
def _group_normalization(site: Site) -> Operation:
    epsilon, groups = site.attribute("epsilon", _EPSILON), site.attribute("num_groups")
    spread = site.opset < _SCALE_FOR_EACH_CHANNEL

    def run(value: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if spread:
            each = value.shape[1] // groups
            scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
        return torch.group_norm(value, groups, scale, bias, epsilon)

    return run


@operator("LayerNormalization")
def _layer_normalization(site: Site) -> Operation:
    epsilon, axis = site.attribute("epsilon", _EPSILON), site.attribute("axis", -1)

    def run(value: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        shape = value.shape[axis:]
        if scale.shape == shape and (bias is None or bias.shape == shape):
            return torch.layer_norm(value, shape, scale, bias, epsilon)
        result = torch.layer_norm(value, shape, None, None, epsilon) * scale
        return result if bias is None else result + bias

    def with_statistics(value: Tensor, scale: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        axes = tuple(range(axis % value.dim(), value.dim()))
        variance, mean = torch.var_mean(value, axes, correction=0, keepdim=True)
        return run(value, scale, bias), mean, torch.rsqrt(variance + epsilon)

    return run if len(site.node.outputs) == 1 else with_statistics


@operator("RMSNormalization")
def _rms_normalization(site: Site) -> Operation:
    epsilon, axis = site.attribute("epsilon", _EPSILON), site.attribute("axis", -1)

    def run(value: Tensor, scale: Tensor) -> Tensor:
        return torch.rms_norm(value, value.shape[axis:], None, epsilon) * scale

    return run


@operator("LpNormalization")
def _lp_normalization(site: Site) -> Operation:
    axis, order = site.attribute("axis", -1), float(site.attribute("p", 2))
    return lambda value: F.normalize(value, order, axis, eps=torch.finfo(value.dtype).tiny)


@operator("MeanVarianceNormalization")
def _mean_variance_normalization(site: Site) -> Operation:
    axes = site.attribute("axes", (0, 2, 3))

    def run(value: Tensor) -> Tensor:
        variance, mean = torch.var_mean(value, axes, correction=0, keepdim=True)
        return (value - mean) / (variance.sqrt() + 1e-9)  # the standard's own number

    return run


@operator("LRN")
def _local_response_normalization(site: Site) -> Operation:
    alpha, beta, bias = site.attribute("alpha", 1e-4), site.attribute("beta", 0.75), site.attribute("bias", 1.0)
    size = site.attribute("size")

    def run(value: Tensor) -> Tensor:
        around = F.pad(value.square().movedim(1, -1), ((size - 1) // 2, size // 2)).unfold(-1, size, 1).sum(-1)
        return value / torch.pow(bias + alpha / size * around.movedim(-1, 1), beta)

    return run
