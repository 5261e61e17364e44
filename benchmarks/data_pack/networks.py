"""The trained networks of the data folder: how each is loaded, fed, evaluated, and what accuracy it must show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from data_pack.cifar_resnet import RESNET20_FILE, RESNET56_FILE, load_resnet20, load_resnet56
from data_pack.deit_tiny import DEIT_TINY_FILE, load_deit_tiny
from data_pack.images import (
    CIFAR10_LABELS,
    CIFAR10_TEST,
    CIFAR10_TRAIN,
    IMAGENET_SAMPLE,
    IMAGENET_VAL,
    LabelledImages,
    cifar10_calibration,
    cifar10_test,
    imagenet_calibration,
    imagenet_val,
)
from data_pack.mobilenet_v2 import MOBILENET_V2_FILE, load_mobilenet_v2
from data_pack.pack_files import absent_files

__all__ = ["NETWORKS", "NetworkSpec", "available", "skipped"]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_IMAGENET_FILES = (IMAGENET_VAL, IMAGENET_SAMPLE)
_CIFAR10_FILES = (CIFAR10_TEST, *CIFAR10_TRAIN, CIFAR10_LABELS)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A trained network with its images. Every callable takes the data folder.

    Attributes:
        name: Key in `NETWORKS`.
        load: Returns the module in evaluation mode: float32 (N, *image_shape) to logits (N, classes).
        evaluation: Returns the labelled images it is measured on.
        calibration: Returns unlabelled uint8 images (N, H, W, C), none of them an evaluation image.
        image_shape: (C, H, W) of one input.
        mean: One value a channel; the input is (pixel / 255 - mean) / std.
        std: One value a channel.
        expected_top1: Top-1 accuracy on `evaluation`, percent, rounded to one image in a thousand (0.1).
        files: All files that the three callables need, relative to the data folder.
    """

    name: str
    load: Callable[[Path], nn.Module]
    evaluation: Callable[[Path], LabelledImages]
    calibration: Callable[[Path], npt.NDArray[np.uint8]]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    expected_top1: float
    files: tuple[str, ...]


_SPECS = (
    NetworkSpec(
        name="mobilenet_v2",
        load=load_mobilenet_v2,
        evaluation=imagenet_val,
        calibration=imagenet_calibration,
        image_shape=(3, 224, 224),
        mean=(0.5, 0.5, 0.5),  # x / 127.5 - 1
        std=(0.5, 0.5, 0.5),
        expected_top1=78.9,
        files=(MOBILENET_V2_FILE, *_IMAGENET_FILES),
    ),
    NetworkSpec(
        name="deit_tiny",
        load=load_deit_tiny,
        evaluation=imagenet_val,
        calibration=imagenet_calibration,
        image_shape=(3, 224, 224),
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        expected_top1=79.9,
        files=(DEIT_TINY_FILE, *_IMAGENET_FILES),
    ),
    NetworkSpec(
        name="resnet20_cifar10",
        load=load_resnet20,
        evaluation=cifar10_test,
        calibration=cifar10_calibration,
        image_shape=(3, 32, 32),
        mean=_IMAGENET_MEAN,  # as these networks were trained
        std=_IMAGENET_STD,
        expected_top1=91.5,
        files=(RESNET20_FILE, *_CIFAR10_FILES),
    ),
    NetworkSpec(
        name="resnet56_cifar10",
        load=load_resnet56,
        evaluation=cifar10_test,
        calibration=cifar10_calibration,
        image_shape=(3, 32, 32),
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        expected_top1=92.6,
        files=(RESNET56_FILE, *_CIFAR10_FILES),
    ),
)

NETWORKS: dict[str, NetworkSpec] = {spec.name: spec for spec in _SPECS}


def available(data: Path) -> list[NetworkSpec]:
    """Return the networks of which every file is in the data folder, in the order of `NETWORKS`."""
    return [spec for spec in NETWORKS.values() if not absent_files(data, spec.files)]


def skipped(data: Path) -> dict[str, str]:
    """Say for each network that is not available which files are missing.

    Returns:
        Name to sentence, e.g. ``"deit_tiny is skipped: models/deit_tiny_patch16_224_fp32.pt is missing"``.
    """
    missing = {spec.name: absent_files(data, spec.files) for spec in NETWORKS.values()}
    return {
        name: f"{name} is skipped: {', '.join(files)} {'is' if len(files) == 1 else 'are'} missing"
        for name, files in missing.items()
        if files
    }
