"""DeepLabV3 with a MobileNetV2, PASCAL VOC, as its graph says (Chen et al., arXiv 1706.05587)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_pack.coco import LabelledPicture, resized
from data_pack.mobilenet_v2 import dequantise
from data_pack.pack_files import require

__all__ = ["CLASSES", "DEEPLAB_FILE", "DEEPLAB_GRAPH", "SIDE", "as_input", "load_deeplab", "segmented"]

DEEPLAB_GRAPH, DEEPLAB_FILE = "models/deeplabv3_mnv2_voc_graph.json", "models/deeplabv3_mnv2_voc_uint8.npz"
SIDE, CLASSES = 513, 21
_GRAY = 127
_RELU, _RELU6 = 1, 3

Uint8Array = npt.NDArray[np.uint8]


class DeepLab(nn.Module):
    """The steps of a graph. Input: float32 (N, 3, 513, 513), RGB as x / 127.5 - 1; output: (N, 21, 513, 513) scores."""

    def __init__(self, graph: dict[str, Any]) -> None:
        super().__init__()
        self.steps = [step for step in graph["steps"] if step["op"] != "argmax"]
        self.source = graph["input"]
        self.layers = nn.ModuleDict()

    def add_layer(self, key: str, weight: Tensor, bias: Tensor, step: dict[str, Any]) -> None:
        """Add the convolution of a step."""
        outputs, inputs, height, width = weight.shape
        groups = step["groups"]
        layer = nn.Conv2d(inputs * groups, outputs, (height, width), step["stride"], 0, step["dil"], groups)
        layer.load_state_dict({"weight": weight, "bias": bias})
        self.layers[key.replace(".", "_")] = layer

    def forward(self, image: Tensor) -> Tensor:
        """Scores of the classes for each pixel."""
        values = {self.source: image}
        for step in self.steps:
            values[step["o"]] = self._step(step, [values[name] for name in step["i"]])
        return values[self.steps[-1]["o"]]

    def _step(self, step: dict[str, Any], inputs: list[Tensor]) -> Tensor:
        match step["op"]:
            case "conv":
                layer = self.layers[step["key"].replace(".", "_")]
                return _activated(layer(_padded(inputs[0], layer)), step["act"])  # type: ignore[arg-type]
            case "add":
                return _activated(inputs[0] + inputs[1], step["act"])
            case "gap":
                return inputs[0].mean((2, 3), keepdim=True)
            case "resize":
                return F.interpolate(inputs[0], step["size"], mode="bilinear", align_corners=step["align"])
            case "cat":
                return torch.cat(inputs, 1)
            case "id":
                return inputs[0]
        raise ValueError(f"got a step {step['op']}, which this network has not")


def _activated(values: Tensor, kind: int) -> Tensor:
    return F.relu(values) if kind == _RELU else F.relu6(values) if kind == _RELU6 else values


def _padded(values: Tensor, layer: nn.Conv2d) -> Tensor:
    """As TensorFlow's SAME does: an odd pixel at the bottom and right."""
    pads: list[int] = []
    for axis in (1, 0):
        size, stride = values.shape[2 + axis], layer.stride[axis]
        reach = (layer.kernel_size[axis] - 1) * layer.dilation[axis] + 1
        total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        pads += [total // 2, total - total // 2]
    return F.pad(values, pads) if any(pads) else values


def load_deeplab(data: Path) -> nn.Module:
    """Load the network in evaluation mode.

    Raises:
        MissingPackFileError: Its files are not in the folder.
    """
    graph = json.loads(require(data, DEEPLAB_GRAPH).read_text())
    network = DeepLab(graph)
    with np.load(require(data, DEEPLAB_FILE), allow_pickle=False) as arrays:
        for step in graph["steps"]:
            if step["op"] == "conv":
                key = step["key"]
                weight = dequantise(arrays[f"{key}.q"], arrays[f"{key}.s"], arrays[f"{key}.z"])
                network.add_layer(key, torch.from_numpy(weight), torch.from_numpy(arrays[f"{key}.bias"]), step)
    return network.eval()


def as_input(picture: LabelledPicture) -> tuple[Uint8Array, tuple[int, int]]:
    """A picture, longest side 513, on gray at the top left: (513, 513, 3), and the height and width it takes."""
    height, width = picture.pixels.shape[:2]
    scale = SIDE / max(height, width)
    rows, columns = min(SIDE, round(height * scale)), min(SIDE, round(width * scale))
    canvas = np.full((SIDE, SIDE, 3), _GRAY, dtype=np.uint8)
    canvas[:rows, :columns] = resized(picture.pixels, rows, columns)
    return canvas, (rows, columns)


def segmented(scores: Tensor, size: tuple[int, int], shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    """(21, 513, 513) scores to (H, W) classes of the picture."""
    classes = scores[:, : size[0], : size[1]].argmax(0)
    back = F.interpolate(classes[None, None].float(), shape, mode="nearest-exact")[0, 0]
    return back.long().numpy()
