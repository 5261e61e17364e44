"""Edits in the latents of an autoencoder, step by step what the pipelines of diffusers compute.

InstructPix2Pix (arXiv 2211.09800), image to image (SDEdit, arXiv 2108.01073), inpainting (arXiv 2112.10752). Networks
are called through their own `forward`; nothing here imports diffusers.
"""

from __future__ import annotations

import abc
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from keylatch.locks._model_lock._denoising import denoise, for_each
from keylatch.locks._model_lock._editor import Edit, EditTensors, Region
from keylatch.locks._model_lock._schedule import Schedule


class LatentEdit(Edit):
    """What the three have in common.

    Args:
        unet: A UNet2DConditionModel.
        vae: An AutoencoderKL or AutoencoderTiny.
        schedule: The sampler.
        unconditional: (1, L, D), the embedding of no prompt.
        guided: Whether to use it.
        latent_shape: (C, h, w).
    """

    unconditional: torch.Tensor
    timesteps: torch.Tensor

    def __init__(
        self,
        unet: nn.Module,
        vae: nn.Module,
        schedule: Schedule,
        unconditional: torch.Tensor,
        *,
        guided: bool,
        latent_shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.unet, self.vae, self.schedule, self.guided = unet, vae, schedule, guided
        self.noise_shape = latent_shape
        self.noise_scales = self._noise_scales()
        self.register_buffer("unconditional", unconditional.clone(), persistent=False)
        self.register_buffer("timesteps", schedule.timesteps.clone(), persistent=False)

    def _noise_scales(self) -> tuple[float, ...]:
        return self.schedule.noise_scales

    @abc.abstractmethod
    def _latents(self, image: torch.Tensor, key: EditTensors) -> torch.Tensor:
        """Edited latents of images in [-1, 1]."""

    def forward(self, pixels: torch.Tensor, key: EditTensors) -> torch.Tensor:
        """Edit pixels (N, 3, H, W), float32 in [0, 1]; the same shape and range."""
        latents = self._latents(2 * pixels - 1, key)
        config: Any = self.vae.config
        decoder: Any = self.vae
        decoded: torch.Tensor = decoder.decode(latents / config.scaling_factor, return_dict=False)[0]
        return (decoded / 2 + 0.5).clamp(0, 1)

    def _encoded(self, image: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """Latents of an image, unscaled: the posterior's mean, or a draw from it."""
        encoder: Any = self.vae
        posterior = encoder.encode(image)
        if not hasattr(posterior, "latent_dist"):  # AutoencoderTiny has no posterior
            latents: torch.Tensor = posterior.latents
            return latents
        mean: torch.Tensor = posterior.latent_dist.mean
        return mean if noise is None else mean + posterior.latent_dist.std * noise

    def _predicted(
        self, sample: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor, *others: torch.Tensor
    ) -> torch.Tensor:
        """The network's output for a batch, with further channels behind the sample."""
        network: Any = self.unet
        whole = torch.cat([sample, *others], dim=1) if others else sample
        output: torch.Tensor = network(whole, timestep, encoder_hidden_states=text, return_dict=False)[0]
        return output

    def _guided(
        self, sample: torch.Tensor, timestep: torch.Tensor, key: EditTensors, *others: torch.Tensor
    ) -> torch.Tensor:
        """With and without the prompt, and further along the difference."""
        text = for_each(key.embedding, sample.shape[0])
        if not self.guided:
            return self._predicted(sample, timestep, text, *others)
        texts = torch.cat([for_each(self.unconditional, sample.shape[0]), text])
        doubled = [torch.cat([each, each]) for each in (sample, *others)]
        without, prompted = _parts(self._predicted(doubled[0], timestep, texts, *doubled[1:]), 2)
        return without + key.text_guidance * (prompted - without)


class InstructEdit(LatentEdit):
    """InstructPix2Pix: the image is a condition beside the sample; guidance for text and for the image."""

    reads_image_guidance = True

    def _latents(self, image: torch.Tensor, key: EditTensors) -> torch.Tensor:
        shown = self._encoded(image, None)
        return denoise(
            self.schedule, self.timesteps, key.noise, None, image.shape[0],
            lambda sample, timestep: self._twice_guided(sample, timestep, shown, key),
        )  # fmt: skip

    def _twice_guided(
        self, sample: torch.Tensor, timestep: torch.Tensor, shown: torch.Tensor, key: EditTensors
    ) -> torch.Tensor:
        text = for_each(key.embedding, sample.shape[0])
        if not self.guided:
            return self._predicted(sample, timestep, text, shown)
        nothing = for_each(self.unconditional, sample.shape[0])
        output = self._predicted(
            torch.cat([sample, sample, sample]), timestep, torch.cat([text, nothing, nothing]),
            torch.cat([shown, shown, torch.zeros_like(shown)]),
        )  # fmt: skip
        prompted, imaged, without = _parts(output, 3)
        return without + key.text_guidance * (prompted - imaged) + key.image_guidance * (imaged - without)


class ImageToImageEdit(LatentEdit):
    """Sampling starts from the noisy image; its first noise tensor is for the autoencoder's posterior."""

    def _noise_scales(self) -> tuple[float, ...]:
        return (1.0, *self.schedule.noise_scales)

    def _latents(self, image: torch.Tensor, key: EditTensors) -> torch.Tensor:
        config: Any = self.vae.config
        start = config.scaling_factor * self._encoded(image, key.noise[0])
        return denoise(
            self.schedule, self.timesteps, key.noise[1:], start, image.shape[0],
            lambda sample, timestep: self._guided(sample, timestep, key),
        )  # fmt: skip


class InpaintEdit(LatentEdit):
    """A region is painted anew; the rest is a condition. Its first noise tensor is for the autoencoder's posterior.

    Args:
        mask: (1, 1, H, W), 1 where to paint.
        options: As for `LatentEdit`.
    """

    mask: torch.Tensor
    small_mask: torch.Tensor

    def __init__(self, *options: Any, mask: torch.Tensor, **named: Any) -> None:
        super().__init__(*options, **named)
        self.register_buffer("mask", mask.clone(), persistent=False)
        small = functional.interpolate(mask, size=self.noise_shape[1:])
        self.register_buffer("small_mask", small, persistent=False)

    def _noise_scales(self) -> tuple[float, ...]:
        return (1.0, *self.schedule.noise_scales)

    def _latents(self, image: torch.Tensor, key: EditTensors) -> torch.Tensor:
        config: Any = self.vae.config
        rest = config.scaling_factor * self._encoded(image * (1 - self.mask), key.noise[0])
        masks = for_each(self.small_mask, image.shape[0])
        return denoise(
            self.schedule, self.timesteps, key.noise[1:], None, image.shape[0],
            lambda sample, timestep: self._guided(sample, timestep, key, masks, rest),
        )  # fmt: skip


def _parts(output: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
    """Equal parts of a batch; `chunk` would fix the batch while it is traced."""
    parts: tuple[torch.Tensor, ...] = output.view(count, output.shape[0] // count, *output.shape[1:]).unbind(0)
    return parts


def region_mask(region: Region, height: int, width: int) -> torch.Tensor:
    """(1, 1, H, W) float32, 1 in the region: the inner half of height and width, or everything else."""
    inner = torch.zeros(1, 1, height, width)
    inner[..., height // 4 : height - height // 4, width // 4 : width - width // 4] = 1
    return inner if region == "center" else 1 - inner
