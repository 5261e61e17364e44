"""What a gated layer's weights and bias tell of its signs, given samples of its inputs.

The layer computes W' (s * x) + b with unknown signs s, W' = W diag(s). Two things are typical of trained layers:

    level       outputs have about the same mean in all channels, or, where a lock centers, the original biases are
                about the same in all channels: |W' (s * m) ± b - t|^2 is small for some common level t
    alignment   the weights point where the inputs vary: the variances of the outputs are large

Each output counts in units of the spread that it would have if inputs were independent, which all signs leave as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

_MOST_COVARIANCE = 3000  # rows; of wider kernels the taps are taken for uncorrelated
_RIDGES = (1e-3, 1e-1, 10.0)
_RANDOM_STARTS = 1
_FLOOR = 0.1  # of the residual of random signs: nearer than this, a level fits by chance or by too few outputs
_TINY = 1e-12
_LEAST_GAIN = 1e-9
_MOST_KEPT = 2**24  # numbers of interactions that are kept: climbs from other starts flip the same channels
_MOST_FLIPS = 20  # for each channel; a few are enough, unless rounding goes round in circles


@dataclass(frozen=True, slots=True, eq=False)
class GatedLayer:
    """A layer behind a gate, and samples of its input.

    Attributes:
        weight: (outputs, channels, taps) float64, as stored, divided by the spread of each output.
        bias: (outputs,) float64, likewise.
        mean: (channels, taps) float64 means of the inputs.
        covariance: (taps, channels, taps, channels) float64 of the inputs; (taps, 1, channels, channels) if the taps
            are taken for uncorrelated.
        center: (channels,) float64 means that the lock subtracts; None if it is thought not to center.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    mean: torch.Tensor
    covariance: torch.Tensor
    center: torch.Tensor | None
    _kept: dict[int, torch.Tensor] = field(default_factory=dict, repr=False)

    def interaction(self, channel: int) -> torch.Tensor:
        """(outputs, channels): what one channel adds to the fields of all."""
        found = self._kept.get(channel)
        if found is None:
            found = _interaction(self, channel)
            if (len(self._kept) + 1) * found.numel() <= _MOST_KEPT:
                self._kept[channel] = found
        return found

    @property
    def levels(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(outputs, channels) and (outputs,): R and y of the level |R s - y|^2, common levels taken out."""
        if self.center is None:
            response, wanted = torch.einsum("oct,ct->oc", self.weight, self.mean), -self.bias
        else:
            response, wanted = self.weight.sum(2) * self.center, self.bias
        return response - response.mean(0), wanted - wanted.mean()


def gated_layer(
    weight: torch.Tensor, bias: torch.Tensor, samples: torch.Tensor, center: torch.Tensor | None
) -> GatedLayer:
    """Measure a layer.

    Args:
        weight: (outputs, channels, taps) float64, as stored.
        bias: (outputs,) float64, as stored.
        samples: (m, channels, taps) float64 inputs, neither centered nor with signs.
        center: (channels,) float64 means that the lock subtracts; None if it is thought not to center.
    """
    mean = samples.mean(0)
    covariance = _covariance((samples - mean).transpose(1, 2))
    variance = (samples - mean).square().mean(0)
    spread = (weight.square() * variance).sum((1, 2)).clamp(min=_TINY).sqrt()
    return GatedLayer(weight / spread[:, None, None], bias / spread, mean, covariance, center)


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """How trained a layer looks with some signs: alignment times the sum of log variances, less the log of the level.

    Attributes:
        layer: The layer.
        alignment: 1: variances are to be large; -1: small; 0: do not matter.
        level: Whether the level is to be small.
    """

    layer: GatedLayer
    alignment: float
    level: bool

    def best(self, generator: torch.Generator) -> tuple[float, torch.Tensor]:
        """From several starts, flips until none helps: the value reached, and (channels,) float64 signs.

        A variance is the same for all signs inverted: without a level in the objective, the level decides.
        """
        if self.alignment and self.level and 2 * len(self.layer.bias) < self.layer.weight.shape[1]:
            return replace(self, level=False).best(generator)  # so few outputs can be made level with any weights
        starts = [*_relaxed_levels(self.layer), *_random(self.layer.weight.shape[1], generator)]
        if self.alignment:
            starts += _relaxed_variance(self.layer, self.alignment)
        different = torch.unique(torch.stack(starts), dim=0).unbind()  # relaxations often round to the same signs
        value, found = max((self.climb(start) for start in different), key=lambda each: each[0])
        if self.level:
            return value, found
        return value, min((found, -found), key=lambda signs: _residual(self.layer, signs))

    def climb(self, start: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Flip the sign that gains most until no flip gains; the value reached, and the signs."""
        state = _State(self.layer, start.clone(), self.alignment != 0)
        for _ in range(_MOST_FLIPS * len(start)):
            flipped = self._value(state.variances_if_flipped(), state.residuals_if_flipped(), state.floor)
            gains = flipped - self._reached(state)
            best = int(gains.argmax())
            if gains[best] <= _LEAST_GAIN:
                break
            state.flip(best)
        return float(self._reached(state)), state.signs

    def _reached(self, state: _State) -> torch.Tensor:
        """(1,) the value of the signs as they are."""
        return self._value(state.variances[:, None], state.residual.reshape(1), state.floor)

    def _value(self, variances: torch.Tensor, residuals: torch.Tensor, floor: float) -> torch.Tensor:
        """(k,) values from (outputs, k) variances and (k,) residuals, which count from the floor on."""
        value = self.alignment * variances.clamp(min=_TINY).log().sum(0) if self.alignment else torch.zeros(1)
        if not self.level:
            return value
        return value - len(self.layer.bias) / 2 * (residuals + floor).log()


class _State:
    """Signs, and what flips change, kept up to date.

    Args:
        layer: The layer.
        signs: (channels,) where to start.
        variances: Whether variances are wanted; they cost most.
    """

    def __init__(self, layer: GatedLayer, signs: torch.Tensor, variances: bool) -> None:
        self.layer, self.signs, self._wanted = layer, signs, variances
        self._response, target = layer.levels
        self.floor = _floor(layer)
        self._squares = self._response.square().sum(0)
        self._left = target - self._response @ signs
        self._field = _fields(layer, signs) if variances else layer.weight.new_zeros(1, 1)
        self._own = _own_variances(layer) if variances else layer.weight.new_zeros(1, 1)
        self.variances = (self._field * signs).sum(1)
        self.residual = self._left.square().sum()

    def variances_if_flipped(self) -> torch.Tensor:
        """(outputs, channels)."""
        return self.variances[:, None] - 4 * self.signs * self._field + 4 * self._own

    def residuals_if_flipped(self) -> torch.Tensor:
        """(channels,)."""
        return self.residual + 4 * self.signs * (self._response.T @ self._left) + 4 * self._squares

    def flip(self, channel: int) -> None:
        """Flip one sign."""
        sign = float(self.signs[channel])
        if self._wanted:
            self.variances = self.variances_if_flipped()[:, channel]
            self._field = self._field - 2 * sign * self.layer.interaction(channel)
        self._left = self._left + 2 * sign * self._response[:, channel]
        self.residual = self._left.square().sum()
        self.signs[channel] = -sign


def _covariance(samples: torch.Tensor) -> torch.Tensor:
    """Of (m, taps, channels) centered samples."""
    count, taps, channels = samples.shape
    if taps * channels <= _MOST_COVARIANCE:
        rows = samples.flatten(1)
        return (rows.T @ rows / count).reshape(taps, channels, taps, channels)
    return torch.stack([samples[:, tap].T @ samples[:, tap] / count for tap in range(taps)])[:, None]


def _correlated(layer: GatedLayer) -> bool:
    return layer.covariance.shape[1] != 1 or layer.weight.shape[2] == 1


def _fields(layer: GatedLayer, signs: torch.Tensor) -> torch.Tensor:
    """(outputs, channels): half the derivative of each output's variance by each sign."""
    weight = layer.weight.transpose(1, 2)  # (outputs, taps, channels)
    if _correlated(layer):
        outputs, taps, channels = weight.shape
        matrix = layer.covariance.reshape(taps * channels, taps * channels)
        spread = ((weight * signs).flatten(1) @ matrix).reshape(outputs, taps, channels)
    else:
        spread = torch.einsum("otc,tcd->otd", weight * signs, layer.covariance[:, 0])
    return (weight * spread).sum(1)


def _interaction(layer: GatedLayer, channel: int) -> torch.Tensor:
    """(outputs, channels): what one channel adds to the fields of all."""
    weight = layer.weight.transpose(1, 2)
    if _correlated(layer):
        taps, channels = weight.shape[1:]
        matrix = layer.covariance.reshape(taps, channels, taps, channels)[:, channel].reshape(taps, taps * channels)
        spread = (weight[:, :, channel] @ matrix).reshape(len(weight), taps, channels)
    else:
        spread = weight[:, :, channel, None] * layer.covariance[:, 0, channel]
    return (weight * spread).sum(1)


def _own_variances(layer: GatedLayer) -> torch.Tensor:
    """(outputs, channels): each output's variance from one channel alone."""
    weight = layer.weight.transpose(1, 2)
    if _correlated(layer):
        taps, channels = weight.shape[1:]
        covariance = layer.covariance.reshape(taps, channels, taps, channels).diagonal(dim1=1, dim2=3)  # (t, u, c)
        return torch.einsum("ouc,ouc->oc", torch.einsum("otc,tuc->ouc", weight, covariance), weight)
    return torch.einsum("otc,tc->oc", weight.square(), layer.covariance[:, 0].diagonal(dim1=1, dim2=2))


def _residual(layer: GatedLayer, signs: torch.Tensor) -> float:
    response, wanted = layer.levels
    return float((wanted - response @ signs).square().sum())


def _floor(layer: GatedLayer) -> float:
    response, wanted = layer.levels
    return max(_FLOOR * float(wanted.square().sum() + response.square().sum()), _TINY)


def _relaxed_levels(layer: GatedLayer) -> list[torch.Tensor]:
    """Ridge regressions for the level, rounded."""
    response, wanted = layer.levels
    matrix, target = response.T @ response, response.T @ wanted
    scale = max(float(matrix.diagonal().mean()), _TINY)
    eye = torch.eye(len(matrix), dtype=matrix.dtype)
    relaxed = [torch.linalg.solve(matrix + ridge * scale * eye, target) for ridge in _RIDGES]
    return [_as_signs(each) for each in (*relaxed, target)]


def _relaxed_variance(layer: GatedLayer, alignment: float) -> list[torch.Tensor]:
    """The leading eigenvector of the sum of variances, rounded, both ways around."""
    matrix = _sum_of_variances(layer) * math.copysign(1.0, alignment)
    leading = torch.linalg.eigh(matrix - torch.diag(matrix.diagonal())).eigenvectors[:, -1]
    return [_as_signs(leading), _as_signs(-leading)]


def _sum_of_variances(layer: GatedLayer) -> torch.Tensor:
    """(channels, channels) M: with signs s, the variances of all outputs add up to s' M s."""
    weight = layer.weight.transpose(1, 2)
    taps, channels = weight.shape[1:]
    if _correlated(layer):
        flat = weight.flatten(1)
        products = (flat.T @ flat).reshape(taps, channels, taps, channels)
        return (products * layer.covariance.reshape(products.shape)).sum((0, 2))
    rows = weight.transpose(0, 1)
    return (rows.transpose(1, 2) @ rows * layer.covariance[:, 0]).sum(0)


def _random(size: int, generator: torch.Generator) -> Sequence[torch.Tensor]:
    return [torch.randint(0, 2, (size,), generator=generator).double() * 2 - 1 for _ in range(_RANDOM_STARTS)]


def _as_signs(values: torch.Tensor) -> torch.Tensor:
    return torch.where(values >= 0, 1.0, -1.0).double()
