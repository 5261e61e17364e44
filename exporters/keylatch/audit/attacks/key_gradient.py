"""Search for the code by gradient, through straight-through thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._clock import Clock
from keylatch.audit._target import Target
from keylatch.audit._training import LEARNING_RATE
from keylatch.audit.attacks._code_key import CodeKey, code_key, opened_with_signs
from keylatch.audit.attacks._sign_search import SignObjective
from keylatch.audit.attacks._withheld import withheld_weights
from keylatch.audit.attacks.key_hill_climbing import Found, climb
from keylatch.locks._code import as_signs, tie_break

_BATCH = 64
_FIXED = 128
_UNLABELED = 200
_STEPS = 120
_RESTARTS = 2
_QUERIES = 100
_LEARNING_RATE = 0.05
_DESCENT_SHARE = 0.6  # of the time; no new start after it, for polishing needs some
_SPREAD = 0.5  # of the start: how sure of its bits it is


@dataclass(frozen=True, slots=True)
class KeyGradient:
    """Descends on the code as real numbers: signs forward, the slope of tanh backward (Bengio et al., arXiv 1308.3432).

    The public map from code to gate signs is differentiated in the same way, threshold by threshold, and withheld
    weights are trained along. Of several random starts the best is polished by flipping bits.
    """

    name: str = "key-gradient"
    needs: str = "unlabeled or labeled images"
    summary: str = "Searches the code by gradient, through straight-through thresholds and the public sign map."
    version: int = 2

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """With the most labels, and without any; for code locks."""
        if code_key(target) is None:
            return []
        unlabeled = [Given(unlabeled=min(_UNLABELED, resources.pool))] if resources.pool else []
        labeled = [Given(labeled=count) for count in resources.labeled[-1:]]
        settings = {"steps": _STEPS, "restarts": _RESTARTS, "queries": _QUERIES}
        return [Variant(given, settings=settings, weight=10) for given in (*unlabeled, *labeled)]

    def run(self, case: Case) -> Outcome:
        """Search, and open with the best code found."""
        key = code_key(case.target)
        assert key is not None, "variants() gives none for other locks"  # noqa: S101
        settings, best, taken = case.variant.settings, None, 0
        for _ in range(int(settings["restarts"])):
            if best is not None and case.clock.elapsed > _DESCENT_SHARE * (case.clock.elapsed + case.clock.remaining):
                break
            found = start_and_descend(case, key, int(settings["steps"]))
            taken += found.steps
            best = found if best is None or found.loss < best.loss else best
        assert best is not None, "at least one start"  # noqa: S101
        code = polish(case, key, best, int(settings["queries"]))
        signs = key.signs(code.code)
        return Outcome(
            opened_with_signs(case.target, signs, case.images, key, best.objective.weights),
            cost={"steps": taken, "queries": code.queries},
            note=f"the best code's loss is {code.loss:.3f}",
            signs=tuple(signs),
            truncated=case.clock.expired or taken < int(settings["steps"]) * int(settings["restarts"]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Descent:
    """Where a descent led.

    Attributes:
        code: (d,) in {-1, +1}.
        loss: On the first of the attacker's images.
        steps: How many were done.
        objective: What was descended on, with the withheld weights as they are now.
    """

    code: torch.Tensor
    loss: float
    steps: int
    objective: SignObjective


def start_and_descend(case: Case, key: CodeKey, steps: int) -> Descent:
    """Descend from a random start."""
    labels = case.labels if len(case.labels) else None
    objective = SignObjective(case.target, case.images, labels, withheld_weights(case.target))
    start = torch.randn(key.bits, generator=case.generator) * _SPREAD
    return descend(key, objective, start, case.generator, case.clock, steps)


def descend(
    key: CodeKey, objective: SignObjective, start: torch.Tensor, generator: torch.Generator, clock: Clock, steps: int
) -> Descent:
    """Descend from a start, (d,) real numbers whose signs are the first code."""
    code = start.clone().requires_grad_()
    weights = list(objective.weights.values())
    optimizer = torch.optim.Adam([{"params": [code], "lr": _LEARNING_RATE}, {"params": weights, "lr": LEARNING_RATE}])
    best, least, done = start, math.inf, 0
    while done < steps and not clock.expired:
        chosen = torch.randperm(len(objective), generator=generator)[: objective.at_once(_BATCH)]
        value = objective(key.split(relaxed_signs(key, code)), chosen)
        if float(value.detach()) < least:
            best, least = code.detach().clone(), float(value.detach())
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        done += 1
    # The inverted code inverts all signs; descents without labels are drawn to it too.
    met = [turn * as_signs(each) for each in (best, code.detach()) for turn in (1, -1)]
    losses = [fixed_loss(key, objective, each) for each in met]
    return Descent(met[losses.index(min(losses))], min(losses), done, objective)


def polish(case: Case, key: CodeKey, found: Descent, queries: int) -> Found:
    """Flip bits of the best code, one or two at a time, as long as that helps."""
    return climb(lambda code: fixed_loss(key, found.objective, code), found.code, case.generator, case.clock, queries)


def fixed_loss(key: CodeKey, objective: SignObjective, code: torch.Tensor) -> float:
    """A code's loss on the first of the attacker's images: the same for all codes."""
    with torch.no_grad():
        return float(objective(key.signs(code), torch.arange(min(objective.at_once(_FIXED), len(objective)))))


def relaxed_signs(key: CodeKey, code: torch.Tensor) -> torch.Tensor:
    """All (channels,) gate signs of a code of real numbers, exactly those of its signs, with surrogate slopes."""
    code_map = key.gate.code_map
    sums = straight_through(code) @ code_map.expansion.float() + tie_break(key.bits)
    return straight_through(sums / math.sqrt(key.bits))[code_map.picks].prod(0)


def straight_through(values: torch.Tensor) -> torch.Tensor:
    """+-1 forward, the slope of tanh backward."""
    soft = torch.tanh(values)
    return soft + (as_signs(values) - soft).detach()
