"""What learning masks gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from keylatch.locks._mask_pruning._overlap import DomainOverlap
from keylatch.locks._training_checkpoint import EpochResult


@dataclass(frozen=True, slots=True)
class DomainMaskReport:
    """One domain's mask.

    Attributes:
        name: The domain.
        images: That it was learned from; 0 if they were made.
        withheld: Weights that a license for it brings.
        share: Of the weights that masks may take from.
    """

    name: str
    images: int
    withheld: int
    share: float


@dataclass(frozen=True, slots=True)
class MaskReport:
    """How masks were learned.

    Attributes:
        setting: ``SA``, ``SF`` or ``DF``.
        granularity: ``element`` or ``channel``.
        domains: One entry for each.
        parameters: Weights that masks may take from.
        source_images: Given ones; 0 if they were made.
        normalizations: Batch normalizations whose statistics made images were fitted to; of no matter for SA.
        overlaps: Each pair of given domains.
        epochs: Done.
        seconds: Spent.
        history: For each epoch the loss, and the accuracy on source images with all masks applied, in percent.
    """

    setting: str
    granularity: str
    domains: tuple[DomainMaskReport, ...]
    parameters: int
    source_images: int
    normalizations: int
    overlaps: tuple[DomainOverlap, ...]
    epochs: int
    seconds: float
    history: tuple[EpochResult, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class DomainMasks:
    """Masks of domains.

    Attributes:
        masks: For each domain, by parameter name, bool of the parameter's shape: True where the weight is withheld for
            the domain. Parameters of which nothing is withheld are left out.
        report: How they were learned.
    """

    masks: Mapping[str, Mapping[str, torch.Tensor]]
    report: MaskReport
