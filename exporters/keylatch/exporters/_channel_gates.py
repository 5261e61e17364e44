"""Move permutations of feature maps into the weights behind them, which onnxruntime computes while opening.

W · x[:, key] is W[:, inverse key] · x: a keyed session then runs the plain network's nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from keylatch.exporters._graph_builder import GraphBuilder, inverse_permutation


def fold_channel_keys(model: ir.Model, defaults: Mapping[str, Any]) -> None:
    """Rewrite the permutations of an exported model in place.

    Args:
        model: As `to_onnx` gives it; the exporter has folded the locked defaults into constants.
        defaults: Locked defaults by gate tensor name, in the graph's order.

    Raises:
        ValueError: If a permutation is not where it was exported.
    """
    graph, builder = model.graph, GraphBuilder(model.graph, "channels")
    gathers = [node for node in graph if _moves_channels(node)]
    if len(gathers) != len(defaults):
        raise ValueError(f"the graph has {len(gathers)} permuted feature maps, expected {len(defaults)}")
    for gather, (name, default) in zip(gathers, defaults.items(), strict=True):
        layer, data = gather.outputs[0].consumers()[0], gather.inputs[0]
        weight = layer.inputs[1]
        assert data is not None and weight is not None  # noqa: S101  `_moves_channels` looked at them
        key = builder.initializer(np.asarray(default), name)
        moved = builder.add("Gather", weight, inverse_permutation(builder, key), axis=1)
        moved.type, moved.shape = weight.type, weight.shape
        layer.replace_input_with(0, data)
        layer.replace_input_with(1, moved)
        graph.remove(gather, safe=True)
    graph.sort()


def _moves_channels(node: ir.Node) -> bool:
    """A Gather of all channels, in their own order, for one convolution."""
    if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 1:
        return False
    users = node.outputs[0].consumers()
    order = None if node.inputs[1] is None else node.inputs[1].const_value
    if len(users) != 1 or users[0].op_type != "Conv" or users[0].inputs[0] is not node.outputs[0] or order is None:
        return False
    numbers = order.numpy()
    return numbers.ndim == 1 and bool((numbers == np.arange(len(numbers))).all())
