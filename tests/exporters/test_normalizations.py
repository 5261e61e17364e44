"""Normalizations that could not be folded are one operator again, without their statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from artifacts import make_artifact
from onnx import TensorProto, helper, numpy_helper

import networks
from keylatch.exporters._normalizations import restore_normalizations


def graph_of(path: Path) -> onnx.GraphProto:
    return onnx.load(path / "model.onnx").graph


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_they_have_neither_means_nor_variances(tmp_path: Path, precision: str) -> None:
    locked = networks.lock(networks.settle(networks.PreActivation))
    graph = graph_of(make_artifact(locked, tmp_path / "net.latch", precision=precision).path)
    found = [node for node in graph.node if node.op_type == "BatchNormalization"]
    assert found
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in found:
        assert not tensors[node.input[3]].any()
        assert (tensors[node.input[4]] == 1).all()
        assert [entry.f for entry in node.attribute if entry.name == "epsilon"] == [0.0]


def test_only_products_and_sums_with_one_number_a_channel_are_rewritten() -> None:
    def model(scale: tuple[int, ...], shift: tuple[int, ...], outputs: tuple[str, ...] = ("total",)) -> ir.Model:
        product = helper.make_node("Mul", ["x", "scale"], ["product"])
        total = helper.make_node("Add", ["product", "shift"], ["total"])
        shape = ["n", 4, 2, 2]
        graph = helper.make_graph(
            [product, total], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
            [numpy_helper.from_array(np.ones(scale, np.float32), "scale"),
             numpy_helper.from_array(np.ones(shift, np.float32), "shift")],
        )  # fmt: skip
        return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))

    channels = (1, 4, 1, 1)
    assert restore_normalizations(model(channels, channels)) == 1
    for other in ((4, 1, 1), (1, 4, 2, 2), (1, 1, 1, 1), ()):
        assert restore_normalizations(model(channels, other)) == 0
        assert restore_normalizations(model(other, channels)) == 0
    assert restore_normalizations(model((1, 1, 1, 1), (1, 1, 1, 1))) == 0
    assert restore_normalizations(model(channels, channels, ("total", "product"))) == 0
