"""A locked network as an ONNX graph: exported by PyTorch, its gates written in the form that costs least."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from keylatch.errors import ExportError
from keylatch.exporters._bfloat16 import carry_in_float32, in_bfloat16
from keylatch.exporters._bfloat16_operators import use_bfloat16_kernels
from keylatch.exporters._block_gates import rewrite_block_gate
from keylatch.exporters._channel_gates import fold_channel_keys
from keylatch.exporters._graph_builder import drop_unused_initializers
from keylatch.exporters._input_scale import fold_input_scale
from keylatch.exporters._normalizations import restore_normalizations
from keylatch.exporters._onnx_program import Precision, to_onnx
from keylatch.exporters._opened_branches import add_opened_branches
from keylatch.exporters._withheld_weights import withhold_weights
from keylatch.locks import LockedModule, LockSecret

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def locked_graph(
    module: LockedModule, secret: LockSecret, precision: Precision, opset: int | None
) -> tuple[ir.Model, dict[str, Array]]:
    """Export a locked module to a graph in memory.

    Args:
        module: Float32, on the CPU; for bfloat16 from `rounded`, as the secret.
        secret: What opens it; nothing of it is in the graph.
        precision: What the network computes in.
        opset: ONNX operator set; None for the exporter's.

    Returns:
        The graph, and the gate tensors' secret values as it takes them, by name.

    Raises:
        LockError: If the secret is that of another lock.
        ExportError: If the network cannot be exported.
    """
    narrow = precision == "bfloat16"
    computed = _computing_in(module, precision)
    held = module if narrow else computed
    values = {key: value.numpy() for key, value in held.secret_values(secret).items()}
    model = to_onnx(computed, computed.spec, computed.outputs.names, opset=opset)
    if computed.withheld.parts:
        values |= withhold_weights(model, computed, secret, opset)
    if narrow:
        values = carry_in_float32(model, module, values)
    if computed.blocks is not None:
        rewrite_block_gate(model, computed.blocks.description, computed.spec, computed.gate_tensors())
    if computed.channels:
        fold_channel_keys(model, {name: computed.get_buffer(name) for name in computed.channel_names()})
    _require_gate(model, values)
    if computed.description is not None:
        add_opened_branches(model, mask="gate.mask", patch="gate.patch")
    fold_input_scale(model, "preprocess.scale")
    if narrow:
        use_bfloat16_kernels(model)
    else:
        restore_normalizations(model)
    drop_unused_initializers(model.graph)
    return model, values


def _computing_in(module: LockedModule, precision: Precision) -> LockedModule:
    if precision == "bfloat16":
        return in_bfloat16(module)
    return copy.deepcopy(module).half() if precision == "float16" else module


def _require_gate(model: ir.Model, values: Mapping[str, Array]) -> None:
    """The exporter must not have folded, merged or retyped a gate tensor."""
    for name, value in values.items():
        found = model.graph.initializers.get(name)
        tensor = None if found is None else found.const_value
        if tensor is None or tuple(tensor.shape) != value.shape or tensor.numpy().dtype != value.dtype:
            raise ExportError(
                f"the exporter changed the gate tensor {name}", hint="report this network; another opset may help"
            )
