"""Fine-tuning on labeled images, and on noisy and blurred copies of them.

Against masks of domains: the attacker has images of the domain that the file serves, and hopes that a network which
sees them through noise and blur sees other domains again (arXiv 2403.04149, section 4). Give such images as the
attacker's own, and the other domain's as test images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._images import LabeledImages
from keylatch.audit._target import Target
from keylatch.audit._training import FINE_TUNE_STEPS, fit
from keylatch.audit.attacks._all_weights import all_weights
from keylatch.audit.attacks._free_gates import attacked_network
from keylatch.locks import InputSpec

_RATE = 3e-4
_NOISES = (0.1, 0.2)  # standard deviations, as shares of the pixel range
_BLURS = (0.7, 1.5)  # standard deviations, in pixels of a side of 32


@dataclass(frozen=True, slots=True)
class NoisyFineTuning:
    """Trains all weights on clean, noisy and blurred images; of models that withhold weights for domains."""

    name: str = "fine-tune-noisy"
    needs: str = "labeled images"
    summary: str = "Trains all weights on labeled images and on noisy and blurred copies of them."
    version: int = 1

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """Each number of labeled images; none where no domain is withheld."""
        if not target.manifest.lock.get("domains"):
            return []
        steps = {"steps": FINE_TUNE_STEPS}
        return [Variant(Given(labeled=count), settings=steps, weight=8.0) for count in resources.labeled]

    def run(self, case: Case) -> Outcome:
        """Train; the attacker's images cannot say how another domain fares, so there is nothing to choose by."""
        network = attacked_network(case)
        known = LabeledImages(case.images[: len(case.labels)], case.labels)
        copies = disturbed(known, case.target.spec, case.generator)
        done = fit(
            network,
            all_weights(network, case.target),
            torch.cat([known.images, copies.images]),
            torch.cat([known.labels, copies.labels]),
            steps=FINE_TUNE_STEPS,
            clock=case.clock,
            generator=case.generator,
            learning_rate=_RATE,
        )
        return Outcome(network, {"steps": done}, truncated=done < FINE_TUNE_STEPS and case.clock.expired)


def disturbed(known: LabeledImages, spec: InputSpec, generator: torch.Generator) -> LabeledImages:
    """Noisy and blurred copies of images, one for each strength.

    Args:
        known: Images as the model takes them.
        spec: How it takes them.
        generator: Draws the noise.
    """
    pixels = _to_pixels(known.images, spec)
    noisy = [pixels + noise * torch.randn(pixels.shape, generator=generator) for noise in _NOISES]
    blurred = [_blurred(pixels, width * spec.height / 32) for width in _BLURS]
    copies = [_from_pixels(images.clamp(0, 1), spec) for images in (*noisy, *blurred)]
    return LabeledImages(torch.cat(copies), known.labels.repeat(len(copies)))


def _to_pixels(images: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """(n, C, H, W) float32 in [0, 1]."""
    values = images if spec.layout == "NCHW" else images.permute(0, 3, 1, 2)
    return values.float() * _column(spec.std) + _column(spec.mean)


def _from_pixels(pixels: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    return spec.from_pixels((255 * pixels).round().to(torch.uint8))


def _column(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)


def _blurred(pixels: torch.Tensor, width: float) -> torch.Tensor:
    """Under a Gaussian of this standard deviation, the edge repeated."""
    reach = max(1, round(2 * width))
    line = torch.exp(-((torch.arange(-reach, reach + 1) / width) ** 2) / 2)
    kernel = (line / line.sum()).expand(pixels.shape[1], 1, -1)
    padded = functional.pad(pixels, [reach] * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel[..., None], groups=pixels.shape[1])
    return functional.conv2d(rows, kernel[:, :, None], groups=pixels.shape[1])
