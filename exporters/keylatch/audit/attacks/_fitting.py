"""Train several starts on the attacker's labeled images, and keep what does best on a held-out share of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn

from keylatch.audit._attack import Case, Outcome, Predict
from keylatch.audit._clock import Clock
from keylatch.audit._images import LabeledImages
from keylatch.audit._training import FINE_TUNE_STEPS, fit, scores
from keylatch.audit.attacks._choice import hold_out, labeled_merit
from keylatch.audit.attacks._sign_search import information_loss
from keylatch.audit.onnx_network import OnnxNetwork

_LEAST_TRUSTED = 0.5
TRIAL_SHARE = 0.25  # of the steps: enough to tell starts and rates apart
_CLEARLY_RIGHT = 4.0  # standard deviations above chance


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A network before training.

    Attributes:
        network: It.
        parameters: What is trained.
        finish: What is done to them after training, e.g. rounding.
    """

    network: OnnxNetwork
    parameters: Sequence[nn.Parameter]
    finish: Callable[[], None] = lambda: None


Build: TypeAlias = Callable[[], Start]


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """A start, and how fast it is trained. Recipes of one and the same `build` share what that takes.

    Attributes:
        build: Makes the start; it may take many passes over the images, to center gates.
        learning_rate: The largest.
    """

    build: Build
    learning_rate: float


def at_rates(builds: Mapping[str, Build], rates: Iterable[float]) -> dict[str, Recipe]:
    """Each start at each rate, by a name for the note."""
    return {f"{name}, rate {rate}": Recipe(build, rate) for name, build in builds.items() for rate in rates}


def fit_best(
    case: Case, recipes: Mapping[str, Recipe], *, steps: int = FINE_TUNE_STEPS, own: LabeledImages | None = None
) -> Outcome:
    """Try every recipe for a quarter of the steps, choose one, and train it in full on all labeled images.

    The choice is by accuracy and loss on a held-out fifth. Of few images none are held out: accuracy before training,
    which is not fitted to them, counts as much as that after it. A network that is clearly right before any training
    may win: better than the trial, and four standard deviations above chance.

    Args:
        case: Its clock is shared out by steps.
        recipes: By a name for the note.
        steps: Of the training that counts.
        own: More images to train on, with labels that the attacker has guessed.
    """
    known = LabeledImages(case.images[: len(case.labels)], case.labels)
    rest, held = hold_out(case.labels, case.generator)
    held_out, trial = len(rest) < len(known), max(1, round(TRIAL_SHARE * steps))
    judge = known.take(held) if len(known) or own is None else own
    merit = labeled_merit(judge.images, judge.labels)
    best, untrained, done = _Best(), _Best(), 0
    starts: dict[Build, _Kept] = {}
    for place, (name, recipe) in enumerate(recipes.items()):
        if best.kept is not None and case.clock.expired:
            break
        if recipe.build not in starts:
            starts[recipe.build] = _Kept(recipe.build(), merit)
        kept = starts[recipe.build]
        untrained.offer(kept, kept.merit, f"{name}, untrained", recipe.learning_rate)
        shares = len(recipes) - place + 1 / TRIAL_SHARE
        done += _fit(case, kept, recipe.learning_rate, _joined(known.take(rest), own), trial, shares)
        right, loss = merit(kept.start.network)
        reached = (right, loss) if held_out else (kept.merit[0] + right, loss)
        best.offer(kept, reached, name, recipe.learning_rate)
    assert best.kept is not None, "no recipes"  # noqa: S101
    assert untrained.kept is not None  # noqa: S101
    if untrained.merit > best.merit and untrained.merit[0] > _lucky(case.classes, len(judge)):
        network = untrained.kept.again().network
        return Outcome(network, {"steps": done}, f"best: {untrained.name}", truncated=case.clock.expired)
    done += _fit(case, best.kept, best.learning_rate, _joined(known, own), steps, 1)
    truncated = done < trial * len(recipes) + steps
    return Outcome(best.kept.start.network, {"steps": done}, f"best: {best.name}", truncated=truncated)


