"""Lay an ONNX graph out in files: graph, weights, and gate tensors in a file of their own."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

import onnx_ir as ir

# Shape inference cannot read external data: shapes, axes and other small constants stay in the graph.
_INLINE_BYTES = 1024
_ALIGNMENT_BYTES = 64
_PAGE_BYTES = 4096  # large tensors start on a page, so that onnxruntime can map them


def write_graph(
    model: ir.Model, directory: Path, *, graph: str, weights: str, gate: str, gate_names: Collection[str]
) -> None:
    """Write a model as three files.

    Args:
        model: The model; its large initializers point into the files afterwards.
        directory: An existing, empty directory.
        graph: Name of the ONNX file.
        weights: Name of the file for weights over 1 KiB.
        gate: Name of the file for the gate tensors, which are always external: only external data can be overridden.
        gate_names: Initializers that are gate tensors.
    """
    values = list(model.graph.initializers.items())
    with (directory / gate).open("wb") as gate_file, (directory / weights).open("wb") as weights_file:
        for name, value in values:
            tensor = value.const_value
            if tensor is None:
                continue
            if name in gate_names:
                value.const_value = _append(gate_file, gate, name, tensor, directory)
            elif tensor.nbytes > _INLINE_BYTES:
                value.const_value = _append(weights_file, weights, name, tensor, directory)
    ir.save(model, directory / graph)


def _append(file: BinaryIO, location: str, name: str, tensor: Any, directory: Path) -> ir.ExternalTensor:
    alignment = _PAGE_BYTES if tensor.nbytes >= _PAGE_BYTES else _ALIGNMENT_BYTES
    file.write(bytes(-file.tell() % alignment))
    offset = file.tell()
    file.write(tensor.tobytes())
    return ir.ExternalTensor(
        location, offset, tensor.nbytes, tensor.dtype, shape=tensor.shape, name=name, base_dir=directory
    )
