"""How far training repairs a sealed network, beside a network trained from scratch on the same images.

The attacker has the file: where weights are withheld is public, and all others are right. So he puts the mean of what
is left of a tensor in their places, fresh values where nothing is left, and trains: those weights alone (refill), or
all (fine-tune). From scratch is the same architecture with fresh weights. All get the same images, steps and learning
rates, and stop where a held-out fifth of the images says so.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from keylatch.audit import LabeledImages
from keylatch.audit._training import accuracy
from keylatch.locks import InputSpec, Locked, seal_lock
from strength.early_stopping import Begin, train_best
from strength.subjects import SUBJECTS

ATTACKS = ("refill", "fine-tune")
FROM_SCRATCH = "from scratch"

Row = dict[str, Any]


def recovery(name: str, network: nn.Module, shares: Sequence[float], settings: argparse.Namespace) -> Iterator[Row]:
    """One row for each number of images, share and attack; what is measured is kept in the working folder.

    Args:
        name: Of the subject.
        network: It.
        shares: To seal, by influence.
        settings: data, work, granularity, labeled, steps and seeds.
    """
    subject = SUBJECTS[name]
    classes = network(torch.zeros(1, *subject.spec.shape)).shape[1]
    images = subject.images(settings.data, classes)
    pool = len(images.attacker.labels)

    def measured(attack: str, labeled: int, begin: Callable[[], Begin], *sealed: object) -> list[float]:
        case = (name, attack, *sealed, labeled, settings.steps)
        return [
            _cell(".".join(map(str, (*case, seed))).replace(" ", "_"), settings, begin,
                  _drawn(images.attacker, labeled, seed), images.evaluation, seed, attack)
            for seed in range(settings.seeds)
        ]  # fmt: skip

    for labeled in settings.labeled or subject.labeled:
        scratch = measured(FROM_SCRATCH, labeled, lambda: lambda: _fresh(network))
        for share, attack in itertools.product(shares, ATTACKS):

            def begin(share: float = share, attack: str = attack) -> Begin:
                return starting(attack, network, _sealed(network, subject.spec, share, settings.granularity))

            found = measured(attack, labeled, begin, settings.granularity, f"{share:g}")
            yield {
                "share": share, "granularity": settings.granularity, "labeled": labeled, "attack": attack,
                "recovered": _mean(found), "from_scratch": _mean(scratch), "runs": found,
                "from_scratch_runs": scratch, "pool": pool, "steps": settings.steps,
            }  # fmt: skip


def _sealed(network: nn.Module, spec: InputSpec, share: float, granularity: Any) -> Locked:
    return seal_lock(network, spec, share=share, granularity=granularity, seed=bytes(32))


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 2)


def _cell(
    name: str,
    settings: argparse.Namespace,
    begin: Callable[[], Begin],
    shown: LabeledImages,
    evaluation: LabeledImages,
    seed: int,
    attack: str,
) -> float:
    """Accuracy in percent, measured now or on an earlier day."""
    kept = settings.work / f"recovery.{name}.json"
    if not kept.exists():
        print(f"  {name}", file=sys.stderr, flush=True)
        torch.manual_seed(seed)
        made = train_best(
            begin(), shown, steps=settings.steps, seed=seed, moving_statistics=attack != ATTACKS[0]
        )  # withheld weights alone are fitted to the statistics, which are right
        right = accuracy(made.network, evaluation.images, evaluation.labels)
        facts = {"accuracy": round(right, 2), "held_out": made.merit[0], "rate": made.rate, "step": made.step}
        kept.write_text(json.dumps(facts))
    return float(json.loads(kept.read_text())["accuracy"])


def _drawn(images: LabeledImages, count: int, seed: int) -> LabeledImages:
    return images.take(torch.randperm(len(images), generator=torch.Generator().manual_seed(1000 + seed))[:count])


def _fresh(network: nn.Module) -> nn.Module:
    made = copy.deepcopy(network)
    for module in made.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    return made.requires_grad_(True)


def starting(attack: str, network: nn.Module, locked: Locked) -> Begin:
    """The network with guesses in the withheld places; of these alone gradients pass, or of all weights."""
    filled = copy.deepcopy(network)
    parts = locked.module.withheld.parts
    for part in parts:
        weight = filled.get_parameter(part.parameter).data
        left = weight[~part.mask()]
        part.write(weight, torch.full(part.shape, float(left.mean())) if len(left) else _fresh_values(part.shape))

    def begin() -> nn.Module:
        made = copy.deepcopy(filled).requires_grad_(attack != ATTACKS[0])
        if attack == ATTACKS[0]:
            for part in parts:
                weight, mask = made.get_parameter(part.parameter), part.mask()
                weight.requires_grad_(True)
                weight.register_hook(lambda gradient, mask=mask: gradient * mask)  # type: ignore[no-untyped-call]
        return made

    return begin


def _fresh_values(shape: tuple[int, ...]) -> torch.Tensor:
    values = torch.zeros(shape)
    return nn.init.kaiming_normal_(values) if values.dim() > 1 else values
