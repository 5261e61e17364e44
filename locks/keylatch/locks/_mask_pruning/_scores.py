"""A real score for each weight or output channel, and the binary mask that a threshold makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from keylatch.errors import LockError

Granularity = Literal["element", "channel"]

# Scores start anywhere up to _SPAN above the threshold. From one common start they would arrive there all at once: at
# first the source's loss is near 0, the target's alone decides, and thousands of weights are gone in one step.
_THRESHOLD, _SPAN = 0.5, 1.0


class _Kept(torch.autograd.Function):
    """1 where a score is above the threshold, else 0; the gradient passes straight through (arXiv 1308.3432)."""

    @staticmethod
    def forward(_: Any, scores: torch.Tensor) -> torch.Tensor:
        return (scores > _THRESHOLD).to(scores.dtype)

    @staticmethod
    def backward(_: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


class DomainScores(nn.Module):
    """Scores of each domain, for the weights of one network.

    Args:
        weights: The frozen weights, by parameter name: convolutions (out, in, ...) or linear layers (out, in).
        domains: Names.
        granularity: ``element`` for a score for each weight, ``channel`` for one for each output channel.

    The first scores are drawn by torch's generator, on the CPU.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], domains: Sequence[str], granularity: Granularity) -> None:
        super().__init__()
        self._places = [(domain, name) for domain in domains for name in weights]
        shapes = {name: _score_shape(weight, granularity) for name, weight in weights.items()}
        self.scores = nn.ParameterList(_first_scores(shapes[name]) for _, name in self._places)

    def weights(self, originals: Mapping[str, torch.Tensor], unpaid: Iterable[str]) -> dict[str, torch.Tensor]:
        """The network's weights without what is withheld for any unpaid domain; differentiable in the scores."""
        kept, withheld_for = dict(originals), set(unpaid)
        for (domain, name), scores in zip(self._places, self.scores, strict=True):
            if domain in withheld_for:
                kept[name] = kept[name] * _Kept.apply(scores)  # type: ignore[no-untyped-call]
        return kept

    def masks(self, originals: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
        """For each domain, by parameter name: True where the weight is withheld, the weight's shape, on the CPU.

        Parameters of which nothing is withheld are left out.
        """
        found: dict[str, dict[str, torch.Tensor]] = {domain: {} for domain, _ in self._places}
        for (domain, name), scores in zip(self._places, self.scores, strict=True):
            withheld = (scores.detach() <= _THRESHOLD).cpu()
            if withheld.any():
                found[domain][name] = withheld.expand(originals[name].shape).contiguous()
        return found


def _first_scores(shape: tuple[int, ...]) -> torch.Tensor:
    return _THRESHOLD + _SPAN * (1 - torch.rand(shape))  # nothing is withheld yet: never 0


def _score_shape(weight: torch.Tensor, granularity: Granularity) -> tuple[int, ...]:
    return tuple(weight.shape) if granularity == "element" else (len(weight), *(1 for _ in weight.shape[1:]))


def maskable_weights(network: nn.Module, layers: Sequence[str] | None) -> dict[str, torch.Tensor]:
    """The weights that masks may take from: of convolutions and linear layers.

    Args:
        network: The network.
        layers: Parameter names to choose; all by default.

    Raises:
        LockError: There is none, or one of these names is none of them.
    """
    found = {
        f"{path}.weight" if path else "weight": module.weight.detach()
        for path, module in network.named_modules()
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
    }
    if not found:
        raise LockError(
            "the model has no convolution and no linear layer to take weights from",
            hint="give the nn.Module itself, not a scripted or wrapped function",
        )
    unknown = sorted(set(layers or ()) - set(found))
    if unknown:
        raise LockError(
            f"{unknown[0]} is no weight of a convolution or linear layer", hint=f"choose from {', '.join(found)}"
        )
    return {name: weight for name, weight in found.items() if layers is None or name in layers}
