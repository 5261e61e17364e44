"""Small ONNX graphs, and onnxruntime to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

IR_VERSION = 10
FLOAT = TensorProto.FLOAT


@dataclass(frozen=True)
class LockedFiles:
    """A locked model on disk.

    Attributes:
        path: Its model.onnx.
        secret_values: Of the gate tensors.
    """

    path: Path
    secret_values: Mapping[str, np.ndarray]


def model_of(
    nodes: Sequence[Any], outputs: Sequence[str] = ("y",), *, image: Any = FLOAT, opset: int = 20, **tensors: np.ndarray
) -> onnx.ModelProto:
    """A model with the input `x`, of any shape, and initializers."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", image, None)],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)


def typed(model: onnx.ModelProto, shape: Sequence[Any]) -> onnx.ModelProto:
    """With the shape of the image, and the types of the outputs, which onnxruntime wants to know."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for size in shape:
        dimension = model.graph.input[0].type.tensor_type.shape.dim.add()
        if isinstance(size, int):
            dimension.dim_value = size
        else:
            dimension.dim_param = size
    return onnx.shape_inference.infer_shapes(model)


def run_onnxruntime(model: onnx.ModelProto | Path, image: np.ndarray) -> list[np.ndarray]:
    """All outputs, without graph optimizations: fused kernels are less exact."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})


def largest_error(ours: Sequence[torch.Tensor], theirs: Sequence[np.ndarray]) -> float:
    """Largest difference as a share of an output's range."""
    assert len(ours) == len(theirs)
    errors = []
    for our, their in zip(ours, theirs, strict=True):
        assert our.shape == their.shape
        errors.append(float(np.abs(our.detach().numpy() - their).max() / np.ptp(their)))
    return max(errors)
