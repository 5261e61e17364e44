"""Search for a block transform's key by gradient, on a relaxed permutation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target
from keylatch.audit.attacks._assignment import greedy_assignment
from keylatch.audit.attacks._block_key import (
    Behind,
    BlockKey,
    lone_block_key,
    opened_with_blocks,
    pixels_of,
    required_block_key,
)
from keylatch.locks import BlockTransform
from keylatch.locks._block_layout import depth_to_space, space_to_depth

_BATCH = 64
_FIXED = 128
STEPS = 200
RESTARTS = 2
_LEARNING_RATE = 0.1
_SPREAD = 0.1  # of the start: how sure of its entries it is
_ROUNDS = 10  # of normalization by rows and columns
_WARMEST, _COLDEST = 1.0, 0.1
_DESCENT_SHARE = 0.9  # of the time; no new start after it


@dataclass(frozen=True, slots=True)
class BlockKeyGradient:
    """Descends on a doubly stochastic matrix in the permutation's place, and on shares of negation.

    The matrix is Sinkhorn's of real numbers (Mena et al., "Learning latent permutations with Gumbel-Sinkhorn
    networks", arXiv 1802.08665, without its noise); its temperature falls, and at the end the likeliest entries are
    taken. The attacker has the graph, so relaxed images enter the network behind the gate.
    """

    name: str = "block-key-gradient"
    needs: str = "labeled images"
    summary: str = "Searches a block key by gradient, through a relaxed permutation and relaxed negations."
    version: int = 1

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """With the most labels; for locks that are a block transform without ffx, whose tables have no slope."""
        key = lone_block_key(target)
        if key is None or not key.is_linear:
            return []
        settings = {"steps": STEPS, "restarts": RESTARTS}
        return [Variant(Given(labeled=count), settings=settings, weight=8) for count in resources.labeled[-1:]]

    def run(self, case: Case) -> Outcome:
        """Descend from each start, and open with the key whose loss is least."""
        behind = Behind(case.target)

        def loss(shown: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
            return functional.cross_entropy(behind(shown), case.labels[chosen])

        return best_descent(case, loss, "loss")


@dataclass(frozen=True, slots=True)
class Descent:
    """Where a descent led.

    Attributes:
        transform: The key.
        loss: On the first of the attacker's images.
        steps: How many were done.
    """

    transform: BlockTransform
    loss: float
    steps: int


class RelaxedKey:
    """A key between keys.

    Args:
        key: Its public side.
        generator: Draws the start.

    Attributes:
        order: (p, p) real numbers, the relaxed permutation's logarithms; a row for each output entry.
        negation: (p,) real numbers; above zero stands for negated.
    """

    def __init__(self, key: BlockKey, generator: torch.Generator) -> None:
        self.key = key
        self.order = (torch.randn(key.entries, key.entries, generator=generator) * _SPREAD).requires_grad_()
        self.negation = (torch.randn(key.entries, generator=generator) * _SPREAD).requires_grad_()

    def shown(self, pixels: torch.Tensor, temperature: float) -> torch.Tensor:
        """(n, channels, height, width) transformed pixels in [0, 1], with slopes."""
        blocks = space_to_depth(pixels, self.key.description.block_size)
        if self.key.has("shf"):
            blocks = torch.einsum("kj,njhw->nkhw", sinkhorn(self.order / temperature), blocks)
        if self.key.has("np"):
            share = torch.sigmoid(self.negation / temperature).view(-1, 1, 1)
            blocks = blocks + share * (1 - 2 * blocks)
        return depth_to_space(blocks, self.key.description.block_size)

    def rounded(self) -> BlockTransform:
        """The nearest key."""
        transform = self.key.nothing()
        if self.key.has("shf"):
            transform = replace(transform, permutation=greedy_assignment(sinkhorn(self.order / _COLDEST)))
        return replace(transform, negated=self.negation.detach() > 0) if self.key.has("np") else transform


def sinkhorn(logarithms: torch.Tensor) -> torch.Tensor:
    """A (p, p) matrix of shares whose columns, and nearly its rows, add up to one."""
    for _ in range(_ROUNDS):
        logarithms = logarithms - logarithms.logsumexp(1, keepdim=True)
        logarithms = logarithms - logarithms.logsumexp(0, keepdim=True)
    return logarithms.exp()


# From (n, channels, height, width) transformed pixels in [0, 1] and which of the attacker's images they are.
KeyLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def best_descent(case: Case, loss: KeyLoss, measure: str) -> Outcome:
    """Descend from as many starts as the variant has restarts, and open with the key whose loss is least.

    Args:
        case: The lock is a block transform without ffx; the variant's settings are `steps` and `restarts`.
        loss: What is to be small under the right key.
        measure: Names it in the note.
    """
    steps, restarts = int(case.variant.settings["steps"]), int(case.variant.settings["restarts"])
    descents: list[Descent] = []
    for _ in range(restarts):
        if descents and case.clock.elapsed > _DESCENT_SHARE * (case.clock.elapsed + case.clock.remaining):
            break
        descents.append(descend(case, required_block_key(case.target), steps, loss))
    best = min(descents, key=lambda each: each.loss)
    done = sum(each.steps for each in descents)
    return Outcome(
        opened_with_blocks(case.target, best.transform),
        cost={"steps": done},
        note=f"the best key's {measure} is {best.loss:.3f}",
        truncated=done < steps * restarts,
    )


def descend(case: Case, key: BlockKey, steps: int, loss: KeyLoss) -> Descent:
    """Descend from a random start, cooling down; every step costs a pass over 64 images and back."""
    pixels = pixels_of(case.target.spec, case.images)
    relaxed = RelaxedKey(key, case.generator)
    optimizer = torch.optim.Adam([relaxed.order, relaxed.negation], lr=_LEARNING_RATE)
    done = 0
    while done < steps and not case.clock.expired:
        temperature = _WARMEST * (_COLDEST / _WARMEST) ** (done / steps)
        chosen = torch.randperm(len(pixels), generator=case.generator)[:_BATCH]
        value = loss(relaxed.shown(pixels[chosen], temperature), chosen)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        done += 1
    found = relaxed.rounded()
    with torch.no_grad():
        reached = float(loss(found.values(pixels[:_FIXED]), torch.arange(min(_FIXED, len(pixels)))))
    return Descent(found, reached if math.isfinite(reached) else math.inf, done)
