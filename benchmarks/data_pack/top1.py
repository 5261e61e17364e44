"""Top-1 accuracy, and the one place where bytes become a network's input."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

__all__ = ["model_input", "top1", "top1_of"]

Float32Array = npt.NDArray[np.float32]


def model_input(images: npt.NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> Float32Array:
    """Normalise images: (pixel / 255 - mean) / std for each channel, channels moved to the front.

    Args:
        images: uint8, shape (N, H, W, C), values 0..255.
        mean: C means in [0, 1].
        std: C standard deviations, positive.

    Returns:
        float32, shape (N, C, H, W), contiguous.

    Raises:
        ValueError: `images` is not uint8 NHWC with as many channels as `mean` and `std` have values.
    """
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"got {images.dtype} images of shape {images.shape}, expected uint8 NHWC")
    if not len(mean) == len(std) == images.shape[3]:
        raise ValueError(f"got {len(mean)} means and {len(std)} stds for {images.shape[3]} channels")
    pixels = images.astype(np.float32) / np.float32(255)
    normalised = (pixels - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2))


def top1_of(
    predict: Callable[[Float32Array], npt.NDArray[np.floating]],
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    mean: Sequence[float],
    std: Sequence[float],
    batch: int = 50,
) -> float:
    """Measure the top-1 accuracy of anything that maps inputs to logits, an ONNX session for instance.

    Args:
        predict: Maps float32 (B, C, H, W) to logits (B, classes); B is `batch` but for the last call.
        images: uint8, shape (N, H, W, C), N at least 1.
        labels: int64, shape (N,).
        mean: Means of the network's normalisation, one a channel.
        std: Standard deviations of the network's normalisation, one a channel.
        batch: Images a call.

    Returns:
        Percent of images whose largest logit is that of their label, 0..100.

    Raises:
        ValueError: There is no image, or not one label for each.
    """
    if len(images) == 0 or labels.shape != images.shape[:1]:
        raise ValueError(f"got {len(images)} images and labels of shape {labels.shape}, expected one label an image")
    correct = 0
    for start in range(0, len(images), batch):
        logits = predict(model_input(images[start : start + batch], mean, std))
        correct += int((logits.argmax(axis=1) == labels[start : start + batch]).sum())
    return 100.0 * correct / len(images)


def top1(
    module: nn.Module,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    mean: Sequence[float],
    std: Sequence[float],
    batch: int = 50,
) -> float:
    """Measure the top-1 accuracy of a module in percent, on the device of its parameters, without gradients.

    Arguments, result and errors are those of `top1_of`. The module's mode is left as it is: give it in evaluation mode,
    or its batch normalisation uses and updates the statistics of each batch.
    """
    parameter = next(module.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device

    def predict(x: Float32Array) -> npt.NDArray[np.floating]:
        logits: npt.NDArray[np.floating] = module(torch.from_numpy(x).to(device)).float().cpu().numpy()
        return logits

    with torch.inference_mode():
        return top1_of(predict, images, labels, mean, std, batch)
