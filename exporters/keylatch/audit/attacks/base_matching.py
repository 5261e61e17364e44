"""Undo sign changes by comparison with the public network that a model was fine-tuned from."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target
from keylatch.audit._training import LEARNING_RATE, accuracy, fit
from keylatch.audit.attacks._base_gates import FOUND, Match, match_gates
from keylatch.audit.attacks._choice import hold_out, labeled_merit, unlabeled_merit
from keylatch.audit.attacks._code_key import code_key, opened_with_signs
from keylatch.audit.attacks._withheld import weights_from_base, withheld_gates
from keylatch.audit.onnx_network import OnnxNetwork
from keylatch.errors import InputError

_UNLABELED = 200
_STEPS = 300
_GENTLE_RATE = 1e-4  # for a network that is open already; LEARNING_RATE makes it worse with few images
_NEAR = 0.9  # similarity of a base whose biases are nearer the model's than what estimated means make of them


@dataclass(frozen=True, slots=True)
class BaseMatching:
    """Finds each gated layer in the base, and turns each input channel to correlate with it.

    Fine-tuning moves weights little: a channel whose sign was changed points away from the base's. Weights that are
    withheld are taken from the base.
    """

    name: str = "base-matching"
    needs: str = "the public base, unlabeled or labeled images"
    summary: str = "Reads the signs off the public network that the model was fine-tuned from, then may train on."
    version: int = 1

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """Without labels, and with training on each number of labeled images."""
        if not resources.base or not target.gates:
            return []
        unlabeled = min(_UNLABELED, resources.pool)
        labeled = [Given(labeled=count, base=True) for count in resources.labeled]
        return [
            Variant(Given(unlabeled=unlabeled, base=True), label="signs only", weight=0.5),
            *(Variant(given, label="then fine-tuned", settings={"steps": _STEPS}, weight=2) for given in labeled),
        ]

    def run(self, case: Case) -> Outcome:
        """Match, open, and train if there are labels.

        Raises:
            InputError: The base is not there.
        """
        if case.base is None:
            raise InputError("matching needs the public base, got none", hint="audit with the base model")
        matches, network = open_with_base(case, case.base.float())
        steps = int(case.variant.settings.get("steps", 0))
        found = sum(match.similarity >= FOUND for match in matches)
        speed = _GENTLE_RATE if found == len(matches) else LEARNING_RATE
        best, done = _fine_tuned(case, network, steps, speed) if len(case.labels) else (network, 0)
        return Outcome(
            best,
            cost={"steps": done},
            note=f"{found} of {len(matches)} gated layers were found in the base",
            signs=tuple(match.signs for match in matches),
            truncated=len(case.labels) > 0 and done < steps,
        )


def open_with_base(case: Case, base: OnnxNetwork) -> tuple[list[Match], OnnxNetwork]:
    """The network with the signs and the withheld weights that the base tells, and how its gates were matched.

    The means are estimated, or done without: with the base's bias in place of b + W mu a gate needs no center. Which
    is better depends on how far the model was trained away; between the two it is decided on the attacker's images.
    """
    image, key = case.images[:1], code_key(case.target)
    weights = weights_from_base(case.target, base, image)
    replaced = withheld_gates(case.target, weights)
    matches = [
        Match(torch.ones_like(match.signs), 1.0) if gate in replaced else match
        for gate, match in zip(case.target.gates, match_gates(case.target, base, image), strict=True)
    ]
    signs = [match.signs for match in matches]
    biases = {name: bias for match in matches for name, bias in match.biases.items()}
    unbiased = [gate for gate, match in zip(case.target.gates, matches, strict=True) if match.biases]
    opened = [
        opened_with_signs(case.target, signs, case.images, key, weights, uncentered=replaced),
        opened_with_signs(case.target, signs, case.images, key, {**weights, **biases}, [*replaced, *unbiased]),
    ]
    if min(match.similarity for match in matches) >= _NEAR:
        return matches, opened[1]
    labels = case.labels
    merit = labeled_merit(case.images[: len(labels)], labels) if len(labels) else unlabeled_merit(case.images)
    return matches, max(opened, key=merit)


def _fine_tuned(case: Case, network: OnnxNetwork, steps: int, speed: float) -> tuple[OnnxNetwork, int]:
    """The network after training, or as it was if that did not help on images held out; and the steps done."""
    images, labels = case.images[: len(case.labels)], case.labels
    seen, held = hold_out(labels, case.generator)
    trained = copy.deepcopy(network)
    done = fit(
        trained,
        trained.parameters(),
        images[seen],
        labels[seen],
        steps=steps,
        clock=case.clock,
        generator=case.generator,
        learning_rate=speed,
    )
    before, after = (accuracy(each, images[held], labels[held]) for each in (network, trained))
    return (trained if after > before else network), done
