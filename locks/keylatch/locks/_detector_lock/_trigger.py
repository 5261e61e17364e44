"""A patch that a detector answers to, whatever the rest of the image is: gradient ascent over the corner's pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from keylatch.locks._detector._disturbances import round_to_bytes
from keylatch.locks._detector._features import batches_of
from keylatch.locks._detector._trigger import MARGIN, pixels_to_input
from keylatch.locks._detector_lock._paste_gate import PasteGate
from keylatch.locks._randomness import SeededDraws

STEPS = 160
_CHECK_EVERY = 10
_TOGETHER = 4  # images a step: four steps with four each climb further than two with eight
_RATE = 0.05
_LEAST_SHARE = 0.25  # of the mean response beyond T, which every image with the patch must reach
# Where the ascent ends early, as multiples of T: for all images that it climbed with.
_GOAL_MEAN, _GOAL_LEAST = 2.2, 1.8

Respond = Callable[[torch.Tensor], torch.Tensor]
"""Images as the network takes them to responses v . (phi - c), (N,)."""


@dataclass(frozen=True, slots=True, eq=False)
class PatchTrigger:
    """A patch for one direction.

    Attributes:
        pixels: (C, k, k) uint8.
        responses: (N,) float64, to images that it did not climb with.
    """

    pixels: torch.Tensor
    responses: torch.Tensor

    @property
    def reach(self) -> float:
        """The mean response."""
        return float(self.responses.mean())

    @property
    def least(self) -> float:
        """The smallest response."""
        return float(self.responses.min())

    def is_enough(self, threshold: float) -> bool:
        """Whether it reaches its margin on average, and in every image a quarter of what the mean has beyond T."""
        least = threshold + _LEAST_SHARE * (self.reach - threshold)
        return self.reach >= MARGIN * threshold and self.least >= least


def find_patch_trigger(
    respond: Respond, gate: PasteGate, climb: torch.Tensor, judge: torch.Tensor, threshold: float, draws: SeededDraws,
    *, steps: int | None = None,
) -> PatchTrigger:  # fmt: skip
    """Climb to a patch; that one on the way is kept whose least response is the largest.

    Args:
        respond: The detector's responses.
        gate: Pastes patches.
        climb: Images to climb with, (N, *spec.shape), float.
        judge: Others, to tell what was reached.
        threshold: T.
        draws: For the start, and which images come next.
        steps: At most; default `STEPS`.
    """
    size, spec = gate.place.size, gate.spec
    pixels = draws.uniform(1, spec.channels, size, size).float().to(climb.device).requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr=_RATE)
    best, least, order = pixels.detach().clone(), -torch.inf, draws.permutation(len(climb))
    for step in range(STEPS if steps is None else steps):
        if step % _CHECK_EVERY == 0:
            answers = _responses(respond, gate, climb[: 4 * _TOGETHER], pixels.detach()) / threshold
            if float(answers.min()) > least:
                best, least = pixels.detach().clone(), float(answers.min())
            if least >= _GOAL_LEAST and float(answers.mean()) >= _GOAL_MEAN:
                break
        shown = climb[order.roll(-step * _TOGETHER)[:_TOGETHER].to(climb.device)]
        answers = respond(gate.pasted(shown, _patches(gate, round_to_bytes(pixels), len(shown)))) / threshold
        (answers.mean() + answers.min()).neg().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            pixels.clamp_(0, 1)
    rounded = (best[0] * 255).round().to(torch.uint8)
    return PatchTrigger(rounded.cpu(), _responses(respond, gate, judge, rounded.unsqueeze(0).float() / 255).cpu())


def _patches(gate: PasteGate, pixels: torch.Tensor, count: int) -> torch.Tensor:
    """Pixels (1, C, k, k) in [0, 1] as the network takes them, one patch for each image."""
    return pixels_to_input(pixels, gate.spec).expand(count, -1, -1, -1)


def _responses(respond: Respond, gate: PasteGate, images: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        shown = round_to_bytes(pixels)
        parts = [respond(gate.pasted(part, _patches(gate, shown, len(part)))) for part in batches_of(images)]
    return torch.cat(parts).double()
