"""The artifact's graph in 8 bits, with onnxruntime's quantizers; the gate's own nodes are left out."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import onnx
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode, QuantType, add_infer_metadata
from onnxruntime.quantization.registry import IntegerOpsRegistry, QDQRegistry, QLinearOpsRegistry

from keylatch.audit._owner import Array
from keylatch.audit.survival._change import Changed, Subject, Unable
from keylatch.audit.survival._gate_nodes import gate_node_names, gates_note
from keylatch.audit.survival._memory_model import first_line, model_opener, read_model
from keylatch.audit.survival._ranges import activation_ranges


def quantized_dynamic(subject: Subject) -> Changed:
    """Quantize weights now and activations as they come.

    Raises:
        Unable: If the quantizer cannot do it.
    """
    model = _inferred_model(subject)
    gate = gate_node_names(model, subject.target)
    note = left_out(model, gate) + gates_note(subject.target)  # the quantizer adds nodes
    _keep_gemm_weights(model, subject.target.gate_names)
    # Unsigned weights: onnxruntime has no ConvInteger for signed ones on CPUs. Activations are always unsigned here.
    quantizer = ONNXQuantizer(
        model, False, False, QuantizationMode.IntegerOps, False, QuantType.QUInt8, QuantType.QUInt8, None, [],
        sorted({*gate, *(f"{name}_MatMul" for name in gate)}), sorted(IntegerOpsRegistry), {"MatMulConstBOnly": True},
    )  # fmt: skip
    return _changed(subject, quantizer, note)


def quantized_static(subject: Subject) -> Changed:
    """Quantize weights for each channel, and activations to ranges seen on calibration images.

    The ranges are those of the keyed network if the owner's values are there: locked activations are others.

    Raises:
        Unable: If the quantizer cannot do it.
    """
    target = subject.target
    model = _inferred_model(subject)
    gate = gate_node_names(model, target)
    ranges = activation_ranges(model, target.gate_names, subject.values, subject.calibration)
    how = "keyed" if subject.values else "locked"
    note = f"QDQ, per channel, {how} ranges of {len(subject.calibration)} images; {left_out(model, gate)}"
    note += gates_note(target)
    return _changed(subject, qdq_quantizer(model, gate, ranges), note)


def _keep_gemm_weights(model: Any, gate_names: Collection[str]) -> None:
    """Put identities between gate tensors and the Gemm nodes that read them.

    The dynamic quantizer turns every Gemm into a MatMul first, left out or not (under a name with `_MatMul`), and
    transposes its weight in place if that is an initializer: one that a license brings would not fit any more.
    """
    for node in [node for node in model.graph.node if node.op_type == "Gemm" and node.input[1] in gate_names]:
        carried = f"{node.input[1]}/{node.name}"
        identity = onnx.helper.make_node("Identity", [node.input[1]], [carried], carried)
        node.input[1] = carried
        model.graph.node.insert(0, identity)


def left_out(model: Any, gate: frozenset[str]) -> str:
    """What is not quantized, in words."""
    return f"left out: {len(gate)} of {len(model.graph.node)} nodes, the gate's and those with tensors of the license"


def qdq_quantizer(model: Any, gate: frozenset[str], ranges: Mapping[str, tuple[Array, Array]]) -> Any:
    """Make onnxruntime's static quantizer: its defaults, and ranges that are known already."""
    limits = TensorsData(CalibrationMethod.MinMax, dict(ranges))
    return QDQQuantizer(
        model, True, False, QuantType.QInt8, QuantType.QInt8, limits, [], sorted(gate),
        sorted({*QLinearOpsRegistry, *QDQRegistry}), {},
    )  # fmt: skip


def _inferred_model(subject: Subject) -> Any:
    """The artifact's graph, marked as inferred: the static quantizer writes others to a file and reads them again.

    The dynamic quantizer does so with any, in a temporary directory; what it writes is locked.
    """
    model = read_model(subject.target)
    add_infer_metadata(model)
    return model


def _changed(subject: Subject, quantizer: Any, note: str) -> Changed:
    try:
        with _quiet():
            quantizer.quantize_model()
    except ValueError as error:
        raise Unable(f"onnxruntime's quantizer fails: {first_line(error)}") from error
    return Changed(model_opener(quantizer.model.model, subject.target.gate_names), note=note)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the quantizers tell the root logger, once a layer, from the terminal."""
    root, handler = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(handler)  # without any, `logging.warning` would set one up that prints
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
