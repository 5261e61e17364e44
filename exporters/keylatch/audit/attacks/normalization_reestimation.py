"""Measuring anew what normalizations subtract and divide by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target
from keylatch.audit.attacks._choice import unlabeled_merit
from keylatch.audit.attacks._free_gates import (
    attacked_network,
    constant,
    fix_controls,
    put_centers,
    steered_gates,
    without_effect,
)
from keylatch.audit.onnx_network import Node, OnnxNetwork

_COUNTS = (100, 1000)
_BATCH = 50


@dataclass(frozen=True, slots=True)
class NormalizationReestimation:
    """Puts means and variances of the attacker's images in place of the file's."""

    name: str = "normalization-reestimation"
    needs: str = "unlabeled images"
    summary: str = "Estimates batch-normalization statistics and gate centers on unlabeled images, gates held at +1."
    version: int = 1

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """Few and many images; for networks with normalizations or gates."""
        if not target.gates and not _normalizations(target.network()):
            return []
        counts = sorted({min(count, resources.pool) for count in _COUNTS} - {0})
        return [Variant(Given(unlabeled=count), weight=0.3) for count in counts]

    def run(self, case: Case) -> Outcome:
        """Estimate, with the gates' controls as the image gives them and without effect, and take the sharper one."""
        found: dict[str, OnnxNetwork] = {}
        truncated = False
        for name, held in (("gates without effect", True), ("gates as they are", False)):
            if found and case.clock.expired:
                truncated = True
                break
            found[name] = _reestimated(case, held)
        merit = unlabeled_merit(case.images)
        best = max(found, key=lambda name: merit(found[name]))
        return Outcome(found[best], note=best, truncated=truncated)


def _reestimated(case: Case, held: bool) -> OnnxNetwork:
    network, image = attacked_network(case), case.images[:1]
    for gate in steered_gates(network, case.target.gates, image) if held else ():
        fix_controls(network, [gate], constant(without_effect(gate)), image)
    positions = {node.name: place for place, node in enumerate(network.nodes)}
    steps = [*_normalizations(network), *(network.nodes[positions[gate.node]] for gate in case.target.gates)]
    gates = {gate.node: gate for gate in case.target.gates}
    for node in sorted(steps, key=lambda node: positions[node.name]):  # later ones are measured on corrected data
        if node.name in gates:
            put_centers(network, case, [gates[node.name]])
        else:
            _normalize(network, node, case.images)
    return network


def _normalizations(network: OnnxNetwork) -> list[Node]:
    return [node for node in network.nodes if node.op == "BatchNormalization"]


def _normalize(network: OnnxNetwork, node: Node, images: torch.Tensor) -> None:
    """Put the mean and variance of what a normalization reads in place of its own."""
    _, _, _, mean_name, variance_name = node.inputs
    total, squares, count = torch.zeros(1), torch.zeros(1), 0
    for batch in torch.split(images, _BATCH):
        with torch.no_grad():
            rows = network.values(batch, [node.inputs[0]])[node.inputs[0]].double().transpose(0, 1).flatten(1)
        total, squares, count = total + rows.sum(1), squares + rows.square().sum(1), count + rows.shape[1]
    mean = total / count
    network.substitute(mean_name, mean.float())
    network.substitute(variance_name, (squares / count - mean.square()).clamp(min=0).float())
