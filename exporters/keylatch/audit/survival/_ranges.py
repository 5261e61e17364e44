"""How large the values between nodes get: what static quantization is calibrated with."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
import torch

from keylatch.audit._owner import Array
from keylatch.audit.survival._change import Values
from keylatch.audit.survival._memory_model import model_opener

_BATCH = 10
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


def activation_ranges(
    model: Any, gate_names: Collection[str], values: Values, images: torch.Tensor
) -> dict[str, tuple[Array, Array]]:
    """Smallest and largest value of every float tensor that nodes compute, and of a float image.

    The session is keyed if `values` are the owner's; the graph, which is changed for it in memory, never is.
    onnxruntime's own calibrators write their graph to a file.

    Args:
        model: The graph, its types inferred.
        gate_names: Gate tensors.
        values: Their values; {} for the locked defaults.
        images: (n, *shape) as the model takes them.

    Returns:
        Value name to its two () limits, in its own dtype: the quantizer takes the scale's from them.
    """
    names = _float_names(model)
    session = model_opener(_with_limits(model, names), gate_names).session(values)
    image = session.get_inputs()[0].name
    outputs = [_limit_name(kind, name) for kind in ("Min", "Max") for name in names]
    runs = [session.run(outputs, {image: part.numpy()}) for part in torch.split(images.contiguous(), _BATCH)]
    columns = [np.stack(column) for column in zip(*runs, strict=True)]
    least, most = columns[: len(names)], columns[len(names) :]
    return {name: (low.min(0), high.max(0)) for name, low, high in zip(names, least, most, strict=True)}


def _float_names(model: Any) -> list[str]:
    typed = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    return [value.name for value in typed if value.type.tensor_type.elem_type in _FLOATS]


def _with_limits(model: Any, names: list[str]) -> Any:
    """The graph with the limits of all these values for further outputs."""
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    for kind in ("Min", "Max"):
        for name in names:
            limit = _limit_name(kind, name)
            wider.graph.node.append(onnx.helper.make_node(f"Reduce{kind}", [name], [limit], limit, keepdims=0))
            wider.graph.output.append(onnx.ValueInfoProto(name=limit))
    return wider


def _limit_name(kind: str, name: str) -> str:
    return f"{name}/{kind}"
