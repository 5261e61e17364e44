"""Well-known networks from their `transformers` configurations, with random weights: for timing, not for accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from keylatch.locks import IMAGENET_MEAN, IMAGENET_STD, InputSpec


def _images(height: int, width: int) -> InputSpec:
    return InputSpec(3, height, width, IMAGENET_MEAN, IMAGENET_STD)


SPEC = _images(224, 224)
_DETECTOR_SIDE = 512  # the shorter side that YOLOS-tiny was trained for; its longer one follows the photograph


class Named(nn.Module):
    """A `transformers` network that returns plain tensors.

    Args:
        network: The network.
        outputs: Fields of its output, in order.
    """

    def __init__(self, network: nn.Module, *outputs: str) -> None:
        super().__init__()
        self.network, self.outputs = network, outputs

    def forward(self, image: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """(N, C, H, W) to the named fields."""
        result = self.network(image)
        fields = tuple(getattr(result, name) for name in self.outputs)
        return fields[0] if len(fields) == 1 else fields


def _resnet50() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(_labeled(ResNetConfig(), 1000))


def _vit_b16() -> nn.Module:
    return _vit()


def _vit(**sizes: Any) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(_labeled(ViTConfig(**sizes), 1000))


def _vit_l16() -> nn.Module:
    return _vit(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, image_size=32)


def _vit_g16() -> nn.Module:
    return _vit(hidden_size=1408, num_hidden_layers=40, num_attention_heads=16, intermediate_size=6144, image_size=32)


def _mobilenet_v2() -> nn.Module:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    network = MobileNetV2ForImageClassification(_labeled(MobileNetV2Config(), 1000))
    for module in network.modules():
        # By their own start, normal with 0.02, fifty layers deep all outputs are zero: nothing to lock, and numbers
        # that small are slow on some processors.
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return Named(network, "logits")


def _segformer_b0() -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return Named(SegformerForSemanticSegmentation(_labeled(SegformerConfig(), 150)), "logits")


def _yolos_tiny() -> nn.Module:
    from transformers import YolosConfig, YolosForObjectDetection

    config = YolosConfig(
        hidden_size=192,
        num_hidden_layers=12,
        num_attention_heads=3,
        intermediate_size=768,
        image_size=[_DETECTOR_SIDE, _DETECTOR_SIDE],
        use_mid_position_embeddings=False,
    )
    return Named(YolosForObjectDetection(_labeled(config, 91)), "logits", "pred_boxes")


def _labeled(config: Any, labels: int) -> Any:
    config.num_labels = labels
    return config


def _tiny() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, stride=2, padding=1), nn.ReLU()]
    for _ in range(5):
        layers += [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 100))


@dataclass(frozen=True, slots=True)
class Network:
    """A network and the images it takes.

    Attributes:
        build: Makes it, with random weights.
        spec: Its images.
    """

    build: Callable[[], nn.Module]
    spec: InputSpec = SPEC


# SegFormer-B0 is trained at 512x512 on ADE20K; 224x224 keeps it a light network here.
NETWORKS: dict[str, Network] = {
    "resnet50": Network(_resnet50),
    "vit_b16": Network(_vit_b16),
    "mobilenet_v2": Network(_mobilenet_v2),
    "segformer_b0": Network(_segformer_b0),
    "yolos_tiny": Network(_yolos_tiny, _images(_DETECTOR_SIDE, _DETECTOR_SIDE)),
}
# Of 1.2 GB and 4 GB, for opening them: what their weights cost does not depend on the size of images.
LARGE_NETWORKS: dict[str, Network] = {
    "vit_l16": Network(_vit_l16, _images(32, 32)),
    "vit_g16": Network(_vit_g16, _images(32, 32)),
}
TINY_NETWORK = "tiny"  # for --quick: shows that a benchmark runs, and nothing else
ALL_NETWORKS: dict[str, Network] = {**NETWORKS, **LARGE_NETWORKS, TINY_NETWORK: Network(_tiny, _images(64, 64))}


def build(name: str) -> nn.Module:
    """Build a network, the same weights every time, in evaluation mode."""
    torch.manual_seed(0)
    return ALL_NETWORKS[name].build().eval()


def default_names(quick: bool) -> list[str]:
    """Names of the networks that benchmarks measure by themselves."""
    return [TINY_NETWORK] if quick else list(NETWORKS)
