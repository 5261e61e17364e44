"""All tensors of an ONNX file, whether or not its graph can be run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from keylatch.audit.onnx_network._external_data import tensor_reader
from keylatch.audit.onnx_network._loading import load_model
from keylatch.audit.onnx_network._operator import DTYPES


def file_tensors(path: Path) -> dict[str, Tensor]:
    """Read every initializer and constant of a model, those of branches and functions too.

    Args:
        path: The model; external data is read from the same folder, from plain files only.

    Returns:
        Name to tensor; those of a type that PyTorch does not have are left out. A name used in several branches gets
        a number.

    Raises:
        ArtifactError: If the file is missing or no ONNX model, or its external data is missing or elsewhere.
    """
    model = load_model(path)
    read = tensor_reader(path.parent)
    found: dict[str, Tensor] = {}
    for name, tensor in _tensors(model.graph.node, model.graph.initializer):
        if tensor.data_type in DTYPES:
            found[_free(name, found)] = read(tensor)
    for function in model.functions:
        for name, tensor in _tensors(function.node, ()):
            if tensor.data_type in DTYPES:
                found[_free(name, found)] = read(tensor)
    return found


def _tensors(nodes: Any, initializers: Any) -> Iterator[tuple[str, Any]]:
    yield from ((tensor.name, tensor) for tensor in initializers)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield (node.output[0] if node.output else node.name, attribute.t)
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(graph.node, graph.initializer)


def _free(name: str, taken: dict[str, Tensor]) -> str:
    free, number = name, 1
    while free in taken:
        free, number = f"{name}#{number}", number + 1
    return free
