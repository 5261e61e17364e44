"""Tensors out of a model's files: only plain files in the model's own folder, each range checked before it is read."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from torch import Tensor

from keylatch.audit.onnx_network._operator import DTYPES
from keylatch.errors import ArtifactError, InputError

# Gives the tensor of a TensorProto.
TensorReader: TypeAlias = Callable[[Any], Tensor]

_HINT = "copy model.onnx together with the files that lay beside it"
# As the runtime opens them: a link could lead out of the folder, a FIFO must not make us wait.
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def tensor_reader(folder: Path | None) -> TensorReader:
    """A function that loads TensorProtos.

    Args:
        folder: Where external data lies; None: there is none, and a tensor that has some is refused.

    Raises (the function):
        ArtifactError: If external data is missing, too short, no plain file, or outside the folder.
        InputError: If PyTorch has no such data type.
    """

    def read(tensor: Any) -> Tensor:
        dtype = DTYPES.get(tensor.data_type)
        if dtype is None:
            kind = onnx.TensorProto.DataType.Name(tensor.data_type)
            raise InputError(
                f"the tensor {tensor.name} has the data type {kind}, which PyTorch cannot train or compute with",
                hint="export the network in float32 or float16",
            )
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            return _external(tensor, dtype, folder)
        array = onnx.numpy_helper.to_array(tensor)
        return torch.from_numpy(np.array(array.view(_bits(array)), order="C")).view(dtype)

    return read


def _bits(array: Any) -> Any:
    """A NumPy type that PyTorch takes; bfloat16 is none of NumPy's own."""
    return np.int16 if array.dtype.name == "bfloat16" else array.dtype


def _external(tensor: Any, dtype: torch.dtype, folder: Path | None) -> Tensor:
    where = {entry.key: entry.value for entry in tensor.external_data}
    if folder is None:
        raise ArtifactError(
            f"the tensor {tensor.name} is in another file, {where.get('location', '')!r:.60}",
            hint="load the model from its path, with load_onnx_network",
        )
    location = _plain_name(where.get("location", ""))
    size_bytes = math.prod(tensor.dims) * dtype.itemsize
    offset, length = _range(where, tensor.name, size_bytes)
    if length != size_bytes:
        raise ArtifactError(f"the tensor {tensor.name} has {length} bytes, expected {size_bytes}", hint=_HINT)
    buffer = torch.empty(size_bytes, dtype=torch.uint8)
    _read_into(folder / location, memoryview(buffer.numpy().data), offset)
    return buffer.view(dtype).reshape(tuple(tensor.dims))


def _range(where: dict[str, str], name: str, size_bytes: int) -> tuple[int, int]:
    try:
        offset, length = int(where.get("offset", 0)), int(where.get("length", size_bytes))
    except ValueError:
        offset = -1
    if offset < 0:
        raise ArtifactError(f"the tensor {name} names no range of its file", hint=_HINT)
    return offset, length


def _plain_name(location: str) -> str:
    if not location or location in {".", ".."} or any(mark in location for mark in ("/", "\\", "\0", ":")):
        raise ArtifactError(
            f"the model refers to the file {location!r:.60}, expected a plain name in its own folder", hint=_HINT
        )
    return location


def _read_into(path: Path, view: memoryview, offset: int) -> None:
    try:
        descriptor = os.open(path, _READ_FLAGS)
    except OSError as error:
        raise ArtifactError(
            f"the model's file {path.name} cannot be opened: {error.strerror}; links are not followed", hint=_HINT
        ) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or offset + len(view) > status.st_size:
            raise ArtifactError(
                f"the model's file {path.name} has {status.st_size} bytes, expected {offset + len(view)} or more",
                hint=_HINT,
            )
        position = 0
        while position < len(view):
            count = os.preadv(descriptor, [view[position:]], offset + position)
            if count == 0:
                raise ArtifactError(f"{path.name} became shorter while it was read", hint="try again")
            position += count
    finally:
        os.close(descriptor)
