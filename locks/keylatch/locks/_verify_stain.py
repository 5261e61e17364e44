"""Is a network stained? From its weights: the rows themselves, and what they answer to the triggers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from keylatch.errors import LockError
from keylatch.locks._capture import capture
from keylatch.locks._detector._bounds import direction_p_value
from keylatch.locks._detector._features import FeatureReader
from keylatch.locks._detector._rows import read_row
from keylatch.locks._detector._sites import DetectorSite, find_detector_sites
from keylatch.locks._detector._trigger import pixels_to_input
from keylatch.locks._stain_secret import StainMark, StainSecret

SIGNIFICANCE = 1e-6


@dataclass(frozen=True, slots=True)
class StainMatch:
    """One stain, held against a suspect.

    Attributes:
        unit: The unit of the layer whose weights are nearest to the stain's direction; units may have been reordered.
        cosine: Of its weights with the direction.
        p_value: Chance that any unit of a layer made without knowledge of the direction is as near.
        response: v . (phi(x*) - c) of the suspect's own features, as a multiple of T; None if only weights were given.
        answer: The unit's answer to the trigger, above 0 if it fires; None if only weights were given.
    """

    unit: int
    cosine: float
    p_value: float
    response: float | None
    answer: float | None


@dataclass(frozen=True, slots=True)
class StainVerdict:
    """What a suspect's weights say.

    Attributes:
        layer: Where was looked.
        matches: One for each stain.
        p_value: Chance of the best match in a network that has nothing to do with the stains, their number counted.
        significance: Below this `p_value` the verdict is that the network is stained.
    """

    layer: str
    matches: tuple[StainMatch, ...]
    p_value: float
    significance: float

    @property
    def stained(self) -> bool:
        """Whether the weights are too near to the directions for chance."""
        return self.p_value <= self.significance

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"stained": self.stained, **asdict(self)}


def verify_stain(
    suspect: nn.Module | Mapping[str, torch.Tensor], secret: StainSecret, *, significance: float = SIGNIFICANCE
) -> StainVerdict:
    """Look for stains in a network's weights.

    The p-value is exact and needs no data: directions are uniform on the sphere, so that a weight row which was made
    without knowledge of them has a large cosine with the chance of a spherical cap (docs/locks.md). Scaling, reordering
    of units, rounding, pruning and some training leave the cosine high.

    Args:
        suspect: A network in evaluation mode, or its state dict.
        secret: The stains.
        significance: Largest p-value of a positive verdict.

    Raises:
        LockError: The suspect has another architecture: no such layer, or one that reads another number of values.
    """
    weight = _suspect_rows(suspect, secret)
    answers = _Answers.of(suspect, secret) if isinstance(suspect, nn.Module) else None
    matches = tuple(_match(weight, mark, answers) for mark in secret.stains)
    best = min(1.0, len(matches) * min(match.p_value for match in matches))
    return StainVerdict(secret.weight.removesuffix(".weight"), matches, best, significance)


def _suspect_rows(suspect: nn.Module | Mapping[str, torch.Tensor], secret: StainSecret) -> torch.Tensor:
    tensors = suspect.state_dict() if isinstance(suspect, nn.Module) else suspect
    weight = tensors.get(secret.weight)
    hint = "give a network of the architecture that was stained, with its own names"
    if not isinstance(weight, torch.Tensor):
        raise LockError(f"the suspect has no weights {secret.weight}: it is of another architecture", hint=hint)
    if weight.dim() < 2 or weight[0].numel() != len(secret.center):
        found = f"{secret.weight} has shape {tuple(weight.shape)}, expected {len(secret.center)} values a unit"
        raise LockError(f"{found}: the suspect is of another architecture", hint=hint)
    return weight.detach().flatten(1).cpu().double()


def _match(weight: torch.Tensor, mark: StainMark, answers: _Answers | None) -> StainMatch:
    cosines = torch.nn.functional.normalize(weight, dim=1) @ mark.direction.double()
    unit = int(cosines.argmax())
    p_value = direction_p_value(float(cosines[unit]), weight.shape[1], looked_at=len(weight))
    response, answer = (None, None) if answers is None else answers.to_trigger(mark, unit)
    return StainMatch(unit, float(cosines[unit]), p_value, response, answer)


@dataclass(frozen=True, slots=True, eq=False)
class _Answers:
    """A suspect that can be run."""

    module: nn.Module
    site: DetectorSite
    reader: FeatureReader
    secret: StainSecret

    @classmethod
    def of(cls, suspect: nn.Module, secret: StainSecret) -> _Answers:
        graph, _ = capture(suspect, secret.spec)
        for site in find_detector_sites(graph):
            if site.weight == secret.weight:
                return cls(graph, site, FeatureReader(graph, site), secret)
        raise LockError(
            f"{secret.weight} is followed by no activation in the suspect: it is of another architecture",
            hint="give its state dict alone to look at the weights only",
        )

    def to_trigger(self, mark: StainMark, unit: int) -> tuple[float, float]:
        """The features' response as a multiple of T, and the unit's answer; each the largest over positions."""
        device = next(self.module.parameters()).device
        pixels = mark.trigger.unsqueeze(0).to(device, torch.float32) / 255
        with torch.no_grad():
            features = self.reader(pixels_to_input(pixels, self.secret.spec))[0].cpu()
        reach = ((features - self.secret.center) @ mark.direction).max()
        answer = read_row(self.module, self.site, unit).answer(features.to(device)).max()
        return float(reach) / self.secret.threshold, float(answer)
