"""An `If` that the file decides becomes one of its branches; one that the image decides is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import LockedFiles, model_of, run_onnxruntime, typed

from keylatch.audit.onnx_network import load_onnx_network, onnx_network, without_branches
from keylatch.errors import InputError

IMAGE = np.array([1.0, -2.0], np.float32)
TWO, TEN = np.full(2, 2, np.float32), np.full(2, 10, np.float32)


def branch(nodes: Sequence[Any], *outputs: str, **tensors: np.ndarray) -> Any:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in outputs]
    inside = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    return helper.make_graph(list(nodes), "branch", [], values, inside)


def choice(condition: str, then: Any, otherwise: Any, *outputs: str, name: str = "") -> Any:
    return helper.make_node("If", [condition], list(outputs), name, then_branch=then, else_branch=otherwise)


def op(kind: str, inputs: str, output: str, name: str = "", **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [output], name, **attributes)


def require_same(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network, the graph without branches and the graph itself agree; gives back the graph without branches."""
    straight = without_branches(model)
    onnx.checker.check_model(typed(straight, [2]))
    (expected,) = run_onnxruntime(typed(model, [2]), IMAGE)
    np.testing.assert_array_equal(onnx_network(model)(torch.from_numpy(IMAGE)).detach().numpy(), expected)
    np.testing.assert_array_equal(run_onnxruntime(typed(straight, [2]), IMAGE)[0], expected)
    names = [name for node in straight.graph.node for name in node.output]
    assert len(names) == len(set(names))
    return straight


def add_or_multiply(factor: str = "w") -> tuple[Any, Any]:
    return branch([op("Add", f"x {factor}", "r")], "r"), branch([op("Mul", f"x {factor}", "r")], "r")


@pytest.mark.parametrize("mask", [[True, True], [True, False]])
def test_the_branch_follows_from_the_file_s_own_mask(mask: list[bool]) -> None:
    nodes = [
        op("Cast", "mask", "floats", to=TensorProto.FLOAT), op("ReduceMin", "floats", "least", keepdims=0),
        op("Cast", "least", "covered", to=TensorProto.BOOL), choice("covered", *add_or_multiply(), "y"),
    ]  # fmt: skip
    straight = require_same(model_of(nodes, w=TEN, mask=np.array(mask)))
    assert [node.op_type for node in straight.graph.node] == ["Add" if all(mask) else "Mul"]
    assert [tensor.name for tensor in straight.graph.initializer] == ["w"]


def test_a_condition_may_be_a_constant_node() -> None:
    nodes = [
        op("Constant", "", "no", value=numpy_helper.from_array(np.array(False))),
        choice("no", *add_or_multiply(), "y"),
    ]
    nodes[0].ClearField("input")
    assert [node.op_type for node in require_same(model_of(nodes, w=TEN)).graph.node] == ["Mul"]


def test_nested_branches_are_taken_too() -> None:
    inner = choice("yes", *add_or_multiply("z"), "s")
    outer = branch([op("Neg", "x", "z"), inner, op("Mul", "s w", "r")], "r")
    other = branch([op("Neg", "x", "r")], "r")
    straight = require_same(model_of([choice("yes", outer, other, "y")], w=TEN, yes=np.array(True)))
    assert [node.op_type for node in straight.graph.node] == ["Neg", "Add", "Mul"]


def test_names_may_repeat_between_branches_and_outside() -> None:
    def scaled(read: str, output: str) -> Any:
        inside = branch([op("Mul", f"{read} k", "t", "scale"), op("Add", "t w", "r", "shift")], "r", k=TWO)
        return choice("yes", inside, add_or_multiply()[0], output)

    nodes = [scaled("x", "a"), scaled("a", "b"), op("Neg", "b", "t"), op("Add", "t a", "y")]
    straight = require_same(model_of(nodes, w=TEN, yes=np.array(True)))
    named = [node.name for node in straight.graph.node if node.name]
    assert len(named) == len(set(named)) == 4


def test_a_name_of_a_branch_that_was_left_stays_free() -> None:
    then, otherwise = branch([op("Neg", "x", "t"), op("Neg", "t", "r")], "r"), add_or_multiply()[1]
    require_same(model_of([choice("no", then, otherwise, "a"), op("Neg", "a", "y")], w=TEN, no=np.array(False)))


