"""Every operator computes what onnxruntime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from layer_cases import CASES
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx_graphs import model_of, run_onnxruntime, typed
from operator_cases import Case, draw, ints, number

from keylatch.audit.onnx_network import onnx_network
from keylatch.audit.onnx_network._operators import OPERATORS


def expected(case: Case) -> list[np.ndarray]:
    if case.reference:
        return list(ReferenceEvaluator(case.model()).run(None, {"x": case.image}))
    return run_onnxruntime(typed(case.model(), np.shape(case.image)), case.image)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_operator_computes_what_onnxruntime_computes(case: Case) -> None:
    ours = onnx_network(case.model()).flat(torch.from_numpy(np.array(case.image)))
    theirs = expected(case)
    assert len(ours) == len(theirs) == case.outputs
    for our, their in zip(ours, theirs, strict=True):
        assert our.shape == their.shape
        assert our.detach().numpy().dtype == their.dtype
        np.testing.assert_allclose(our.detach().numpy(), their, rtol=2e-5, atol=2e-5)


def test_every_operator_has_a_case() -> None:
    elsewhere = {"Col2Im", "MaxUnpool", "QuantizeLinear", "DequantizeLinear", "Range", "Swish"}
    lists = {"SequenceConstruct", "SplitToSequence", "SequenceAt", "SequenceLength", "ConcatFromSequence"}
    rare = {"Acosh", "Asinh", "Cosh", "Sinh", "BitwiseOr", "BitwiseXor", "Scatter"}
    tried = {case.op for case in CASES}
    known = {name for name in OPERATORS if "::" not in name}
    assert known - tried - elsewhere - lists - rare == set()


@pytest.mark.parametrize("op", ["Acosh", "Asinh", "Cosh", "Sinh"])
def test_rare_functions(op: str) -> None:
    image = np.abs(draw(3, 4)) + 1.1
    ours = onnx_network(Case(op, image).model())(torch.from_numpy(image))
    np.testing.assert_allclose(
        ours.numpy(), getattr(np, "arc" + op[1:] if op[0] == "A" else op.lower())(image), rtol=1e-5
    )


def run(nodes: list[Any], image: np.ndarray, opset: int = 20, **tensors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ours and onnxruntime's first output."""
    model = model_of(nodes, opset=opset, **tensors)
    ours = onnx_network(model)(torch.from_numpy(image)).detach().numpy()
    return ours, run_onnxruntime(typed(model, ["batch", *image.shape[1:]]), image)[0]


def test_pieces_of_a_list_are_joined_again() -> None:
    nodes = [
        helper.make_node("SplitToSequence", ["x", "sizes"], ["pieces"], axis=1),
        helper.make_node("SequenceAt", ["pieces", "one"], ["second"]),
        helper.make_node("SequenceAt", ["pieces", "zero"], ["first"]),
        helper.make_node("SequenceConstruct", ["second", "first"], ["swapped"]),
        helper.make_node("ConcatFromSequence", ["swapped"], ["y"], axis=1),
    ]
    image = draw(2, 5, 3)
    ours, theirs = run(nodes, image, sizes=ints(2, 3), zero=number(0, np.int64), one=number(1, np.int64))
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(ours, np.concatenate((image[:, 2:], image[:, :2]), 1))


