"""DeiT-Tiny (patch 16, 224 pixels, ImageNet), named as in timm, and the loader of its float32 weights.

Touvron et al., "Training data-efficient image transformers" (arXiv 2012.12877), table 1; no distillation token.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_pack.pack_files import require

__all__ = ["DEIT_TINY_FILE", "Attention", "Block", "DeiTTiny", "Mlp", "PatchEmbedding", "load_deit_tiny"]

DEIT_TINY_FILE = "models/deit_tiny_patch16_224_fp32.pt"

_WIDTH = 192
_DEPTH = 12
_HEADS = 3
_PATCH_PIXELS = 16
_PATCHES = (224 // _PATCH_PIXELS) ** 2
_CLASSES = 1000
# The weights were trained with 1e-6; torch's default is 1e-5.
_LAYER_NORM_EPSILON = 1e-6


class PatchEmbedding(nn.Module):
    """Cut the image into patches of 16x16 pixels and project each."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, _WIDTH, _PATCH_PIXELS, stride=_PATCH_PIXELS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, 224, 224) to tokens (N, 196, 192)."""
        tokens: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return tokens


class Attention(nn.Module):
    """Self-attention with three heads of 64."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.proj = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, 192) to (N, T, 192)."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, _HEADS, width // _HEADS).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return projected


class Mlp(nn.Module):
    """Two linear layers with the exact (erf) GELU between them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(_WIDTH, 4 * _WIDTH)
        self.fc2 = nn.Linear(4 * _WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, 192) to (N, T, 192)."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class Block(nn.Module):
    """Attention and MLP, each on the layer-normed tokens and added to them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(_WIDTH, eps=_LAYER_NORM_EPSILON)
        self.attn = Attention()
        self.norm2 = nn.LayerNorm(_WIDTH, eps=_LAYER_NORM_EPSILON)
        self.mlp = Mlp()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, 192) to (N, T, 192)."""
        x = x + self.attn(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class DeiTTiny(nn.Module):
    """DeiT-Tiny with 1,000 outputs.

    Input: float32, (N, 3, 224, 224), RGB as (x / 255 - mean) / std with the ImageNet mean and std, about [-2.2, 2.7].
    """

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, _WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, _PATCHES + 1, _WIDTH))
        self.patch_embed = PatchEmbedding()
        self.blocks = nn.Sequential(*(Block() for _ in range(_DEPTH)))
        self.norm = nn.LayerNorm(_WIDTH, eps=_LAYER_NORM_EPSILON)
        self.head = nn.Linear(_WIDTH, _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, float32, (N, 1000), in the order of the sorted WordNet ids."""
        patches = self.patch_embed(x)
        tokens = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), patches), dim=1) + self.pos_embed
        logits: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits


def load_deit_tiny(data: Path) -> DeiTTiny:
    """Load DeiT-Tiny in evaluation mode from the weights of the data folder.

    Raises:
        MissingPackFileError: The weights are not in the folder.
        RuntimeError: The file does not hold exactly the parameters of the network.
    """
    state = torch.load(require(data, DEIT_TINY_FILE), map_location="cpu", weights_only=True)
    network = DeiTTiny()
    network.load_state_dict(state, strict=True)
    return network.eval()
