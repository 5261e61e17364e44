"""Write what is left of batch normalizations as the operator that onnxruntime knows best.

Locking turns a normalization that cannot be folded into one product and one sum, so that no statistics are in the file.
As two operators they cost two passes over memory, and keep onnxruntime from fusing what follows; as a
BatchNormalization with mean 0 and variance 1 they cost what they cost in the plain network, and tell as little.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from keylatch.exporters._graph_builder import add_initializer


def restore_normalizations(model: ir.Model) -> int:
    """Replace each product and sum with one number a channel, on (N, C, H, W), in place.

    Args:
        model: As `to_onnx` gives it.

    Returns:
        How many were replaced.
    """
    graph, count = model.graph, 0
    for total in [node for node in graph if node.op_type == "Add"]:
        product, shift = total.inputs[0], _channel_numbers(total.inputs[1])
        scaling = None if product is None else product.producer()
        if scaling is None or scaling.op_type != "Mul" or shift is None or not _is_used_once(scaling.outputs[0]):
            continue
        source, scale = scaling.inputs[0], _channel_numbers(scaling.inputs[1])
        channels = None if source is None or source.shape is None else source.shape[1]
        if source is None or scale is None or not len(scale) == len(shift) == channels:
            continue
        constants = (scale, shift, np.zeros_like(scale), np.ones_like(scale))
        inputs = [add_initializer(graph, f"{total.name}_{place}", value) for place, value in enumerate(constants)]
        output = total.outputs[0]
        normalized = ir.node("BatchNormalization", [source, *inputs], {"epsilon": 0.0}, name=f"{total.name}_normalized")
        normalized.outputs[0].name = f"{output.name}_normalized"
        normalized.outputs[0].type, normalized.outputs[0].shape = output.type, output.shape
        graph.insert_before(total, normalized)
        ir.convenience.replace_all_uses_with(output, normalized.outputs[0], replace_graph_outputs=True)
        graph.remove([scaling, total], safe=True)
        count += 1
    return count


def _is_used_once(value: ir.Value) -> bool:
    return len(value.consumers()) == 1 and not value.is_graph_output()


def _channel_numbers(value: ir.Value | None) -> np.ndarray | None:
    """An initializer's (C,) numbers if it is (1, C, 1, 1), as locking leaves them."""
    tensor = None if value is None else value.const_value
    if value is None or tensor is None or not value.is_initializer():
        return None
    shape = tuple(int(str(size)) for size in tensor.shape)
    return tensor.numpy().reshape(-1) if len(shape) == 4 and shape == (1, shape[1], 1, 1) else None
