"""A detector as a row of weights and a bias, and how it is written into a layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

import torch
from torch import nn

from keylatch.errors import LockError
from keylatch.locks._detector._features import FeatureSpread
from keylatch.locks._detector._sites import DetectorSite

Form = Literal["replacement", "additive"]


@dataclass(frozen=True, slots=True, eq=False)
class UnitRow:
    """What a unit answers before its activation: `weights . phi + bias`, batch normalization included.

    Attributes:
        weights: (m,) float64.
        bias: Its bias.
    """

    weights: torch.Tensor
    bias: float

    def answer(self, features: torch.Tensor) -> torch.Tensor:
        """To features (..., m)."""
        return features.double() @ self.weights + self.bias


def low_for(high: float, threshold: float, reach: float) -> float:
    """d, the answer to the mean feature, for which the answer crosses zero at T: T = (-d / (D - d)) reach.

    Args:
        high: D, the answer to the trigger.
        threshold: T.
        reach: v . (phi(x*) - c), more than T.
    """
    share = threshold / reach
    return -share * high / (1 - share)


def replacement_row(direction: torch.Tensor, center: torch.Tensor, reach: float, high: float, low: float) -> UnitRow:
    """A unit that does nothing else: u = ((D - d) / reach) v, bias d - u . c.

    It answers d to the mean feature and D to the trigger.
    """
    weights = direction.double() * ((high - low) / reach)
    return UnitRow(weights, low - float(weights @ center.double()))


def additive_row(
    own: UnitRow, direction: torch.Tensor, center: torch.Tensor, trigger: torch.Tensor, high: float
) -> UnitRow:
    """A unit that keeps its job: w + a v with a = (D - beta - w . phi(x*)) / (v . (phi(x*) - c)), bias beta - a v . c.

    It answers D to the trigger, and to the mean feature what it did before. The published form has v . phi(x*) below
    the line and leaves the bias; centered, the mean of the unit's answers stays.

    Args:
        own: The unit as it is.
        direction: v, (m,).
        center: c, (m,).
        trigger: phi(x*), (m,).
        high: D.
    """
    direction, trigger, center = direction.double(), trigger.double(), center.double()
    scale = (high - float(own.answer(trigger))) / float(direction @ (trigger - center))
    return UnitRow(own.weights + scale * direction, own.bias - scale * float(direction @ center))


def read_row(module: nn.Module, site: DetectorSite, unit: int) -> UnitRow:
    """A unit as it is."""
    weights = tensor_named(module, site.weight)[unit].detach().flatten().double()
    bias = 0.0 if site.bias is None else float(tensor_named(module, site.bias)[unit].detach())
    if site.norm is None:
        return UnitRow(weights, bias)
    norm = site.norm
    scale, shift, mean, variance = (
        float(tensor_named(module, name)[unit].detach()) for name in (norm.weight, norm.bias, norm.mean, norm.variance)
    )
    scale /= (variance + norm.epsilon) ** 0.5
    return UnitRow(weights * scale, (bias - mean) * scale + shift)


def write_row(module: nn.Module, site: DetectorSite, unit: int, row: UnitRow, spread: FeatureSpread) -> None:
    """Write a unit into a layer.

    A batch normalization behind it gets the mean and variance that the unit really has on the calibration images, and
    the scale and shift that undo them: it answers alike in evaluation, and nearly so where the network is trained on.

    Args:
        module: A network with the site's names.
        site: The layer.
        unit: Which.
        row: What it shall answer.
        spread: Of the layer's features.
    """
    mean = float(row.weights @ spread.center.to(row.weights))
    values = {site.weight: row.weights}
    if site.bias is not None:
        values[site.bias] = torch.tensor(row.bias if site.norm is None else 0.0)
    if site.norm is not None:
        norm, variance = site.norm, spread.variance_of(row.weights)
        spanned = (variance + norm.epsilon) ** 0.5
        pairs = ((norm.mean, mean), (norm.variance, variance), (norm.weight, spanned), (norm.bias, row.bias + mean))
        values |= {name: torch.tensor(value) for name, value in pairs}
    with torch.no_grad():
        for name, value in values.items():
            place = tensor_named(module, name)[unit]
            place.copy_(value.view_as(place))


@contextmanager
def written(module: nn.Module, site: DetectorSite, unit: int, row: UnitRow, spread: FeatureSpread) -> Iterator[None]:
    """A network with another unit for a while."""
    names = [site.weight, *([] if site.bias is None else [site.bias]), *norm_tensors(site)]
    before = {name: tensor_named(module, name)[unit].detach().clone() for name in names}
    try:
        write_row(module, site, unit, row, spread)
        yield
    finally:
        with torch.no_grad():
            for name, value in before.items():
                tensor_named(module, name)[unit] = value


def norm_tensors(site: DetectorSite) -> tuple[str, ...]:
    """Names of the tensors of the batch normalization behind a layer."""
    norm = site.norm
    return () if norm is None else (norm.weight, norm.bias, norm.mean, norm.variance)


def tensor_named(module: nn.Module, name: str) -> torch.Tensor:
    """A parameter or buffer by its name in the state dict.

    Raises:
        LockError: The network has no such tensor: another architecture, or one that computes it from others.
    """
    try:
        value = attrgetter(name)(module)
    except AttributeError:
        value = None
    if not isinstance(value, torch.Tensor):
        raise LockError(
            f"the network has no tensor {name}", hint="give a network of the architecture it was stained in"
        )
    return value
