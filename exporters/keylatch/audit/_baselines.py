"""Baselines: what somebody with the same images gets without the locked weights.

They implement the protocol of attacks and run as attacks do: same images, same steps, same training loop. A weak one
would make locks look broken, so each takes the better of two learning rates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from keylatch.audit._attack import Attack, Case, Given, Outcome, Resources, Variant
from keylatch.audit._clock import Clock
from keylatch.audit._linear_layers import linear_layers
from keylatch.audit._probe import best_probe
from keylatch.audit._public_base import with_classes
from keylatch.audit._scratch import fresh_network
from keylatch.audit._target import Target
from keylatch.audit._training import FINE_TUNE_STEPS, accuracy, fit, scores

FROM_SCRATCH, RANDOM_FEATURES, PUBLIC_BASE = "from scratch", "random features", "public base"
LEARNING_RATES = (3e-3, 1e-3)
_DEPTHS = 8  # as many as the attack that probes the locked network
_HELD_OUT_SHARE = 0.2
_LEAST_TO_HOLD_OUT = 20  # fewer images say less about a learning rate than the loss they were trained to


class FromScratch:
    """The target's architecture with fresh weights and without its gates, trained on the attacker's images."""

    name = FROM_SCRATCH
    needs = "labeled images"
    summary = "Trains the same architecture from fresh weights on the same images."
    version = 1

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:  # noqa: ARG002
        """One for each number of labeled images."""
        return [Variant(Given(labeled=count)) for count in resources.labeled]

    def run(self, case: Case) -> Outcome:
        """Train."""
        start = fresh_network(case.target, case.images, case.generator)
        state = {name: value.clone() for name, value in start.state_dict().items()}

        def restart() -> nn.Module:
            start.load_state_dict(state)
            return start

        return _trained(restart, case)


class RandomFeatures:
    """A linear classifier on the same architecture with fresh weights: what few images teach best."""

    name = RANDOM_FEATURES
    needs = "labeled images"
    summary = "Fits a linear classifier to features of the same architecture with fresh weights."
    version = 2

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:  # noqa: ARG002
        """One for each number of labeled images."""
        return [Variant(Given(labeled=count)) for count in resources.labeled]

    def run(self, case: Case) -> Outcome:
        """Fit at every depth, keep the best by leave-one-out accuracy."""
        network = fresh_network(case.target, case.images, case.generator)
        places = [layer.node.inputs[0] for layer in linear_layers(network, case.target.gate_names)[-_DEPTHS:]]
        best, truncated = best_probe(case, network, list(dict.fromkeys(places)))
        return Outcome(best.predict, {"features": best.features}, truncated=truncated)


class PublicBase:
    """The public network that the model was fine-tuned from, fine-tuned on the attacker's images."""

    name = PUBLIC_BASE
    needs = "the public base, labeled images"
    summary = "Fine-tunes the public base on the same images."
    version = 1

    def __init__(self, base_classes: int) -> None:
        self._base_classes = base_classes

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:  # noqa: ARG002
        """One for each number of labeled images, and the base as it is if its classes may be the model's."""
        if not resources.base:
            return []
        counts = [0, *resources.labeled] if self._base_classes == resources.classes else resources.labeled
        return [Variant(Given(labeled=count, base=True)) for count in counts]

    def run(self, case: Case) -> Outcome:
        """Fine-tune."""
        if case.base is None:
            raise ValueError("the public base was not given")
        base = case.base.float()
        if not case.variant.given.labeled:
            return Outcome(base, {"steps": 0})
        start = base if self._base_classes == case.classes else with_classes(base, case.images, case.classes)
        state = {name: value.clone() for name, value in start.state_dict().items()}

        def restart() -> nn.Module:
            start.load_state_dict(state)
            return start

        return _trained(restart, case)


def baselines_for(base_classes: int | None) -> tuple[Attack, ...]:
    """All baselines that are trained.

    Args:
        base_classes: Number of the public base's classes, if there is one.
    """
    untaught = (FromScratch(), RandomFeatures())
    return untaught if base_classes is None else (*untaught, PublicBase(base_classes))


def _trained(restart: Callable[[], nn.Module], case: Case) -> Outcome:
    """Choose a learning rate, and train with it on all images."""
    rate, choosing_steps = _choose_rate(restart, case)
    network = restart()
    steps = _fit(network, case, slice(None), rate, FINE_TUNE_STEPS, case.clock)
    cost = {"steps": steps, "choosing_steps": choosing_steps, "learning_rate": rate}
    return Outcome(network, cost, truncated=steps < FINE_TUNE_STEPS and case.clock.expired)


def _choose_rate(restart: Callable[[], nn.Module], case: Case) -> tuple[float, int]:
    """The learning rate with the best accuracy on held-out images, after half as many steps."""
    count = len(case.labels)
    held_out = round(count * _HELD_OUT_SHARE) if count >= _LEAST_TO_HOLD_OUT else 0
    merits, total = [], 0
    for index, rate in enumerate(LEARNING_RATES):
        network = restart()
        # Equal parts of the time to the rates, and as much as all of them together to the training that counts.
        clock = Clock(case.clock.remaining / (2 * len(LEARNING_RATES) - index))
        total += _fit(network, case, slice(held_out, None), rate, FINE_TUNE_STEPS // 2, clock)
        merits.append(_merit(network, case, held_out))
    return LEARNING_RATES[merits.index(max(merits))], total


def _merit(network: nn.Module, case: Case, held_out: int) -> tuple[float, float]:
    """Accuracy on the held-out images and the negated loss on them; of all images if none are held out."""
    images, labels = (case.images[:held_out], case.labels[:held_out]) if held_out else (case.images, case.labels)
    images = images[: len(labels)]
    loss = float(nn.functional.cross_entropy(scores(network, images), labels))
    reached = accuracy(network, images, labels) if held_out else 0.0
    return (reached, -loss) if loss == loss else (-1.0, 0.0)  # NaN: training failed


def _fit(network: nn.Module, case: Case, part: slice, rate: float, steps: int, clock: Clock) -> int:
    labels = case.labels[part]
    images = case.images[: len(case.labels)][part]
    return fit(
        network,
        [parameter for parameter in network.parameters() if parameter.requires_grad],
        images,
        labels,
        steps=steps,
        clock=clock,
        generator=case.generator,
        learning_rate=rate,
    )
