"""Images for `keylatch run`: arrays as the model takes them, or picture files brought into its convention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from keylatch.errors import InputError, MissingExtraError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def load_inputs(paths: Sequence[Path], spec: Mapping[str, Any]) -> Array:
    """Load a batch.

    Args:
        paths: One ``.npy`` file with a batch or a single image as the model takes it, or picture files.
        spec: The manifest's description of the input.

    Raises:
        InputError: If a file cannot be read.
    """
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise InputError(f"{missing[0]} does not exist", hint="check the path")
    if len(paths) == 1 and paths[0].suffix == ".npy":
        return _load_array(paths[0], spec)
    return np.stack([_load_picture(path, spec) for path in paths])


def _load_array(path: Path, spec: Mapping[str, Any]) -> Array:
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise InputError(f"{path} is not a readable .npy file", hint="save it with numpy.save") from None
    return array[None] if array.ndim == len(spec["shape"]) - 1 else array


def _load_picture(path: Path, spec: Mapping[str, Any]) -> Array:
    try:
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError:
        raise MissingExtraError("reading picture files", "pillow", "report") from None
    try:
        with Image.open(path) as picture:
            mode = "L" if spec["channels"] == 1 else "RGB"
            resized = picture.convert(mode).resize((spec["width"], spec["height"]), Image.Resampling.BILINEAR)
    except (OSError, UnidentifiedImageError):
        raise InputError(f"{path} is not a readable picture", hint="give a .npy file, PNG or JPEG") from None
    pixels = np.asarray(resized, dtype=np.uint8).reshape(spec["height"], spec["width"], spec["channels"])
    return in_convention(pixels, spec)


def in_convention(pixels: Array, spec: Mapping[str, Any]) -> Array:
    """Bring pixels, (H, W, C) uint8, into the model's input convention."""
    if spec["dtype"] == "uint8":
        image = pixels
    else:
        mean, std = np.array(spec["mean"]), np.array(spec["std"])
        image = ((pixels / 255 - mean) / std).astype(np.float32)
    return image if spec["layout"] == "NHWC" else np.ascontiguousarray(image.transpose(2, 0, 1))