def _lucky(classes: int, images: int) -> float:
    """Share of right answers that guessing reaches by luck only."""
    chance = 1 / classes
    return chance + _CLEARLY_RIGHT * math.sqrt(chance * (1 - chance) / max(1, images))


def own_labels(case: Case, network: Predict) -> LabeledImages | None:
    """A network's predictions for images without labels, where they are surest, as many of each class.

    Pseudo-labels (Lee, ICML workshop 2013): they help a network that is right more often than not. None for one that is
    wrong on half of the labeled images.
    """
    count = len(case.labels)
    unknown = case.images[count:]
    trusted = not count or labeled_merit(case.images[:count], case.labels)(network)[0] > _LEAST_TRUSTED
    if not trusted or not len(unknown):
        return None
    sure, classes = scores(network, unknown).softmax(1).max(1)
    most = max(1, len(unknown) // (2 * case.classes))
    chosen = torch.cat([_surest(sure, classes == label, most) for label in range(case.classes)])
    return LabeledImages(unknown[chosen], classes[chosen])


class _Kept:
    """A start that can be trained again and again.

    Args:
        start: It, untrained.
        merit: Judges it as it is.

    Attributes:
        merit: Untrained.
    """

    def __init__(self, start: Start, merit: Callable[[OnnxNetwork], tuple[float, float]]) -> None:
        self.start, self.merit = start, merit(start.network)
        self._values = [parameter.detach().clone() for parameter in start.parameters]

    def again(self) -> Start:
        """The start as it was before any training."""
        with torch.no_grad():
            for parameter, value in zip(self.start.parameters, self._values, strict=True):
                parameter.copy_(value)
        return self.start


@dataclass(slots=True, eq=False)
class _Best:
    """The best so far."""

    kept: _Kept | None = None
    merit: tuple[float, float] = (-math.inf, -math.inf)
    name: str = ""
    learning_rate: float = 0.0

    def offer(self, kept: _Kept, merit: tuple[float, float], name: str, learning_rate: float) -> None:
        """Keep a start if it is better; the first in any case."""
        if self.kept is None or merit > self.merit:
            self.kept, self.merit, self.name, self.learning_rate = kept, merit, name, learning_rate


def _surest(sure: torch.Tensor, eligible: torch.Tensor, most: int) -> torch.Tensor:
    places = eligible.nonzero()[:, 0]
    return places[sure[places].argsort(descending=True, stable=True)[:most]]


def fit_unlabeled(case: Case, start: Start, learning_rate: float, *, steps: int = FINE_TUNE_STEPS) -> int:
    """Train on images alone, for sharp and balanced predictions; gives the steps done.

    The information maximization of SHOT (arXiv 2002.08546, section 3.2); TENT (arXiv 2006.10726) is its first half.
    """
    unknown = torch.zeros(len(case.images), dtype=torch.int64)
    done = fit(
        start.network, start.parameters, case.images, unknown, steps=steps, clock=case.clock,
        generator=case.generator, learning_rate=learning_rate, loss=_uninformed,
    )  # fmt: skip
    start.finish()
    return done


def _uninformed(values: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return information_loss(values)


def _joined(known: LabeledImages, own: LabeledImages | None) -> LabeledImages:
    if own is None:
        return known
    return LabeledImages(torch.cat([known.images, own.images]), torch.cat([known.labels, own.labels]))


def _fit(case: Case, kept: _Kept, learning_rate: float, shown: LabeledImages, steps: int, shares: float) -> int:
    """Train a start from where it began; the steps done."""
    start = kept.again()
    done = fit(
        start.network, start.parameters, shown.images, shown.labels, steps=steps,
        clock=Clock(case.clock.remaining / shares), generator=case.generator, learning_rate=learning_rate,
    )  # fmt: skip
    start.finish()
    return done
