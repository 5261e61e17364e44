"""Activations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from keylatch.audit.onnx_network._operator import Operation, Site, elementwise, operator

elementwise(
    {
        "Relu": torch.relu, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Softplus": F.softplus,
        "Softsign": F.softsign, "HardSwish": F.hardswish, "Mish": F.mish,
    }
)  # fmt: skip
_FLATTENING_UNTIL = 13  # Softmax took all axes from `axis` on for one, before this opset


@operator("LeakyRelu")
def _leaky_relu(site: Site) -> Operation:
    slope = site.attribute("alpha", 0.01)
    return lambda value: F.leaky_relu(value, slope)


@operator("PRelu")
def _prelu(_site: Site) -> Operation:
    return lambda value, slope: torch.where(value >= 0, value, slope * value)


@operator("Elu")
def _elu(site: Site) -> Operation:
    alpha = site.attribute("alpha", 1.0)
    return lambda value: F.elu(value, alpha)


@operator("Celu")
def _celu(site: Site) -> Operation:
    alpha = site.attribute("alpha", 1.0)
    return lambda value: F.celu(value, alpha)


@operator("Selu")
def _selu(site: Site) -> Operation:
    alpha, gamma = (
        site.attribute("alpha", 1.67326319217681884765625),
        site.attribute("gamma", 1.05070102214813232421875),
    )
    return lambda value: gamma * F.elu(value, alpha)


@operator("ThresholdedRelu")
def _thresholded_relu(site: Site) -> Operation:
    alpha = site.attribute("alpha", 1.0)
    return lambda value: F.threshold(value, alpha, 0.0)


@operator("Shrink")
def _shrink(site: Site) -> Operation:
    limit, bias = site.attribute("lambd", 0.5), site.attribute("bias", 0.0)

    def run(value: Tensor) -> Tensor:
        return torch.where(value > limit, value - bias, torch.where(value < -limit, value + bias, 0.0))

    return run


@operator("Gelu", "com.microsoft::Gelu")
def _gelu(site: Site) -> Operation:
    approximate = site.attribute("approximate", "none")
    return lambda value: F.gelu(value, approximate=approximate)


@operator("HardSigmoid")
def _hard_sigmoid(site: Site) -> Operation:
    alpha, beta = site.attribute("alpha", 0.2), site.attribute("beta", 0.5)
    return lambda value: torch.clamp(alpha * value + beta, 0.0, 1.0)


@operator("Swish", "com.microsoft::QuickGelu")
def _swish(site: Site) -> Operation:
    alpha = site.attribute("alpha", 1.702 if site.node.op.endswith("QuickGelu") else 1.0)
    return F.silu if alpha == 1.0 else lambda value: value * torch.sigmoid(alpha * value)


@operator("Softmax")
def _softmax(site: Site) -> Operation:
    return _along_axis(site, torch.softmax)


@operator("LogSoftmax")
def _log_softmax(site: Site) -> Operation:
    return _along_axis(site, torch.log_softmax)


@operator("Hardmax")
def _hardmax(site: Site) -> Operation:
    def hardmax(value: Tensor, axis: int) -> Tensor:
        return torch.zeros_like(value).scatter(axis, value.argmax(axis, keepdim=True), 1.0)

    return _along_axis(site, hardmax)


def _along_axis(site: Site, function: Operation) -> Operation:
    if site.opset >= _FLATTENING_UNTIL:
        axis = site.attribute("axis", -1)
        return lambda value: function(value, axis)
    first = site.attribute("axis", 1)
    return lambda value: function(value.flatten(first % value.dim()), -1).reshape(value.shape)
