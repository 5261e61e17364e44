"""Tiny random pipelines, of the very classes that real editors have; saved and loaded as those are."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

SIDE = 32  # pixels; 16 latents
LATENTS = 4

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about torchvision, which nothing here needs
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

PIPELINES = {
    "instruct": (diffusers.StableDiffusionInstructPix2PixPipeline, 2 * LATENTS),
    "image-to-image": (diffusers.StableDiffusionImg2ImgPipeline, LATENTS),
    "inpaint": (diffusers.StableDiffusionInpaintPipeline, 2 * LATENTS + 1),
}
EULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def tokenizer() -> Any:
    """Letters, and the ends of words; as CLIP's, with no merges."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=16)


def pipeline(kind: str = "instruct", scheduler: Any = None, seed: int = 0) -> Any:
    """A pipeline with random weights."""
    cls, channels = PIPELINES[kind]
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        unet = diffusers.UNet2DConditionModel(
            sample_size=16, in_channels=channels, out_channels=LATENTS, layers_per_block=1, block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4,
        )  # fmt: skip
        vae = diffusers.AutoencoderKL(
            in_channels=3, out_channels=3, block_out_channels=(8, 8), latent_channels=LATENTS, norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, sample_size=SIDE,
        )  # fmt: skip
        words = tokenizer()
        text = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=16, intermediate_size=32, num_attention_heads=2, num_hidden_layers=2, vocab_size=54,
                max_position_embeddings=16, bos_token_id=52, eos_token_id=53, pad_token_id=53,
            )
        )  # fmt: skip
        nn.init.normal_(vae.decoder.conv_out.weight, std=0.3)
        sampler = scheduler or diffusers.EulerAncestralDiscreteScheduler(**EULER)
    return cls(
        vae=vae, text_encoder=text, tokenizer=words, unet=unet, scheduler=sampler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def saved(folder: Path, kind: str = "instruct", scheduler: Any = None, seed: int = 0) -> Any:
    """Save one into a folder; gives the pipeline."""
    made = pipeline(kind, scheduler, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.save_pretrained(folder)
    made.set_progress_bar_config(disable=True)
    return made
