"""Editors of the diffusers library, from a local folder or a hub.

Only what an edit needs is loaded: network, autoencoder, text encoder, tokenizer, scheduler. Safety checkers and image
processors, which want torchvision, are left where they are.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from keylatch.errors import LockError, MissingExtraError
from keylatch.locks._model_lock._editor import Edit, EditSettings
from keylatch.locks._model_lock._latent_edits import ImageToImageEdit, InpaintEdit, InstructEdit, region_mask
from keylatch.locks._model_lock._schedule import read_schedule
from keylatch.locks._model_lock._traceable import make_traceable
from keylatch.locks._model_lock._weights_digest import weights_digest

Kind = Literal["instruct", "image-to-image", "inpaint"]

_KINDS: dict[str, Kind] = {
    "StableDiffusionInstructPix2PixPipeline": "instruct",
    "StableDiffusionPipeline": "image-to-image",
    "StableDiffusionImg2ImgPipeline": "image-to-image",
    "LatentConsistencyModelPipeline": "image-to-image",
    "LatentConsistencyModelImg2ImgPipeline": "image-to-image",
    "StableDiffusionInpaintPipeline": "inpaint",
}
_PARTS = ("model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler")
_AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny")
# What from_pretrained raises for files that are missing, torn or of another class.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)


class DiffusersEditor(nn.Module):
    """A pipeline's parts; see `Editor`.

    Args:
        kind: What the pipeline does.
        unet: Its UNet2DConditionModel.
        vae: Its autoencoder.
        text_encoder: Its CLIPTextModel.
        tokenizer: Its CLIPTokenizer.
        scheduler: Its scheduler.

    Raises:
        LockError: If the parts do not fit together.
    """

    def __init__(
        self, kind: Kind, unet: nn.Module, vae: nn.Module, text_encoder: nn.Module, tokenizer: Any, scheduler: Any
    ) -> None:
        super().__init__()
        self.kind: str = kind
        self.unet, self.vae, self.text_encoder = (
            part.eval().requires_grad_(False) for part in (unet, vae, text_encoder)
        )
        self.tokenizer, self.scheduler = tokenizer, scheduler
        self._require_channels()
        for part in (self.unet, self.vae):
            make_traceable(part)
        self.digest = weights_digest(self.state_dict())

    def _require_channels(self) -> None:
        config: Any = self.unet.config
        latent = self._latent_channels
        wanted = {"instruct": 2 * latent, "image-to-image": latent, "inpaint": 2 * latent + 1}[self.kind]
        if config.in_channels != wanted:
            raise LockError(
                f"the editor's UNet takes {config.in_channels} channels, {self.kind} needs {wanted}",
                hint="take an editor of its kind: instruct-pix2pix 8, image to image 4, inpainting 9",
            )
        if config.time_cond_proj_dim is not None or config.addition_embed_type is not None:
            raise LockError(
                "the editor's UNet has further conditions (a guidance embedding, or those of SDXL)",
                hint="take an editor like Stable Diffusion 1 or 2; LCM as a fused LoRA",
            )

    @property
    def _latent_channels(self) -> int:
        config: Any = self.vae.config
        return int(config.latent_channels)

    @property
    def _scale_factor(self) -> int:
        """Pixels of a latent, along a side."""
        config: Any = self.vae.config
        blocks = getattr(config, "block_out_channels", None) or config.encoder_block_out_channels
        return int(2 ** (len(blocks) - 1))

    @torch.no_grad()
    def embed(self, prompt: str) -> torch.Tensor:
        """The prompt's embedding, (1, L, D) float32; what is too long for the text encoder is cut off."""
        encoder: Any = self.text_encoder
        tokens = self.tokenizer(
            [prompt], padding="max_length", max_length=self.tokenizer.model_max_length, truncation=True,
            return_tensors="pt",
        ).input_ids  # fmt: skip
        mask = torch.ones_like(tokens) if getattr(encoder.config, "use_attention_mask", False) else None
        embedding: torch.Tensor = encoder(tokens.to(encoder.device), attention_mask=mask)[0]
        return embedding.float()

    def edit(self, height: int, width: int, settings: EditSettings) -> Edit:
        """The edit of images of one size.

        Raises:
            LockError: If height or width are no multiple of the autoencoder's, or the scheduler cannot be unrolled.
        """
        factor = self._scale_factor
        require_multiple(height, width, factor)
        schedule = read_schedule(self.scheduler, settings, from_image=self.kind == "image-to-image")
        parts = (self.unet, self.vae, schedule, self.embed(""))
        shape = (self._latent_channels, height // factor, width // factor)
        if self.kind == "instruct":
            return InstructEdit(*parts, guided=settings.guided, latent_shape=shape).eval()
        if self.kind == "image-to-image":
            return ImageToImageEdit(*parts, guided=settings.guided, latent_shape=shape).eval()
        mask = region_mask(settings.region, height, width)
        return InpaintEdit(*parts, guided=settings.guided, latent_shape=shape, mask=mask).eval()


def require_multiple(height: int, width: int, factor: int) -> None:
    """Raise LockError unless an editor can take images of a size."""
    if height % factor or width % factor:
        near = " x ".join(str(max(1, round(side / factor)) * factor) for side in (height, width))
        raise LockError(
            f"the editor takes images whose sides are multiples of {factor}, these have {height} x {width}",
            hint=f"resize the images, e.g. to {near}, and fine-tune the network for that size",
        )


def load_diffusers_editor(source: str | PathLike[str], *, kind: Kind | None = None) -> DiffusersEditor:
    """Load an editor that was saved with diffusers.

    Args:
        source: A pipeline's folder, or its name on a hub, from which it is then downloaded.
        kind: What to use it for; default: what its pipeline's class does. A text-to-image pipeline, such as SD-Turbo or
            one with an LCM LoRA fused in, edits image to image.

    Raises:
        MissingExtraError: If diffusers or transformers are not installed.
        LockError: If files are missing, or the pipeline is of a class that is not supported.
    """
    name = str(source)
    _require_parts(Path(name))
    with _quietly():
        diffusers, transformers = _library("diffusers"), _library("transformers")
        try:
            index: Any = diffusers.DiffusionPipeline.load_config(name)
            pipeline, autoencoder = str(index.get("_class_name")), str(index.get("vae", (None, None))[1])
            scheduler = str(index.get("scheduler", (None, None))[1])
            if kind is None and pipeline not in _KINDS:
                raise _unsupported(f"a {pipeline}", ", ".join(_KINDS))
            if autoencoder not in _AUTOENCODERS:
                raise _unsupported(f"an autoencoder {autoencoder}", ", ".join(_AUTOENCODERS))
            parts = (
                diffusers.UNet2DConditionModel.from_pretrained(name, subfolder="unet", low_cpu_mem_usage=False),
                getattr(diffusers, autoencoder).from_pretrained(name, subfolder="vae", low_cpu_mem_usage=False),
                transformers.CLIPTextModel.from_pretrained(name, subfolder="text_encoder"),
                transformers.CLIPTokenizer.from_pretrained(name, subfolder="tokenizer"),
                getattr(diffusers, scheduler).from_pretrained(name, subfolder="scheduler"),
            )
        except _UNREADABLE as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise LockError(
                f"the editor {name} does not load: {first}",
                hint="give the folder of a diffusers pipeline, with all of its weights, or its name on a hub",
            ) from None
    unet, vae, text_encoder, tokenizer, sampler = parts
    return DiffusersEditor(
        kind or _KINDS[pipeline], unet.float(), vae.float(), text_encoder.float(), tokenizer, sampler
    )


def _require_parts(folder: Path) -> None:
    """A local folder is whole: without files transformers would make up a tokenizer that knows no word."""
    missing = [part for part in _PARTS if folder.is_dir() and not (folder / part).exists()]
    if missing:
        raise LockError(f"the editor {folder} has no {missing[0]}", hint=f"it needs {', '.join(_PARTS)}")


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError("a diffusion editor", error.name or name, "diffusion") from None


def _unsupported(found: str, supported: str) -> LockError:
    return LockError(f"the editor has {found}, which is not supported", hint=f"take one with: {supported}")


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep what the libraries say about packages that nobody needs here off the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("transformers", "diffusers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
