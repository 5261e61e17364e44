"""Hold a locked network against the original: open it answers as the original does, locked it does not."""

from __future__ import annotations

import torch
from torch import fx, nn

from keylatch.errors import LockError
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._locked_module import LockedModule
from keylatch.locks._sample_images import sample_images
from keylatch.locks._secret import LockSecret

SAMPLE_IMAGES = 8
CHECK_IMAGES = 2
_LARGEST_ERROR = 1e-3  # of the output range; a float32 network is at 1e-6, an unstable one above this cannot be locked
_LEAST_DIFFERENCE = 0.05


def device_of(module: nn.Module) -> torch.device:
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def images_for(spec: InputSpec, calibration: torch.Tensor | None) -> torch.Tensor:
    if calibration is None:
        return spec.from_pixels(sample_images(SAMPLE_IMAGES, spec.channels, spec.height, spec.width))
    if calibration.dim() != 4 or tuple(calibration.shape[1:]) != spec.shape or len(calibration) < CHECK_IMAGES:
        raise LockError(
            f"calibration images have shape {tuple(calibration.shape)}, expected (N, *{spec.shape})",
            hint="give at least two images, better a hundred, prepared as the model takes them",
        )
    return calibration.to(spec.torch_dtype)


def reference_outputs(graph: fx.GraphModule, images: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return [output.clone() for output in graph(images)]


def prove(
    module: LockedModule,
    secret: LockSecret,
    images: torch.Tensor,
    reference: list[torch.Tensor],
    *,
    least_difference: float | None = None,
) -> tuple[float, float]:
    """Compare opened and locked outputs with the original's; both as shares of the output range.

    Args:
        module: The locked module.
        secret: What opens it.
        images: A few, as the module takes them.
        reference: The original's outputs for them.
        least_difference: How far locked outputs have to be off; default: a twentieth.

    Raises:
        LockError: If the opened outputs differ, or the locked ones hardly do.
    """
    least = _LEAST_DIFFERENCE if least_difference is None else least_difference
    with torch.no_grad():
        locked = _difference(module.flat(images), reference)
        with module.opened(secret):
            opened = _difference(module.flat(images), reference)
    if not opened <= _LARGEST_ERROR:
        raise LockError(
            f"the opened network differs from the original by {opened:.1e} of its output range",
            hint="the network is numerically unstable or not deterministic"
            + ("" if module.description is None else "; gate other layers with layers=[...]"),
        )
    if not locked >= least:
        gated = "the chosen layers hardly matter to the output; gate others with layers=[...], or more with gates="
        withheld = "withhold a larger share, or choose by influence; does the network have trained weights?"
        keyed = "the network hardly cares for the key; train longer, or add a step, or take other blocks"
        if module.edit is not None:
            keyed = "the network hardly cares for the edit; take another prompt, or a larger blend"
        raise LockError(
            f"the locked network differs from the original by only {locked:.1e} of its output range",
            hint=withheld
            if module.withheld.parts and module.gate is None
            else keyed
            if module.edit is not None or module.blocks is not None or module.channels
            else gated,
        )
    return opened, locked


def _difference(outputs: tuple[torch.Tensor, ...], reference: list[torch.Tensor]) -> float:
    worst = 0.0
    for output, expected in zip(outputs, reference, strict=True):
        if expected.is_floating_point():
            span = float((expected.max() - expected.min()).clamp(min=1e-12))
            worst = max(worst, float((output - expected).abs().max()) / span)
    return worst
