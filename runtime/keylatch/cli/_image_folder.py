"""A folder of pictures for training: one subfolder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keylatch.cli._images import load_inputs
from keylatch.errors import InputError

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})
_HINT = "give a folder with one subfolder of pictures for each class"


def class_names(folder: Path) -> tuple[str, ...]:
    """Names of the subfolders in alphabetical order, which numbers the classes.

    Raises:
        InputError: If there are fewer than two.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", hint=_HINT)
    names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))
    if len(names) < 2:
        raise InputError(
            f"{folder} has {len(names)} subfolders, expected one for each of two classes or more", hint=_HINT
        )
    return names


def read_image_folder(folder: Path, names: Sequence[str], spec: Any) -> tuple[Any, Any]:
    """Read all pictures, resized to what the network takes.

    Args:
        folder: With one subfolder for each class.
        names: The classes, in the order of their numbers.
        spec: The network's input convention (`InputSpec`).

    Returns:
        (N, C, H, W) uint8 pixels and (N,) int64 labels, as torch tensors.

    Raises:
        InputError: If the subfolders are others, or a picture cannot be read.
    """
    import torch

    found = class_names(folder)
    if found != tuple(names):
        strange = sorted(set(found) ^ set(names))[0]
        raise InputError(f"{folder} has other classes: {strange} is in one of the two folders only", hint=_HINT)
    paths = [(path, number) for number, name in enumerate(names) for path in _pictures(folder / name)]
    pixels = load_inputs([path for path, _ in paths], _as_bytes(spec))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor([number for _, number in paths])


def _pictures(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise InputError(f"{folder} holds no pictures", hint="give PNG or JPEG files")
    return paths


def _as_bytes(spec: Any) -> dict[str, Any]:
    raw = spec.as_uint8()
    return {**raw.to_json(), "shape": [1, *raw.shape]}
