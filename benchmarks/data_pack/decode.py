"""Decoding of the three containers that hold images: a zip of image files, a PNG sheet, an npz of arrays.

Every function returns uint8 images in NHWC order, values 0..255. Nothing here knows a data set.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["centre_crop", "read_csv_labels", "read_npz_array", "read_png_sheet", "read_zip_images"]

Uint8Array = npt.NDArray[np.uint8]


def centre_crop(image: Uint8Array, side: int) -> Uint8Array:
    """Cut the central square out of one image; odd margins leave the extra pixel at the bottom and right.

    Args:
        image: uint8, shape (H, W, C), H and W at least `side`.
        side: Side of the square in pixels.

    Returns:
        uint8, shape (side, side, C), a view.

    Raises:
        ValueError: The image is smaller than the square.
    """
    height, width = image.shape[:2]
    if min(height, width) < side:
        raise ValueError(f"got an image of {height}x{width} pixels, expected at least {side}x{side}")
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def read_csv_labels(archive: Path) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Read ``labels.csv`` (header ``file,label``) of a zip.

    Returns:
        The image names in the order of the table, and int64 labels of shape (N,).

    Raises:
        ValueError: The table has other columns, or no row.
    """
    with zipfile.ZipFile(archive) as images:
        table = csv.DictReader(io.StringIO(images.read("labels.csv").decode("utf-8")))
        rows = list(table)
    if table.fieldnames != ["file", "label"] or not rows:
        raise ValueError(f"labels.csv of {archive.name}: got {table.fieldnames}, expected rows of file,label")
    return [row["file"] for row in rows], np.array([int(row["label"]) for row in rows], dtype=np.int64)


def read_zip_images(archive: Path, names: Sequence[str], side: int) -> Uint8Array:
    """Decode images of a zip as RGB and cut out the central square of each; nothing is resized.

    Args:
        archive: The zip.
        names: The images to read, in this order.
        side: Side of the square in pixels.

    Returns:
        uint8, shape (len(names), side, side, 3).
    """
    from PIL import Image

    pixels = np.empty((len(names), side, side, 3), dtype=np.uint8)
    with zipfile.ZipFile(archive) as images:
        for index, name in enumerate(names):
            with images.open(name) as file, Image.open(file) as image:
                pixels[index] = centre_crop(np.asarray(image.convert("RGB")), side)
    return pixels


def read_png_sheet(path: Path, side: int) -> Uint8Array:
    """Decode a sheet in which each row of pixels is one image of side·side RGB pixels, row-major.

    Args:
        path: A PNG that is side·side pixels wide and N high.
        side: Side of one image in pixels.

    Returns:
        uint8, shape (N, side, side, 3).

    Raises:
        ValueError: The sheet has another width.
    """
    from PIL import Image

    with Image.open(path) as image:
        sheet = np.asarray(image.convert("RGB"))
    if sheet.shape[1] != side * side:
        raise ValueError(f"{path.name}: got rows of {sheet.shape[1]} pixels, expected {side * side}")
    return sheet.reshape(-1, side, side, 3)


def read_npz_array(path: Path, key: str) -> Uint8Array:
    """Read one uint8 array of an npz; pickled arrays are refused.

    Raises:
        ValueError: The array is missing or not uint8.
    """
    with np.load(path, allow_pickle=False) as arrays:
        if key not in arrays.files:
            raise ValueError(f"{path.name}: got arrays {', '.join(arrays.files)}, expected {key}")
        array = arrays[key]
    if array.dtype != np.uint8:
        raise ValueError(f"{path.name}: got {array.dtype} for {key}, expected uint8")
    return np.asarray(array, dtype=np.uint8)
