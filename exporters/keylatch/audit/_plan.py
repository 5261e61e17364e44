"""Which cells an audit has, and in which order: broad first, so that an audit cut short has a bit of everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from keylatch.audit._attack import Attack, Resources, Variant
from keylatch.audit._scene import Scene

# A baseline trains for as many steps as an attack, choosing included. The other half is for safety: what it leaves
# flows on, and one that is cut short leaves attacks unjudged.
_BASELINE_WEIGHT = 1.5


@dataclass(frozen=True, slots=True)
class Cell:
    """One attack or baseline, with one budget and one seed.

    Attributes:
        attack: Attacks and baselines run the same way.
        variant: The budget.
        seed: Draws images and everything else.
        is_baseline: Whether attacks are compared with it.
    """

    attack: Attack
    variant: Variant
    seed: int
    is_baseline: bool = False

    @property
    def title(self) -> str:
        """What progress displays call it, without the seed."""
        return f"{self.attack.name}, {self.budget}"

    @property
    def budget(self) -> str:
        """The variant in words, what is given included."""
        given = str(self.variant.given)
        return f"{self.variant.label}, {given}" if self.variant.label else given

    def facts(self, scene: Scene) -> dict[str, Any]:
        """Everything that the result depends on; the cache's key."""
        given = self.variant.given
        return {
            "model_id": scene.target.model_id,
            "attack": self.attack.name,
            "version": self.attack.version,
            "is_baseline": self.is_baseline,
            "given": asdict(given),
            "label": self.variant.label,
            "settings": dict(self.variant.settings),
            "seed": self.seed,
            "attacker": scene.images.attacker.sha256,
            "evaluation": scene.images.evaluation.sha256,
            "base": scene.base.sha256 if given.base and scene.base is not None else "",
            "owner": scene.owner is not None,  # who alone can tell right signs from wrong ones
        }


def plan_cells(
    attacks: Sequence[Attack],
    baselines: Sequence[Attack],
    scene: Scene,
    resources: Resources,
    seeds: Sequence[int],
) -> tuple[Cell, ...]:
    """Plan an audit.

    Args:
        attacks: What is run.
        baselines: Run with the numbers of labeled images that occur in the attacks.
        scene: What it works on.
        resources: What attacks can ask for.
        seeds: All cells are run with each.

    Returns:
        Seed by seed: baselines, then attacks, cheap ones first.
    """
    attacking = [(attack, variant) for attack in attacks for variant in attack.variants(scene.target, resources)]
    weights = _weights([variant for _, variant in attacking])
    asked = replace(resources, labeled=tuple(sorted(weights)))
    measured = [
        (baseline, replace(variant, weight=_BASELINE_WEIGHT * weights.get(variant.given.labeled, variant.weight)))
        for baseline in baselines
        for variant in baseline.variants(scene.target, asked)
    ]
    measured.sort(key=lambda pair: pair[1].given.labeled)
    attacking.sort(key=lambda pair: pair[1].weight)
    return tuple(
        Cell(attack, variant, seed, is_baseline)
        for seed in seeds
        for is_baseline, pairs in ((True, measured), (False, attacking))
        for attack, variant in pairs
    )


def _weights(variants: Sequence[Variant]) -> dict[int, float]:
    """For each number of labeled images the largest weight of a variant with it."""
    weights: dict[int, float] = {}
    for variant in variants:
        count = variant.given.labeled
        if count:
            weights[count] = max(variant.weight, weights.get(count, 0.0))
    return weights