def test_largest_values_go_back_to_their_places() -> None:
    nodes = [
        helper.make_node("MaxPool", ["x"], ["small", "places"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("MaxUnpool", ["small", "places"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    ours, theirs = run(nodes, draw(2, 3, 4, 6))
    np.testing.assert_array_equal(ours, theirs)
    assert np.count_nonzero(ours) == 2 * 3 * 2 * 3


def test_columns_become_an_image() -> None:
    node = helper.make_node("Col2Im", ["x", "whole", "block"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1])
    ours, theirs = run([node], draw(2, 3 * 9, 12), whole=ints(5, 7), block=ints(3, 3))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_sizes_computed_from_the_image_follow_the_batch() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Unsqueeze", ["batch", "first"], ["batch_1"]),
        helper.make_node("Concat", ["batch_1", "rest"], ["sizes"], axis=0),
        helper.make_node("Reshape", ["x", "sizes"], ["flat"]),
        helper.make_node("Range", ["zero", "batch", "one"], ["numbers"]),
        helper.make_node("Cast", ["numbers"], ["floats"], to=1),
        helper.make_node("Unsqueeze", ["floats", "second"], ["column"]),
        helper.make_node("Add", ["flat", "column"], ["sum"]),
        helper.make_node("Shape", ["flat"], ["flat_shape"]),
        helper.make_node("ConstantOfShape", ["flat_shape"], ["zeros"]),
        helper.make_node("Sub", ["sum", "zeros"], ["difference"]),
        helper.make_node("Mul", ["difference", "weight"], ["y"]),
    ]
    tensors = {"zero": number(0, np.int64), "one": number(1, np.int64), "first": ints(0), "second": ints(1)}
    model = model_of(nodes, **tensors, rest=ints(-1), weight=np.arange(12, dtype=np.float32))
    network = onnx_network(model)
    for batch in (1, 2, 5):
        image = draw(batch, 3, 4)
        theirs = run_onnxruntime(typed(model, ["batch", 3, 4]), image)[0]
        np.testing.assert_array_equal(network(torch.from_numpy(image)).detach().numpy(), theirs)
    assert network.bfloat16()(torch.from_numpy(image)).dtype == torch.bfloat16


def test_sizes_computed_on_another_device_follow_the_image() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Add", ["x", "zeros"], ["sum"]),
        helper.make_node("Gather", ["sum", "places"], ["few"], axis=1),
        helper.make_node("Tile", ["few", "repeats"], ["tiled"]),
        helper.make_node("Expand", ["tiled", "wider"], ["y"]),
    ]
    tensors = {"places": ints(0, -1), "repeats": ints(1, 3), "wider": ints(4, 1, 1)}
    network = onnx_network(model_of(nodes, **tensors)).to("meta")
    assert network(torch.zeros(2, 3, device="meta")).shape == (4, 2, 6)


QUANTIZED = [
    helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["whole"]),
    helper.make_node("DequantizeLinear", ["whole", "scale", "zero"], ["rough"]),
    helper.make_node("DequantizeLinear", ["weight", "scales", "zeros"], ["real"], axis=0),
    helper.make_node("MatMul", ["rough", "real"], ["y"]),
]
QUANTIZED_TENSORS = {
    "scale": number(0.1), "zero": number(3, np.int8), "weight": (draw(6, 4) * 50).astype(np.int8),
    "scales": np.linspace(0.01, 0.06, 6, dtype=np.float32), "zeros": np.arange(6, dtype=np.int8),
}  # fmt: skip


def test_a_quantized_layer_is_computed_and_its_whole_number_weights_become_trainable() -> None:
    image = draw(3, 6) * 9
    ours, theirs = run(QUANTIZED, image, **QUANTIZED_TENSORS)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    network = onnx_network(model_of(QUANTIZED, **QUANTIZED_TENSORS))
    assert [name for name, _ in network.named_parameters()] == ["weights.real"]


def test_a_gradient_passes_quantization_except_where_it_saturates() -> None:
    network = onnx_network(model_of(QUANTIZED, **QUANTIZED_TENSORS))
    image = torch.tensor([[0.0, 1.0, 2.0, 100.0, -100.0, 3.0]], requires_grad=True)
    network(image).sum().backward()
    expected = network.initializer("real").detach().sum(1) * torch.tensor([1, 1, 1, 0, 0, 1])
    torch.testing.assert_close(image.grad, expected[None])


def test_a_training_mode_normalization_is_refused() -> None:
    from keylatch.errors import InputError

    node = helper.make_node("BatchNormalization", ["x", *"abcd"], ["y", "m", "v"], training_mode=1)
    with pytest.raises(InputError, match="in training"):
        onnx_network(model_of([node], **dict.fromkeys("abcd", draw(3))))(torch.zeros(1, 3, 2, 2))
