"""The image sets of the data folder, each as uint8 NHWC pixels with int64 labels.

Pixels stay bytes here: a network's normalisation is applied in one place, `data_pack.top1.model_input`. Sets of which a
network's unlabelled calibration images are taken never overlap the set it is evaluated on.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_pack.decode import read_csv_labels, read_npz_array, read_png_sheet, read_zip_images
from data_pack.pack_files import require

__all__ = [
    "CIFAR10_CLASSES",
    "CIFAR10_JPEG_TEST",
    "CIFAR10_JPEG_TRAIN",
    "CIFAR10_LABELS",
    "CIFAR10_TEST",
    "CIFAR10_TRAIN",
    "FASHION_MNIST",
    "IMAGENET_SAMPLE",
    "IMAGENET_VAL",
    "LabelledImages",
    "MNIST",
    "MNIST_M",
    "USPS",
    "cifar10_calibration",
    "cifar10_jpeg_test",
    "cifar10_jpeg_train",
    "cifar10_test",
    "cifar10_train",
    "fashion_mnist_test",
    "fashion_mnist_train",
    "imagenet_calibration",
    "imagenet_sample",
    "imagenet_val",
    "mnist",
    "mnist_m",
    "usps_test",
    "usps_train",
]

IMAGENET_VAL = "imagenet/val1000_227.zip"
IMAGENET_SAMPLE = "imagenet/sample1000_256.zip"
CIFAR10_TEST = "cifar10/cifar10_batch_50.png"
CIFAR10_TRAIN = ("cifar10/cifar10_batch_0.png", "cifar10/cifar10_batch_1.png")
CIFAR10_LABELS = "cifar10/lossless_labels.npz"
CIFAR10_JPEG_TRAIN = "cifar10/jpeg_train_10000.zip"
CIFAR10_JPEG_TEST = "cifar10/jpeg_test_2000.zip"
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION_MNIST = "fashion_mnist/fashion_mnist_5k_10k.npz"
MNIST = "digits/mnist_t10k.npz"
MNIST_M = "digits/mnist_m_2000.npz"
USPS = "digits/usps.npz"

IMAGENET_SIDE = 224
CIFAR10_SIDE = 32


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """Images with one class each.

    Attributes:
        images: uint8, shape (N, H, W, C), values 0..255; C is 3 (RGB) or 1.
        labels: int64, shape (N,), values 0..classes-1.

    Raises:
        ValueError: Shapes or dtypes are others, or the counts differ.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(f"got {self.images.dtype} images of shape {self.images.shape}, expected uint8 NHWC")
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"got labels of shape {self.labels.shape} for {len(self.images)} images")

    def __len__(self) -> int:
        return len(self.labels)


def imagenet_val(data: Path) -> LabelledImages:
    """ImageNet validation, 1,000 images of 725 classes: (1000, 224, 224, 3), the centre of 227-pixel images."""
    return _labelled_zip(require(data, IMAGENET_VAL), IMAGENET_SIDE)


def imagenet_sample(data: Path) -> LabelledImages:
    """One image a class: (1000, 224, 224, 3), the centre of 256-pixel images.

    Very probably training images: what an attacker may hold, never a measure of held-out accuracy.
    """
    return _labelled_zip(require(data, IMAGENET_SAMPLE), IMAGENET_SIDE)


def imagenet_calibration(data: Path) -> npt.NDArray[np.uint8]:
    """Unlabelled ImageNet images, none of them in `imagenet_val`: uint8, (1000, 224, 224, 3)."""
    return imagenet_sample(data).images


def cifar10_test(data: Path) -> LabelledImages:
    """CIFAR-10 test, lossless: (1000, 32, 32, 3)."""
    return _cifar10_sheets(data, (CIFAR10_TEST,))


def cifar10_train(data: Path) -> LabelledImages:
    """CIFAR-10 training, lossless: (2000, 32, 32, 3)."""
    return _cifar10_sheets(data, CIFAR10_TRAIN)


def cifar10_calibration(data: Path) -> npt.NDArray[np.uint8]:
    """Unlabelled CIFAR-10 training images, lossless: uint8, (2000, 32, 32, 3)."""
    return cifar10_train(data).images


def cifar10_jpeg_test(data: Path) -> LabelledImages:
    """CIFAR-10 test, lossy, sorted by class: (2000, 32, 32, 3)."""
    return _labelled_zip(require(data, CIFAR10_JPEG_TEST), CIFAR10_SIDE)


def cifar10_jpeg_train(data: Path) -> LabelledImages:
    """CIFAR-10 training, lossy, sorted by class: (10000, 32, 32, 3). The label is the name of the image's folder."""
    archive = require(data, CIFAR10_JPEG_TRAIN)
    with zipfile.ZipFile(archive) as images:
        names = [name for name in images.namelist() if name.endswith(".jpg")]
    labels = np.array([CIFAR10_CLASSES.index(name.split("/")[0]) for name in names], dtype=np.int64)
    return LabelledImages(read_zip_images(archive, names, CIFAR10_SIDE), labels)


def fashion_mnist_train(data: Path) -> LabelledImages:
    """Fashion-MNIST, a shuffled part of the training images: (5000, 28, 28, 1)."""
    return _labelled_npz(require(data, FASHION_MNIST), "x_train", "y_train")


def fashion_mnist_test(data: Path) -> LabelledImages:
    """Fashion-MNIST test: (10000, 28, 28, 1)."""
    return _labelled_npz(require(data, FASHION_MNIST), "x_test", "y_test")


def mnist(data: Path) -> LabelledImages:
    """MNIST, the 10,000 test images (the training images are not in the folder): (10000, 28, 28, 1)."""
    return _labelled_npz(require(data, MNIST), "x", "y")


def mnist_m(data: Path) -> LabelledImages:
    """MNIST-M, digits on photographs: (2000, 32, 32, 3)."""
    return _labelled_npz(require(data, MNIST_M), "x", "y")


def usps_train(data: Path) -> LabelledImages:
    """USPS training: (7291, 16, 16, 1)."""
    return _labelled_npz(require(data, USPS), "x_train", "y_train")


def usps_test(data: Path) -> LabelledImages:
    """USPS test: (2007, 16, 16, 1)."""
    return _labelled_npz(require(data, USPS), "x_test", "y_test")


def _labelled_zip(archive: Path, side: int) -> LabelledImages:
    names, labels = read_csv_labels(archive)
    return LabelledImages(read_zip_images(archive, names, side), labels)


def _labelled_npz(path: Path, images_key: str, labels_key: str) -> LabelledImages:
    images = read_npz_array(path, images_key)
    # Grey images are stored without a channel axis.
    pixels = images[..., np.newaxis] if images.ndim == 3 else images
    return LabelledImages(pixels, read_npz_array(path, labels_key).astype(np.int64))


def _cifar10_sheets(data: Path, files: tuple[str, ...]) -> LabelledImages:
    labels_path = require(data, CIFAR10_LABELS)
    sheets = [require(data, file) for file in files]
    pixels = [read_png_sheet(sheet, CIFAR10_SIDE) for sheet in sheets]
    # cifar10_batch_50.png is labelled by the array batch_50.
    labels = [read_npz_array(labels_path, sheet.stem.removeprefix("cifar10_")) for sheet in sheets]
    return LabelledImages(np.concatenate(pixels), np.concatenate(labels).astype(np.int64))
