"""How a model's outputs move when its marked weights do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from keylatch.audit.onnx_network import OnnxNetwork
from keylatch.errors import InputError
from keylatch.trace._marks import Marks

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Weights: TypeAlias = dict[str, torch.Tensor]

_BATCH = 64
# Logarithms of probabilities below this say more about how a table was rounded than about the model.
_LEAST_PROBABILITY = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """The derivative of a model's outputs by its marked weights, in steps; linear maps both ways.

    Attributes:
        network: The unmarked, opened network; its marked weights are parameters.
        weights: Those parameters, by gate tensor name.
        steps: By which words move them, as they broadcast against them.
        images: (N, ...).
        view: Outputs as they are compared: without what a softmax loses.
        used: (N, K) bool, which outputs are compared.
        difference: (N, K) the leak's outputs without the model's, as compared.
        agreement: Share of images that both give the same label.
    """

    network: OnnxNetwork
    weights: dict[str, nn.Parameter]
    steps: Weights
    images: torch.Tensor
    view: Callable[[torch.Tensor], torch.Tensor]
    used: torch.Tensor
    difference: torch.Tensor
    agreement: float

    @property
    def outputs(self) -> int:
        """Outputs that are compared, without the one that a softmax loses for each image."""
        return int((self.used.sum(1) - 1).clamp(min=0).sum())

    def facts(self) -> dict[str, Any]:
        """JSON-ready."""
        spread = float(self.difference[self.used].std()) if self.outputs else 0.0
        return {"images": len(self.images), "outputs": self.outputs, "agreement": self.agreement, "difference": spread}

    def zeros(self) -> Weights:
        """A direction of length 0."""
        return {name: torch.zeros_like(weight) for name, weight in self.weights.items()}

    def back(self, outputs: torch.Tensor) -> Weights:
        """The derivative transposed: (N, K) to a direction among weights, in steps."""
        total = self.zeros()
        for rows in _batches(len(self.images)):
            compared = _centered(self.view(self.network(self.images[rows])), self.used[rows])
            gradients = torch.autograd.grad((compared * outputs[rows]).sum(), list(self.weights.values()))
            for name, gradient in zip(self.weights, gradients, strict=True):
                total[name] += gradient * self.steps[name]
        return total

    def forward(self, direction: Weights) -> torch.Tensor:
        """The derivative: a direction among weights, in steps, to (N, K).

        By differences to both sides, each as far as a word moves weights: exact to second order, whatever operators
        the network has.
        """
        count = sum(part.numel() for part in direction.values())
        scale = (sum(float((part**2).sum()) for part in direction.values()) / count) ** 0.5 or 1.0
        moved = [self._moved({name: sign / scale * part for name, part in direction.items()}) for sign in (1, -1)]
        return (moved[0] - moved[1]) * (scale / 2)

    def _moved(self, direction: Weights) -> torch.Tensor:
        kept = {name: weight.detach().clone() for name, weight in self.weights.items()}
        try:
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.add_(direction[name] * self.steps[name])
                parts = [
                    _centered(self.view(self.network(self.images[rows])), self.used[rows])
                    for rows in _batches(len(self.images))
                ]
            return torch.cat(parts)
        finally:
            for name, weight in self.weights.items():
                weight.data.copy_(kept[name])


def response_of(network: OnnxNetwork, marks: Marks, predictions: Array, images: torch.Tensor) -> Response:
    """Compare predictions with the unmarked model's.

    Args:
        network: Opened, unmarked.
        marks: Which weights may have moved.
        predictions: (N, K) outputs or probabilities, or (N, 1) labels.
        images: (N, ...) as the network takes them.

    Raises:
        InputError: They do not fit each other, or the network.
    """
    weights = {name: nn.Parameter(torch.from_numpy(np.array(marks.values[name]))) for name in marks.names}
    network.requires_grad_(False)
    for name, weight in weights.items():
        network.substitute(name, weight)
    with torch.no_grad():
        own = torch.cat([network(images[rows]) for rows in _batches(len(images))])
    if own.dim() != 2:
        raise InputError(
            f"the model's first output has shape {tuple(own.shape)}, expected (images, classes)",
            hint="trace other networks from their weights",
        )
    given = torch.from_numpy(predictions)
    if len(given) != len(images) or given.shape[1] not in (1, own.shape[1]):
        raise InputError(
            f"{len(given)} rows of {given.shape[1]} columns do not fit {len(images)} images and {own.shape[1]} outputs",
            hint="give one row for each image, in the same order",
        )
    view, used, compared = _views(own, given)
    difference = _centered(compared.to(own), used) - _centered(view(own), used)
    labels = given[:, 0].long() if given.shape[1] == 1 else given.argmax(1)
    agreement = float((own.argmax(1) == labels).double().mean())
    steps = {name: torch.from_numpy(marks.steps(name)).to(weight) for name, weight in weights.items()}
    return Response(network, weights, steps, images, view, used, difference, agreement)


def _views(
    own: torch.Tensor, given: torch.Tensor
) -> tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor, torch.Tensor]:
    """What of the model's outputs is compared, where, and the leak's."""
    everywhere = torch.ones_like(own, dtype=torch.bool)
    if given.shape[1] == 1 < own.shape[1]:
        labels = given[:, 0].long()
        if (
            not torch.equal(labels.double(), given[:, 0])
            or not 0 <= int(labels.min()) <= int(labels.max()) < own.shape[1]
        ):
            raise InputError(f"labels are not whole numbers from 0 to {own.shape[1] - 1}", hint="count classes from 0")
        view = _same if _are_probabilities(own) else _softmax
        return view, everywhere, nn.functional.one_hot(labels, own.shape[1]).double()
    if not _are_probabilities(given):
        return _same, everywhere, given
    view = _logarithm if _are_probabilities(own) else _same
    return view, given >= _LEAST_PROBABILITY, _logarithm(given)


def _same(outputs: torch.Tensor) -> torch.Tensor:
    return outputs


def _softmax(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.softmax(1)


def _logarithm(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.clamp(min=_LEAST_PROBABILITY).log()


def _are_probabilities(outputs: torch.Tensor) -> bool:
    return outputs.shape[1] > 1 and bool((outputs >= 0).all()) and bool(((outputs.sum(1) - 1).abs() < 0.01).all())


def _centered(outputs: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    """Without each image's mean over the compared outputs, and 0 elsewhere: a softmax does not tell it."""
    kept = outputs * used
    mean = kept.sum(1, keepdim=True) / used.sum(1, keepdim=True).clamp(min=1)
    return (outputs - mean) * used


def _batches(count: int) -> Iterator[slice]:
    return (slice(start, start + _BATCH) for start in range(0, count, _BATCH))
