"""Detectors and segmenters of `transformers`, tiny, with random weights, on 32x32 images."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import networks

CLASSES = 6


class Tensors(nn.Module):
    """A network whose output's fields are returned as plain tensors."""

    def __init__(self, network: nn.Module, *fields: str) -> None:
        super().__init__()
        self.network, self.fields = network, fields

    def forward(self, image: torch.Tensor) -> Any:
        result = self.network(image)
        found = tuple(getattr(result, name) for name in self.fields)
        return found[0] if len(found) == 1 else found


def _yolos() -> nn.Module:
    from transformers import YolosConfig, YolosForObjectDetection

    config = YolosConfig(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256, initializer_range=0.2,
        image_size=[networks.SIZE, networks.SIZE], patch_size=8, num_detection_tokens=5,
        use_mid_position_embeddings=False, num_labels=CLASSES,
    )  # fmt: skip
    return Tensors(YolosForObjectDetection(config), "logits", "pred_boxes")


def _detr() -> nn.Module:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=32, hidden_sizes=[32, 64], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config = DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, d_model=128,
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, num_queries=5,
        encoder_ffn_dim=128, decoder_ffn_dim=128, init_std=0.2, num_labels=CLASSES,
    )  # fmt: skip
    return Tensors(DetrForObjectDetection(config), "logits", "pred_boxes")


def _segformer() -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], hidden_sizes=[64, 128], num_attention_heads=[1, 2], sr_ratios=[2, 1],
        patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2], decoder_hidden_size=128, num_labels=CLASSES,
        initializer_range=0.2,
    )  # fmt: skip
    return Tensors(SegformerForSemanticSegmentation(config), "logits")


def _mobilenet_deeplab() -> nn.Module:
    from transformers import MobileNetV2Config, MobileNetV2ForSemanticSegmentation

    config = MobileNetV2Config(
        depth_multiplier=0.5, min_depth=8, image_size=networks.SIZE, output_stride=8, num_labels=CLASSES,
        semantic_loss_ignore_index=255,
    )  # fmt: skip
    network = MobileNetV2ForSemanticSegmentation(config)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):  # by its own start, normal with 0.02, nothing arrives at the end
            nn.init.kaiming_normal_(module.weight)
    return Tensors(network, "logits")


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "yolos": _yolos,
    "detr": _detr,
    "segformer": _segformer,
    "mobilenet deeplab": _mobilenet_deeplab,
}


@functools.cache
def network_named(name: str) -> nn.Module:
    """Built once; do not change it."""
    return networks.settle(NETWORKS[name])


def flat(outputs: Any) -> tuple[torch.Tensor, ...]:
    """A network's outputs in order."""
    return outputs if isinstance(outputs, tuple) else (outputs,)
