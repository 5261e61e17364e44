"""Looking into a network, and putting other tensors and modules into it."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from onnx import helper
from onnx_graphs import model_of
from torch import nn

from keylatch.audit.onnx_network import Node, OnnxNetwork, onnx_network
from keylatch.errors import InputError

IMAGE = torch.tensor([[1.0, -2.0, 3.0]])


def tiny(**options: object) -> OnnxNetwork:
    """doubled = x + x; shifted = doubled + shift.bias; y = relu(shifted); z = -doubled."""
    nodes = [
        helper.make_node("Add", ["x", "x"], ["doubled"], name="double"),
        helper.make_node("Add", ["doubled", "shift.bias"], ["shifted"]),
        helper.make_node("Relu", ["shifted"], ["y"]),
        helper.make_node("Neg", ["doubled"], ["z"]),
        helper.make_node("Exp", ["z"], ["nobody wants it"]),
    ]
    shift = np.array([10, 20, 30], np.float32)
    return onnx_network(model_of(nodes, ["y", "z"], **{"shift.bias": shift}), **options)  # type: ignore[arg-type]


def given(network: OnnxNetwork) -> list[float]:
    return network(IMAGE)[0].tolist()


def test_what_a_network_tells_of_itself() -> None:
    network = tiny()
    assert network.input_name == "x"
    assert network.output_names == ("y", "z")
    assert network.initializer_names == ("shift.bias",)
    assert [node.op for node in network.nodes] == ["Add", "Add", "Relu", "Neg"]
    assert network.nodes[0] == Node("double", "Add", ("x", "x"), ("doubled",), {})
    assert network.nodes[1].name == "shifted"
    assert network.producer("doubled") is network.nodes[0]
    assert network.producer("x") is network.producer("shift.bias") is None
    assert network.consumers("doubled") == (network.nodes[1], network.nodes[3])


def test_all_outputs_and_the_first_one() -> None:
    network = tiny()
    first, second = network.flat(IMAGE)
    assert torch.equal(first, network(IMAGE))
    assert first.tolist() == [[12, 16, 36]]
    assert second.tolist() == [[-2, 4, -6]]


def test_values_are_given_by_name_and_only_what_they_need_is_computed() -> None:
    network = tiny()
    values = network.values(IMAGE, ["shifted", "x", "shift.bias", "doubled"])
    assert list(values) == ["shifted", "x", "shift.bias", "doubled"]
    assert values["shifted"].tolist() == [[12, 16, 36]]
    assert values["doubled"].tolist() == [[2, -4, 6]]
    assert values["shift.bias"] is network.initializer("shift.bias")
    network.insert_after("shifted", Refusing())
    assert network.values(IMAGE, ["z"])["z"].tolist() == [[-2, 4, -6]]
    with pytest.raises(RuntimeError, match="was called") as caught:
        network(IMAGE)
    assert "shifted" in caught.value.__notes__[0]


class Refusing(nn.Module):
    def forward(self, value: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("was called")


class Scaling(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return value * self.factor


def test_a_constant_stands_in_for_a_value_and_what_gave_it_is_not_run() -> None:
    network = tiny()
    network.insert_after("x", Refusing())
    network.insert_after("doubled", Refusing())
    network.substitute("doubled", torch.zeros(1, 3))
    assert given(network) == [10, 20, 30]
    assert list(network.inserted) == ["x@1"]  # nobody can call the other one any more
    assert [name for name, _ in network.named_buffers()] == ["stand_ins.doubled@3"]


def test_a_parameter_stands_in_and_is_trained() -> None:
    network = tiny()
    mine = nn.Parameter(torch.ones(3))
    network.substitute("shift.bias", mine)
    assert given(network) == [3, 0, 7]
    network(IMAGE).sum().backward()
    assert mine.grad is not None
    assert mine.grad.tolist() == [1, 0, 1]
    assert network.initializer("shift.bias").grad is None
    assert any(parameter is mine for parameter in network.parameters())


def test_another_value_stands_in() -> None:
    network = tiny()
    network.substitute("doubled", "x")
    assert given(network) == [11, 18, 33]
    network.substitute("y", "z")
    assert given(network) == [-1, 2, -3]
    network.substitute("y", "y")
    network.substitute("doubled", "doubled")
    assert given(network) == [12, 16, 36]
    network.substitute("y", "shift.bias")
    assert network(IMAGE).tolist() == [10, 20, 30]


def test_a_later_value_may_stand_in_for_an_earlier_one_that_it_does_not_need() -> None:
    network = tiny()
    network.substitute("shifted", "z")
    assert given(network) == [0, 4, 0]


def test_the_image_itself_can_be_replaced() -> None:
    network = tiny()
    network.substitute("x", torch.ones(1, 3))
    assert given(network) == [12, 22, 32]


def test_modules_follow_a_value_one_after_the_other() -> None:
    network = tiny()
    network.insert_after("doubled", Scaling(3.0))
    assert given(network) == [16, 8, 48]
    network.insert_after("doubled", nn.ReLU())
    assert given(network) == [16, 20, 48]
    assert network.flat(IMAGE)[1].tolist() == [[-6, 0, -18]]
    network.flat(IMAGE)[1].sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is not None] == [
        "inserted.doubled@1.factor"
    ]
    assert network.values(IMAGE, ["doubled"])["doubled"].tolist() == [[6, 0, 18]]


def test_a_module_follows_an_output_and_an_initializer() -> None:
    network = tiny()
    network.insert_after("y", Scaling(2.0))
    network.insert_after("shift.bias", Scaling(0.0))
    assert given(network) == [4, 0, 12]


def test_the_same_change_may_be_made_again() -> None:
    network = tiny()
    for factor in (1.0, 2.0, 3.0):
        network.substitute("shift.bias", torch.full((3,), factor))
    assert len(list(network.buffers())) == 1
    assert given(network) == [5, 0, 9]


def test_a_value_must_not_depend_on_itself() -> None:
    network = tiny()
    before = given(network)
    with pytest.raises(InputError, match="depend on itself") as caught:
        network.substitute("doubled", "y")
    assert "insert_after" in str(caught.value.hint)
    network.substitute("shifted", "z")
    with pytest.raises(InputError, match="depend on itself"):
        network.substitute("z", "shifted")
    network.substitute("shifted", "shifted")
    assert given(network) == before


@pytest.mark.parametrize("call", ["substitute", "by", "insert_after", "values", "initializer", "frozen"])
def test_unknown_names_are_refused(call: str) -> None:
    network = tiny()
    calls = {
        "substitute": lambda: network.substitute("nothing", torch.zeros(1)),
        "by": lambda: network.substitute("y", "nothing"),
        "insert_after": lambda: network.insert_after("nothing", nn.ReLU()),
        "values": lambda: network.values(IMAGE, ["nothing"]),
        "initializer": lambda: network.initializer("nothing"), "frozen": lambda: tiny(frozen=["nothing"]),
    }  # fmt: skip
    with pytest.raises(InputError, match="nothing") as caught:
        calls[call]()
    assert caught.value.hint
    assert given(network) == [12, 16, 36]
    assert not list(network.inserted)
    assert not network.stand_ins.state_dict()


def test_only_a_tensor_or_a_name_stands_in() -> None:
    with pytest.raises(InputError, match="substitute a float"):
        tiny().substitute("y", 1.0)  # type: ignore[arg-type]


def test_a_copy_is_independent() -> None:
    network = tiny()
    network.insert_after("doubled", Scaling(3.0))
    given(network)
    copied = copy.deepcopy(network)
    with torch.no_grad():
        copied.initializer("shift.bias").zero_()
    copied.substitute("doubled", torch.zeros(1, 3))
    assert given(copied) == [0, 0, 0]
    assert given(network) == [16, 8, 48]
    restored = pickle.loads(pickle.dumps(network))
    assert given(restored) == [16, 8, 48]


def test_a_saved_state_is_restored_under_names_that_lead_back() -> None:
    network, other = tiny(), tiny()
    assert list(network.state_dict()) == ["weights.shift%2Ebias"]
    assert network.weights.names() == ["shift.bias"]
    with torch.no_grad():
        network.initializer("shift.bias").fill_(5.0)
    other.load_state_dict(network.state_dict())
    assert given(other) == [7, 1, 11]


@pytest.mark.parametrize(
    "name", ["a.b", "forward", "training", "_parameters", "100%", "%2E", "get", "weights", "a b/c:0", "T_destination"]
)
def test_any_name_will_do_for_a_weight(name: str) -> None:
    node = helper.make_node("Add", ["x", name], ["y"])
    network = onnx_network(model_of([node], **{name: np.ones(3, np.float32)}))
    assert network(IMAGE).tolist() == [[2, -1, 4]]
    assert network.weights.names() == [name]
    assert len(network.state_dict()) == 1
    network.substitute(name, torch.zeros(3))
    network.insert_after("y", nn.Identity())
    assert network(IMAGE).tolist() == [[1, -2, 3]]


def test_a_functional_call_uses_other_weights() -> None:
    network = tiny()
    output = torch.func.functional_call(network, {"weights.shift%2Ebias": torch.zeros(3)}, (IMAGE,))
    assert output.tolist() == [[2, 0, 6]]
    assert given(network) == [12, 16, 36]
