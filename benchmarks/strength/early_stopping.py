"""Training that stops where held-out images say so, at the best of a few learning rates."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from keylatch.audit import LabeledImages
from keylatch.audit._training import BATCH, scores, shifted

RATES = (5e-4, 2e-3, 8e-3)  # the same for everybody who trains; a quarter of the steps tells them apart
_TRIAL_SHARE = 0.25
_HELD_OUT_SHARE, _MOST_HELD_OUT = 0.2, 100
_LOOKS = 5  # at the held-out images while it trains, and one before
_WARM_UP_SHARE = 0.1
_LARGEST_GRADIENT = 5.0

Begin = Callable[[], nn.Module]
Merit = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A network as it was when it did best.

    Attributes:
        network: In evaluation mode.
        merit: Accuracy on the held-out images in percent, and the negated loss on them.
        rate: The learning rate.
        step: After which it did best; 0 if training made nothing better.
    """

    network: nn.Module
    merit: Merit
    rate: float
    step: int


def train_best(begin: Begin, images: LabeledImages, *, steps: int, seed: int, moving_statistics: bool) -> Trained:
    """Choose a learning rate by short trials on all but a fifth of the images, and train with it; in bfloat16.

    Args:
        begin: Gives the network to start from, a fresh copy each time; its parameters that want gradients are trained.
        images: The attacker's.
        steps: Of the training that counts.
        seed: Of batches and shifts.
        moving_statistics: Whether batch normalizations work as while training; else they stay as they are.
    """
    held = min(_MOST_HELD_OUT, max(1, round(_HELD_OUT_SHARE * len(images))))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    judge, shown = images.take(order[:held]), images.take(order[held:])

    def run(rate: float, count: int) -> Trained:
        return _train(begin(), shown, judge, rate, count, seed, moving_statistics)

    rate = max(RATES, key=lambda rate: run(rate, max(1, round(_TRIAL_SHARE * steps))).merit)
    return run(rate, steps)


def _train(
    network: nn.Module, shown: LabeledImages, judge: LabeledImages, rate: float, steps: int, seed: int, moving: bool
) -> Trained:
    """Adam, one warm-up and cosine cycle, random shifts."""
    generator = torch.Generator().manual_seed(seed)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=max(2, steps + 1), pct_start=_WARM_UP_SHARE, cycle_momentum=False
    )
    best = _seen(network, judge, rate, 0)
    looks = {round(steps * look / _LOOKS) for look in range(1, _LOOKS + 1)}
    for step in range(1, steps + 1):
        chosen = torch.randint(len(shown), (min(BATCH, len(shown)),), generator=generator)
        network.train(moving)
        with torch.autocast("cpu", torch.bfloat16):
            answers = network(shifted(shown.images[chosen], generator))
        optimizer.zero_grad()
        functional.cross_entropy(answers.float(), shown.labels[chosen]).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, _LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        if step in looks:
            best = max(best, _seen(network, judge, rate, step), key=lambda found: found.merit)
    return best


def _seen(network: nn.Module, judge: LabeledImages, rate: float, step: int) -> Trained:
    network.eval()
    answers = scores(network, judge.images)
    right = 100 * float((answers.argmax(1) == judge.labels).double().mean())
    loss = float(functional.cross_entropy(answers, judge.labels))
    # A loss that is not a number compares as worse than any.
    return Trained(copy.deepcopy(network), (right, -loss) if loss == loss else (-1.0, 0.0), rate, step)