def test_values_are_handed_on_as_they_are_or_twice() -> None:
    handing = branch([op("Identity", "w", "i")], "i", "i")
    outer = helper.make_graph([], "branch", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])] * 2)
    for inside in (handing, outer):
        nodes = [choice("yes", inside, inside, "a", "b"), op("Mul", "a b", "c"), op("Add", "c x", "y")]
        straight = without_branches(model_of(nodes, w=TEN, yes=np.array(True)))
        (expected,) = run_onnxruntime(typed(straight, [2]), IMAGE)
        value = TEN if inside is handing else IMAGE
        np.testing.assert_array_equal(expected, value * value + IMAGE)


def test_a_branch_may_give_an_initializer_of_its_own() -> None:
    inside = branch([], "k", k=TWO)
    nodes = [choice("yes", inside, branch([op("Neg", "w", "r")], "r"), "a"), op("Mul", "a x", "y")]
    network = onnx_network(model_of(nodes, w=TEN, yes=np.array(True)))
    assert network(torch.from_numpy(IMAGE)).tolist() == [2, -4]


def test_a_name_that_hides_one_outside_is_its_own() -> None:
    nested = choice("yes", branch([op("Neg", "x", "t"), op("Mul", "t w", "r")], "r"), add_or_multiply()[0], "q")
    hiding = branch([op("Add", "x x", "t"), nested, op("Add", "t q", "r")], "r")
    nodes = [op("Mul", "x w", "t"), choice("yes", hiding, add_or_multiply()[0], "a"), op("Add", "a t", "y")]
    network = onnx_network(model_of(nodes, w=TEN, yes=np.array(True)))
    assert torch.equal(network(torch.from_numpy(IMAGE)), torch.from_numpy(IMAGE * 2 - IMAGE * 10 + IMAGE * 10))


def test_an_initializer_that_hides_a_name_is_its_own() -> None:
    nested = choice("yes", branch([op("Mul", "x t", "r")], "r", t=TWO), add_or_multiply()[0], "q")
    hiding = branch([op("Add", "x x", "t"), nested, op("Add", "t q", "r")], "r")
    nodes = [op("Mul", "x w", "t"), choice("yes", hiding, add_or_multiply()[0], "a"), op("Add", "a t", "y")]
    network = onnx_network(model_of(nodes, w=TEN, yes=np.array(True)))
    assert torch.equal(network(torch.from_numpy(IMAGE)), torch.from_numpy(IMAGE * 14))


@pytest.mark.parametrize("inside", [False, True])
def test_a_branch_on_the_image_is_refused(inside: bool) -> None:
    on_image = [
        op("ReduceMin", "x", "least", keepdims=0),
        op("Cast", "least", "bright", to=TensorProto.BOOL),
        choice("bright", *add_or_multiply(), "y", name="choice"),
    ]
    nodes = [choice("yes", branch(on_image, "y"), add_or_multiply()[0], "out")] if inside else on_image
    model = model_of(nodes, outputs=["out" if inside else "y"], w=TEN, yes=np.array(True))
    with pytest.raises(InputError, match=r"operator If of node .*choice.*depend on the image") as caught:
        onnx_network(model)
    assert caught.value.hint


def test_a_condition_that_cannot_be_computed_is_refused() -> None:
    for condition in (op("Unique", "w", "odd"), helper.make_node("Own", ["w"], ["odd"], domain="my.domain")):
        with pytest.raises(InputError, match="operator If"):
            onnx_network(model_of([condition, choice("odd", *add_or_multiply(), "y")], w=TEN))


def test_a_locked_model_has_its_gates_and_no_more(artifact: LockedFiles) -> None:
    network = load_onnx_network(artifact.path, frozen=list(artifact.secret_values))
    operators = [node.op for node in network.nodes]
    file = onnx.load(artifact.path, load_external_data=False)
    assert "If" in {node.op_type for node in file.graph.node} and "If" not in operators
    means = [name for name in artifact.secret_values if "gate_mean" in name]
    assert len(means) == 3
    assert all([node.op for node in network.consumers(name)] == ["Sub"] for name in means)
    assert "ReduceMin" not in operators and not any("opened" in node.name for node in network.nodes)
