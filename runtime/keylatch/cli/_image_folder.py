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
    return _pixels([path for path, _ in paths], spec), torch.tensor([number for _, number in paths])


def read_pictures(folder: Path, spec: Any) -> Any:
    """Read the pictures of a folder and of its subfolders, whatever their classes.

    Args:
        folder: Where they are.
        spec: The network's input convention (`InputSpec`).

    Returns:
        (N, C, H, W) uint8 pixels, a torch tensor.

    Raises:
        InputError: If there is no picture, or one cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", hint="give a folder of pictures")
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return _pixels([path for place in inside or [folder] for path in _pictures(place)], spec)


def _pixels(paths: Sequence[Path], spec: Any) -> Any:
    import torch

    return torch.from_numpy(load_inputs(paths, _as_bytes(spec))).permute(0, 3, 1, 2).contiguous()


def _pictures(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise InputError(f"{folder} holds no pictures", hint="give PNG or JPEG files")
    return paths


def _as_bytes(spec: Any) -> dict[str, Any]:
    raw = spec.as_uint8()
    return {**raw.to_json(), "shape": [1, *raw.shape]}
