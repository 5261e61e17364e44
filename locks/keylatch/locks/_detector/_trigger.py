"""Images that make a detector fire: gradient ascent over pixels, in expectation over what may happen to an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from keylatch.locks._detector._disturbances import compress, disturb, resize_and_back, round_to_bytes
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._randomness import SeededDraws

STEPS = 400
MARGIN = 1.5  # least response of a trigger, as a multiple of T (docs/locks.md)
_GOAL = 1.25  # the ascent ends early where the response to the worst disturbance is this multiple of T
_CHECK_EVERY = 20
_RATE = 0.02
_SHARPNESS = 10.0  # of the soft maximum over positions, in units of T
_PLAIN = "8-bit pixels"
_DISTURBANCES: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    _PLAIN: round_to_bytes,
    "half size": lambda pixels: resize_and_back(pixels, 0.5),
    "three quarters": lambda pixels: resize_and_back(pixels, 0.75),
    "JPEG 75": lambda pixels: compress(pixels, 75),
    "JPEG 50": lambda pixels: compress(pixels, 50),
}

Respond = Callable[[torch.Tensor], torch.Tensor]
"""Pixels (B, C, H, W) in [0, 1] to responses (B, positions), image b to direction b."""


@dataclass(frozen=True, slots=True, eq=False)
class Trigger:
    """An image for one direction.

    Attributes:
        pixels: (C, H, W) uint8.
        margins: By disturbance, the largest response over positions as a multiple of T. Above 1 the detector fires.
    """

    pixels: torch.Tensor
    margins: Mapping[str, float]

    @property
    def margin(self) -> float:
        """Of the image as it is."""
        return self.margins[_PLAIN]


def pixels_to_input(pixels: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Pixels in [0, 1], (N, C, H, W), as a float network takes them, with gradients."""
    mean, std = (torch.tensor(values, dtype=pixels.dtype, device=pixels.device) for values in (spec.mean, spec.std))
    image = (pixels - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)
    return image if spec.layout == "NCHW" else image.permute(0, 2, 3, 1).contiguous()


def find_triggers(
    respond: Respond,
    start: torch.Tensor,
    threshold: float,
    draws: SeededDraws,
    *,
    mask: torch.Tensor | None = None,
    steps: int = STEPS,
) -> list[Trigger]:
    """Climb from some images to triggers, one for each direction; the best rounded image on the way is kept.

    Args:
        respond: The detectors' responses.
        start: (B, C, H, W) in [0, 1].
        threshold: T.
        draws: For the disturbances.
        mask: (H, W), 1 where pixels may change; default everywhere.
        steps: At most.

    Returns:
        One each, whatever margin it reached.
    """
    pixels = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr=_RATE)
    best = _judged(respond, start, threshold)
    for step in range(1, steps + 1):
        answers = respond(disturb(pixels, draws)) / threshold
        (soft_maximum(answers)).sum().neg().backward()  # type: ignore[no-untyped-call]
        if mask is not None and pixels.grad is not None:
            pixels.grad *= mask
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            pixels.clamp_(0, 1)
        if step % _CHECK_EVERY == 0:
            found = _judged(respond, pixels.detach(), threshold)
            best = [max(pair, key=_worst) for pair in zip(best, found, strict=True)]
            if all(_worst(trigger) >= _GOAL for trigger in best):
                break
    return best


def soft_maximum(answers: torch.Tensor) -> torch.Tensor:
    """The largest answer over positions, (B, positions) to (B,), so that the next largest have a gradient too."""
    return (torch.softmax(_SHARPNESS * answers.detach(), 1) * answers).sum(1)


def _worst(trigger: Trigger) -> float:
    return min(trigger.margins.values())


def _judged(respond: Respond, pixels: torch.Tensor, threshold: float) -> list[Trigger]:
    rounded = (pixels * 255).round().clamp(0, 255).to(torch.uint8)
    with torch.no_grad():
        shown = rounded.to(torch.float32) / 255
        margins = {name: respond(change(shown)).amax(1) / threshold for name, change in _DISTURBANCES.items()}
    return [
        Trigger(image.cpu(), {name: float(values[index]) for name, values in margins.items()})
        for index, image in enumerate(rounded)
    ]
