"""The tensors of a leaked file, whatever format it has."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError

from keylatch.audit.onnx_network import file_tensors
from keylatch.errors import InputError
from keylatch.runtime import GRAPH_NAME

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

# What NumPy, torch.load and safetensors raise for a file that is something else.
_UNREADABLE = (
    OSError, ValueError, EOFError, RuntimeError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile, SafetensorError,
)  # fmt: skip
_HINT = "give .onnx, a state dict as .pt, .pth or .safetensors, or arrays as .npz"


def read_leak(path: str | PathLike[str]) -> dict[str, Array]:
    """Read all tensors of a leaked model.

    Args:
        path: A folder with model.onnx, or ``.onnx`` with external data beside it, quantized or not; a state dict
            (``.safetensors``, ``.pt``, ``.pth``, ``.bin``, read with ``weights_only=True``, so that a leak cannot run
            code); ``.npz``.

    Returns:
        Name to tensor: floats as float64, integers as they are.

    Raises:
        InputError: It cannot be read, or holds no tensor.
        ArtifactError: An ONNX file that is damaged, or names files outside of its folder.
    """
    file = Path(path) / GRAPH_NAME if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise InputError(f"the leaked model {file} does not exist", hint=_HINT)
    found = {name: _as_numbers(tensor) for name, tensor in _read(file).items()}
    tensors = {name: tensor for name, tensor in found.items() if tensor is not None}
    if not tensors:
        raise InputError(f"{file} holds no tensors", hint=_HINT)
    return tensors


def _read(file: Path) -> Mapping[str, Any]:
    if file.suffix == ".onnx":
        return file_tensors(file)
    try:
        if file.suffix == ".npz":
            # Opened here: of a file that is no archive NumPy would leave a descriptor open.
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                return dict(arrays)
        if file.suffix == ".safetensors":
            import safetensors.torch

            return dict(safetensors.torch.load_file(file))
        return dict(_flat("", torch.load(file, map_location="cpu", weights_only=True)))
    except _UNREADABLE as error:
        raise InputError(f"the leaked model {file} cannot be read: {type(error).__name__}", hint=_HINT) from None


def _flat(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    """Tensors of nested dictionaries and lists, as checkpoints are."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{prefix}{key}.", inner)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _flat(f"{prefix}{index}.", inner)
    elif isinstance(value, torch.Tensor):
        yield prefix.removesuffix("."), value


def _as_numbers(tensor: object) -> Array | None:
    if isinstance(tensor, torch.Tensor):
        plain = tensor.detach().dequantize() if tensor.is_quantized else tensor.detach()
        tensor = (plain.double() if plain.is_floating_point() else plain).cpu().numpy()
    if not isinstance(tensor, np.ndarray) or tensor.dtype.kind not in "fiu":
        return None
    return tensor.astype(np.float64) if tensor.dtype.kind == "f" else tensor
