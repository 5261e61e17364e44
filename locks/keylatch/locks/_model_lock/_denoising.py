"""The loop over a sampler's steps: the same for every editor."""

from __future__ import annotations

from collections.abc import Callable

import torch

from keylatch.locks._model_lock._schedule import Schedule

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def for_each(value: torch.Tensor, batch: int) -> torch.Tensor:
    """The same value for each image of a batch; the batch is run-time data, so no exporter folds it.

    It is given as `x.shape[0]`: `len(x)` would fix it while the edit is traced.
    """
    return value.expand(batch, *value.shape[1:])


def denoise(
    schedule: Schedule,
    timesteps: torch.Tensor,
    noise: tuple[torch.Tensor, ...],
    start: torch.Tensor | None,
    batch: int,
    denoiser: Denoiser,
) -> torch.Tensor:
    """Run a sampler.

    Args:
        schedule: Its numbers.
        timesteps: (S,), on the device of the rest.
        noise: (1, C, h, w) each, scaled: for the start and for the steps that add some.
        start: (N, C, h, w), the encoded images, where sampling starts from them.
        batch: N.
        denoiser: From (N, C, h, w) and a timestep () to the same shape.

    Returns:
        (N, C, h, w).
    """
    waiting = list(noise)
    sample = for_each(waiting.pop(0), batch)
    if start is not None:
        sample = schedule.image_share * start + sample
    for index in range(len(schedule.keep)):
        output = denoiser(schedule.input_scales[index] * sample, timesteps[index])
        sample = schedule.keep[index] * sample + schedule.move[index] * output
        if schedule.add[index]:
            sample = sample + waiting.pop(0)
    return sample
