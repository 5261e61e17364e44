"""What was withheld."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class SealReport:
    """Sealed weights.

    Attributes:
        by: How they were chosen: ``influence``, ``first`` or ``random``.
        granularity: ``weights``, ``rows`` or ``tensors``.
        share: Withheld weights as a share of those of all convolutions and linear layers.
        withheld_bytes: What licenses, or the side file, bring: float32.
        layers: Names of the parameters that weights are withheld of.
        calibration: Where the images come from that influence was measured on; "" where none were needed.
    """

    by: str
    granularity: str
    share: float
    withheld_bytes: int
    layers: tuple[str, ...]
    calibration: str = ""

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Self:
        """Read what `dataclasses.asdict` gave."""
        return cls(**{**facts, "layers": tuple(facts["layers"])})


@dataclass(frozen=True, slots=True)
class DomainReport:
    """Domains whose weights are withheld.

    Attributes:
        names: Sorted.
        weights: How many each domain's masks cover.
        overlaps: For each two domains the share of weights that both cover, of those that either does. What both
            cover stays zero until both are paid for.
    """

    names: tuple[str, ...]
    weights: tuple[int, ...]
    overlaps: tuple[tuple[str, str, float], ...]

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Self:
        """Read what `dataclasses.asdict` gave."""
        overlaps = tuple((str(one), str(other), float(share)) for one, other, share in facts["overlaps"])
        return cls(tuple(facts["names"]), tuple(facts["weights"]), overlaps)
