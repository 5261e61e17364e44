"""Going without the branches that hold gates: a residual network does without some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._gates import Gate
from keylatch.audit._target import Target
from keylatch.audit._training import FINE_TUNE_STEPS
from keylatch.audit.attacks._all_weights import all_weights
from keylatch.audit.attacks._choice import labeled_merit
from keylatch.audit.attacks._fitting import Build, Start, at_rates, fit_best, own_labels
from keylatch.audit.attacks._free_gates import (
    attacked_network,
    constant,
    fix_controls,
    free_fixed,
    put_centers,
    steered_gates,
    without_effect,
)
from keylatch.audit.attacks._weight_layers import downstream, varying_values
from keylatch.audit.onnx_network import OnnxNetwork

Way: TypeAlias = Literal["cut", "mean"]

_COUNTS = (100, 1000)
_RATES = (3e-4, 1e-3)
_WAYS: dict[Way, str] = {"cut": "branches cut out", "mean": "branches held at their mean"}


@dataclass(frozen=True, slots=True)
class BranchRemoval:
    """Cuts gated branches out at the sum that closes them."""

    name: str = "branch-removal"
    needs: str = "unlabeled or labeled images"
    summary: str = "Cuts out the residual branches that hold gates, or holds them at their mean, then fine-tunes."
    version: int = 1

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """Without labels, both ways; fine-tuned, the better way."""
        if not resources.pool or not gated_branches(target.network(), target.gates):
            return []
        counts = sorted({min(count, resources.pool) for count in _COUNTS})
        unlabeled = [
            Variant(Given(unlabeled=count), label, {"way": way}, 0.5)
            for way, label in _WAYS.items()
            for count in counts
        ]
        settings: dict[str, int | str] = {"way": "best", "steps": FINE_TUNE_STEPS}
        tuned = [Variant(Given(counts[-1], labeled), "then fine-tuned", settings, 8.0) for labeled in resources.labeled]
        return [*unlabeled, *tuned]

    def run(self, case: Case) -> Outcome:
        """Cut, and fine-tune if there are labels."""
        if not len(case.labels):
            way: Way = "cut" if case.variant.settings["way"] == "cut" else "mean"
            network = _without_branches(case, way)
            return Outcome(network, note=f"{len(gated_branches(network, case.target.gates))} branches")
        recipes = at_rates({label: _build(case, way) for way, label in _WAYS.items()}, _RATES)
        merit = labeled_merit(case.images[: len(case.labels)], case.labels)
        untrained = max((_without_branches(case, way) for way in _WAYS), key=merit)
        return fit_best(case, recipes, own=own_labels(case, untrained))


def gated_branches(network: OnnxNetwork, gates: Sequence[Gate]) -> dict[Gate, tuple[str, str]]:
    """Gates that stand in a branch: to the sum that closes the innermost one, and the other summand.

    A sum closes a gate's branch if one summand follows from the gate and the other from the image without it.
    """
    varying, controls = varying_values(network), {gate.control for gate in gates}
    branches = {}
    for gate in gates:
        after = downstream(network, gate.output)
        for node in network.nodes:
            within = [name for name in node.inputs if name in after]
            beside = [name for name in node.inputs if name in varying - after]
            if node.op == "Add" and len(within) == 1 and len(beside) == 1 and beside[0] not in controls:
                branches[gate] = node.outputs[0], beside[0]
                break
    return branches


def _without_branches(case: Case, way: Way) -> OnnxNetwork:
    """Cut or hold the gated branches; other gates have no effect; centers are estimated on what is left.

    A gated layer's stored bias is its mean output, whatever the signs: held at 0, a gate leaves just that.
    """
    network, image = attacked_network(case), case.images[:1]
    branches = gated_branches(network, case.target.gates)
    for gate in steered_gates(network, case.target.gates, image):
        held = 0.0 if gate in branches else without_effect(gate)
        fix_controls(network, [gate], constant(held), image)
    if way == "cut":
        for total, shortcut in branches.values():
            network.substitute(total, shortcut)
    put_centers(network, case)
    return network


def _build(case: Case, way: Way) -> Build:
    """All weights and gates; a branch that was held may grow back."""

    def start() -> Start:
        network, image = _without_branches(case, way), case.images[:1]
        free_fixed(network, steered_gates(network, case.target.gates, image), image)
        return Start(network, all_weights(network, case.target))

    return start
