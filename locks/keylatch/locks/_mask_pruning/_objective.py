"""What a mask is learned for (arXiv 2403.04149): KL(p_s|y_s) - min(lambda KL(p_t|y_t), alpha).

With a class y in place of a distribution, KL(p|y) is the cross-entropy -log p[y], in nats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch.nn import functional

TARGET_WEIGHT = 0.1  # lambda
TARGET_CAP = 1.0  # alpha: past it the target is lost already, and only the source is hurt by going on
MADE_TARGET_CAP = 0.5  # where source images are made: they do not show all that going on hurts

Labeled: TypeAlias = tuple[torch.Tensor, torch.Tensor]  # pixels (N, C, H, W), classes (N,)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The images of a step.

    Attributes:
        source: What the network is to serve.
        targets: Domains that a license brings, by name.
    """

    source: Labeled
    targets: Mapping[str, Labeled]


@dataclass(frozen=True, slots=True)
class Objective:
    """The loss of a mask.

    Attributes:
        target_weight: lambda.
        target_cap: alpha.
    """

    target_weight: float = TARGET_WEIGHT
    target_cap: float = TARGET_CAP

    def __call__(self, scores: torch.Tensor, batch: Batch, unpaid: Sequence[str]) -> torch.Tensor:
        """The loss, a number.

        Args:
            scores: (N, classes) of the masked network, for the source's images and then each target's.
            batch: Their classes.
            unpaid: Targets whose masks are applied. The others are kept as the source is.
        """
        sizes = [len(batch.source[1]), *(len(labels) for _, labels in batch.targets.values())]
        source, *rest = torch.split(scores.float(), sizes)
        kept, lost = [functional.cross_entropy(source, batch.source[1])], []
        for (name, (_, labels)), part in zip(batch.targets.items(), rest, strict=True):
            divergence = functional.cross_entropy(part, labels)
            if name in unpaid:
                lost.append((self.target_weight * divergence).clamp(max=self.target_cap))
            else:
                kept.append(divergence)
        return torch.stack(kept).mean() - torch.stack(lost).mean()
