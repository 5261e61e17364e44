"""The artifact's graph in 16 bits."""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx
import torch
from onnxruntime.transformers.float16 import convert_float_to_float16

from keylatch.audit._attack import Predict
from keylatch.audit._owner import with_values
from keylatch.audit.survival._change import Changed, Subject, Unable, Values
from keylatch.audit.survival._gate_nodes import gate_node_names, gates_note
from keylatch.audit.survival._memory_model import first_line, model_opener, read_model

_BATCH = 25


def float16(subject: Subject, *, keep_gate: bool) -> Changed:
    """Convert the graph with onnxruntime's own converter; inputs and outputs keep their types.

    Args:
        subject: What is converted.
        keep_gate: Leave the gate's nodes in float32.

    Raises:
        Unable: If the converter cannot do it.
    """
    model = read_model(subject.target)
    gate = gate_node_names(model, subject.target) if keep_gate else frozenset()
    kept = _unshare(model, gate)
    try:
        # `read_model` has inferred the types already.
        model = convert_float_to_float16(
            model, keep_io_types=True, disable_shape_infer=True, node_block_list=sorted(kept)
        )
    except ValueError as error:
        raise Unable(f"onnxruntime's converter fails: {first_line(error)}") from error
    note = f"{len(kept)} nodes in float32" if keep_gate else "converted; export(precision='float16') exists too"
    return Changed(model_opener(model, subject.target.gate_names), note=note + gates_note(subject.target))


def _unshare(model: Any, nodes: frozenset[str]) -> frozenset[str]:
    """Give some nodes copies of their own of what they share with others, and of what others give to several of them.

    The converter casts each of these once for each node that stays in float32, under one name (onnxruntime 1.31).

    Returns:
        The nodes, and those that copy.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    chosen = [node for node in model.graph.node if node.name in nodes]
    reads = Counter(name for node in chosen for name in node.input if name)
    outside = {name for node in model.graph.node if node.name not in nodes for name in node.input}
    made = {name for node in chosen for name in node.output}
    shared = {name for name in reads if name in tensors and name in outside}
    several = {name for name, count in reads.items() if count > 1 and name not in tensors and name not in made}
    for name in sorted(shared):
        added = model.graph.initializer.add()
        added.CopyFrom(tensors[name])
        added.name = _copy_name(name)
    for node in chosen:
        node.input[:] = [_copy_name(name) if name in shared or name in several else name for name in node.input]
    for name in sorted(several):
        copying = onnx.helper.make_node("Identity", [name], [_copy_name(name)], _copy_name(name))
        readers = (place for place, node in enumerate(model.graph.node) if _copy_name(name) in node.input)
        model.graph.node.insert(next(readers), copying)
    return nodes | {_copy_name(name) for name in several}


def _copy_name(name: str) -> str:
    return f"{name}/gate"


def bfloat16(subject: Subject) -> Changed:
    """Cast the network to bfloat16 in PyTorch: onnxruntime has few such operators for CPUs."""

    def open_network(values: Values) -> Predict:
        network = with_values(subject.target, values).bfloat16()

        def predict(images: torch.Tensor) -> torch.Tensor:
            try:
                return torch.cat([network(part) for part in torch.split(images, _BATCH)])
            except RuntimeError as error:
                if "BFloat16" not in str(error):
                    raise
                raise Unable(f"PyTorch cannot run it: {first_line(error)}") from error

        return predict

    return Changed(open_network, note="in PyTorch, gate included; onnxruntime has few bfloat16 operators for CPUs")
