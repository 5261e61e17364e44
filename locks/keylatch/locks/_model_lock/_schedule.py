"""A diffusion sampler as a table of numbers, read from any diffusers scheduler that is linear and looks at one step.

    x_0     = image_share · z + start_share · noise
    x_{i+1} = keep_i · x_i + move_i · network(input_scale_i · x_i, timestep_i) + add_i · noise_i

Euler, Euler ancestral, DDIM and LCM steps are of this form, for every kind of prediction. The numbers are read from the
scheduler itself, by letting it do steps with known values; one more run, with other values, holds them to it.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any

import torch

from keylatch.errors import LockError
from keylatch.locks._model_lock._editor import EditSettings

_PROBE_SHAPE = (1, 1, 4, 4)
_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Schedule:
    """A sampler's numbers; see above.

    Attributes:
        timesteps: (S,), in the dtype that the network is given.
        input_scales: S numbers.
        keep: S numbers.
        move: S numbers.
        add: S numbers; 0 where a step adds no noise.
        image_share: Of the encoded image at the start; 0 where it starts from noise alone.
        start_share: Of the noise at the start.
    """

    timesteps: torch.Tensor
    input_scales: tuple[float, ...]
    keep: tuple[float, ...]
    move: tuple[float, ...]
    add: tuple[float, ...]
    image_share: float
    start_share: float

    @property
    def noise_scales(self) -> tuple[float, ...]:
        """Of the noise at the start and in each step that adds some."""
        return (self.start_share, *(scale for scale in self.add if scale))


def read_schedule(scheduler: Any, settings: EditSettings, *, from_image: bool) -> Schedule:
    """Read a diffusers scheduler.

    Args:
        scheduler: It; not changed.
        settings: Steps and strength.
        from_image: Whether sampling starts from the noisy image, as image to image does, or from noise.

    Raises:
        LockError: If the scheduler looks at earlier steps, clips, or takes several evaluations for a step.
    """
    ready = copy.deepcopy(scheduler)
    ready.set_timesteps(settings.steps)
    if ready.order != 1 or len(ready.timesteps) != settings.steps:
        raise _refused(scheduler)
    begin = settings.steps - int(settings.steps * settings.strength) if from_image else 0
    if hasattr(ready, "set_begin_index"):
        ready.set_begin_index(begin)
    timesteps = ready.timesteps[begin:].clone()
    zeros, ones = torch.zeros(_PROBE_SHAPE), torch.ones(_PROBE_SHAPE)
    if from_image:
        image_share, start_share = (
            float(ready.add_noise(image, noise, timesteps[:1]).mean())
            for image, noise in ((ones, zeros), (zeros, ones))
        )
    else:
        image_share, start_share = 0.0, float(ready.init_noise_sigma)
    # Each probe has a scheduler of its own: they count their steps.
    probes = {name: copy.deepcopy(ready) for name in ("keep", "move", "add", "check")}
    numbers: list[tuple[float, float, float, float]] = []
    for index, timestep in enumerate(timesteps):
        scale = float(probes["check"].scale_model_input(ones, timestep).mean())
        noise = torch.randn(_PROBE_SHAPE, generator=_generator())
        keep = float(_step(probes["keep"], timestep, ones, zeros, noisy=False).mean())
        move = float(_step(probes["move"], timestep, zeros, ones, noisy=False).mean())
        add = float((_step(probes["add"], timestep, zeros, zeros, noisy=True) / noise).mean())
        sample, output = torch.full(_PROBE_SHAPE, 9.0 - 7 * index), torch.full(_PROBE_SHAPE, 5.0 - 11 * (index % 2))
        found = _step(probes["check"], timestep, sample, output, noisy=True)
        expected = keep * sample + move * output + add * noise
        if not torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE * float(expected.abs().max())):
            raise _refused(scheduler)
        numbers.append((scale, keep, move, add))
    scales, keeps, moves, adds = (tuple(column) for column in zip(*numbers, strict=True))
    return Schedule(timesteps, scales, keeps, moves, adds, image_share, start_share)


def _step(scheduler: Any, timestep: torch.Tensor, sample: torch.Tensor, output: torch.Tensor, *, noisy: bool) -> Any:
    """One step; `noisy` or with the noise taken off, as a step from nothing shows it."""
    scheduler.scale_model_input(sample, timestep)  # some schedulers want to be asked first
    draws = {"generator": _generator()} if "generator" in inspect.signature(scheduler.step).parameters else {}
    before = copy.deepcopy(scheduler)
    result = scheduler.step(output, timestep, sample, return_dict=False, **draws)[0]
    if noisy:
        return result
    still = torch.zeros_like(sample)
    if draws:
        draws = {"generator": _generator()}
    return result - before.step(still, timestep, still, return_dict=False, **draws)[0]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _refused(scheduler: Any) -> LockError:
    return LockError(
        f"the editor's {type(scheduler).__name__} cannot be unrolled: a step depends on earlier ones, or clips",
        hint="save the pipeline with EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, DDIMScheduler "
        "(clip_sample=False) or LCMScheduler",
    )
