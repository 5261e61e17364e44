"""YOLOX-nano, COCO (Ge et al., arXiv 2107.08430): the network of the ONNX file, and what its outputs mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from data_pack.coco import LabelledPicture, resized
from data_pack.dense_scores import Boxes, suppress
from data_pack.pack_files import require
from keylatch.audit.onnx_network import onnx_network

__all__ = ["SIDE", "YOLOX_FILE", "as_input", "detected", "load_yolox"]

YOLOX_FILE = "models/yolox_nano.onnx"
SIDE = 416
_GRAY, _STRIDES = 114, (8, 16, 32)
_OVERLAP, _LEAST_SCORE = 0.65, 0.001

Uint8Array = npt.NDArray[np.uint8]


def load_yolox(data: Path) -> nn.Module:
    """Load the network in evaluation mode. Input: float32 (N, 3, 416, 416), BGR 0 to 255; output: (N, 3549, 85).

    Raises:
        MissingPackFileError: Its file is not in the folder.
    """
    model = onnx.load(require(data, YOLOX_FILE))
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for tensor in model.graph.initializer:
        if tensor.name in shapes:  # the file is for one image; 0 keeps the batch as it is
            shape = onnx.numpy_helper.to_array(tensor).copy()
            shape[0] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(shape, tensor.name))
    network = onnx_network(model).eval()
    network(torch.zeros(1, 3, SIDE, SIDE))  # reads its constants, which torch.export could not
    return network


def as_input(picture: LabelledPicture) -> tuple[Uint8Array, float]:
    """A picture on gray at the top left, channels reversed: (416, 416, 3), and how it was scaled."""
    height, width = picture.pixels.shape[:2]
    scale = min(SIDE / height, SIDE / width)
    rows, columns = int(height * scale), int(width * scale)
    canvas = np.full((SIDE, SIDE, 3), _GRAY, dtype=np.uint8)
    canvas[:rows, :columns] = resized(picture.pixels, rows, columns)
    return canvas[:, :, ::-1].copy(), scale


def detected(output: Tensor, scale: float) -> Boxes:
    """(3549, 85) of one picture to its boxes, (n, 6), in pixels of the picture."""
    grid, stride = _grid()
    values = output.double().numpy()
    center, size = (values[:, :2] + grid) * stride, np.exp(values[:, 2:4]) * stride
    scores = values[:, 4:5] * values[:, 5:]
    places, kinds = np.nonzero(scores > _LEAST_SCORE)
    corners = np.concatenate([center - size / 2, center + size / 2], axis=1) / scale
    found = np.concatenate([kinds[:, None], corners[places], scores[places, kinds][:, None]], axis=1)
    best = found[np.argsort(-found[:, 5], kind="stable")[:1000]]
    return suppress(best, _OVERLAP) if len(best) else best


def _grid() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    parts, strides = [], []
    for stride in _STRIDES:
        count = SIDE // stride
        rows, columns = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
        parts.append(torch.stack([columns, rows], -1).reshape(-1, 2))
        strides.append(torch.full((count * count, 1), stride))
    return torch.cat(parts).double().numpy(), torch.cat(strides).double().numpy()
