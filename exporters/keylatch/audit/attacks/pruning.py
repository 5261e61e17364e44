"""Pruning small weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target
from keylatch.audit.attacks._free_gates import attacked_network
from keylatch.audit.attacks._weight_layers import effective_value, weight_layers

_PERCENTS = (10, 30, 50, 70, 90)


@dataclass(frozen=True, slots=True)
class Pruning:
    """Sets the smallest weights to zero, in case the lock is in them."""

    name: str = "pruning"
    needs: str = "the artifact only"
    summary: str = "Sets the smallest weights of all layers to zero."
    version: int = 1

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """Shares of all weights."""
        del target, resources
        return [
            Variant(Given(), f"{percent} % of the weights", {"percent": percent}, weight=0.1) for percent in _PERCENTS
        ]

    def run(self, case: Case) -> Outcome:
        """Prune by magnitude, one threshold for the whole network."""
        network = attacked_network(case)
        image = torch.zeros((1, *case.target.spec.shape), dtype=case.target.spec.torch_dtype)
        names = list(dict.fromkeys(layer.weight for layer in weight_layers(network, case.target.gates)))
        weights = {name: effective_value(network, name, image).clone() for name in names}
        sizes = torch.cat([weight.abs().flatten() for weight in weights.values()])
        count = max(1, round(len(sizes) * float(case.variant.settings["percent"]) / 100))
        threshold = sizes.kthvalue(count).values  # not `quantile`: it takes 2^24 numbers at most
        for name, weight in weights.items():
            network.substitute(name, weight.masked_fill(weight.abs() <= threshold, 0.0))
        return Outcome(network, {"pruned": count})
