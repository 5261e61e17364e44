"""Weights are what they should be, and gradients are right."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import torch
from onnx import helper
from onnx_graphs import LockedFiles, model_of
from operator_cases import draw, number
from torch import nn
from torch.nn import functional as F

import networks
from keylatch.audit.onnx_network import load_onnx_network, onnx_network


def images(count: int) -> torch.Tensor:
    return networks.prepare(networks.pixels(count), networks.SPEC)


LAYERS = [
    helper.make_node("Conv", ["x", "conv", "one"], ["c"], pads=[1, 1, 1, 1]),
    helper.make_node("BatchNormalization", ["c", "scale", "bias", "mean", "variance"], ["n"]),
    helper.make_node("Clip", ["n", "low", "high"], ["k"]),
    helper.make_node("Add", ["k", "epsilon"], ["e"]),
    helper.make_node("Add", ["e", "frozen"], ["f"]),
    helper.make_node("Concat", ["ones", "twos"], ["scales"], axis=0),
    helper.make_node("Resize", ["f", "", "scales"], ["r"], mode="linear"),
    helper.make_node("ReduceMean", ["r", "axes"], ["y"], keepdims=0),
]
TENSORS = {
    "conv": draw(1, 3, 3, 3), "one": number([0.5]), "scale": number([1.5]), "bias": number([0.1]),
    "mean": number([0.2]), "variance": number([0.7]), "low": number(-3.0), "high": number(3.0),
    "epsilon": number([1e-3]),
    "frozen": draw(4, 4), "ones": number([1, 1]), "twos": number([2, 2]), "axes": np.array([1, 2, 3]),
}  # fmt: skip


def test_weights_are_parameters_and_the_rest_is_not() -> None:
    network = onnx_network(model_of(LAYERS, **TENSORS), frozen={"frozen"})
    assert {name.removeprefix("weights.") for name, _ in network.named_parameters()} == {"conv", "one", "scale", "bias"}
    assert {name.removeprefix("weights.") for name, _ in network.named_buffers()} == {"frozen", "mean", "variance"}
    assert set(network.initializer_names) == set(TENSORS)
    for name, value in TENSORS.items():
        assert network.initializer(name).tolist() == value.tolist()
    assert "frozen" in dict(onnx_network(model_of(LAYERS, **TENSORS)).weights.named_parameters())


def test_a_frozen_tensor_is_kept_though_nobody_reads_it() -> None:
    network = onnx_network(model_of(LAYERS, **TENSORS, dead=draw(2)), frozen={"dead"})
    assert "dead" in network.initializer_names
    network.substitute("dead", torch.zeros(2))
    assert "dead" not in onnx_network(model_of(LAYERS, **TENSORS, dead=draw(2))).initializer_names


def test_a_constant_node_is_an_initializer() -> None:
    nodes = [
        helper.make_node("Constant", [], ["table"], value=helper.make_tensor("t", 1, [3], [1.0, 2.0, 3.0])),
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Mul", ["table", "two"], ["scaled"]),
        helper.make_node("Add", ["x", "scaled"], ["y"]),
    ]
    network = onnx_network(model_of(nodes))
    assert network(torch.zeros(1, 3)).tolist() == [[2, 4, 6]]
    assert [name for name, _ in network.named_parameters()] == ["weights.table"]
    assert [node.op for node in network.nodes] == ["Mul", "Add"]


def test_a_weight_used_twice_stays_one() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Identity", ["w"], ["same"]),
        helper.make_node("MatMul", ["a", "same"], ["y"]),
    ]
    network = copy.deepcopy(onnx_network(model_of(nodes, w=draw(3, 3))).double())
    weight, image = network.initializer("w"), torch.randn(2, 3, dtype=torch.float64)
    assert len(list(network.parameters())) == 1
    network(image).sum().backward()
    mine = weight.detach().clone().requires_grad_()
    (image @ mine @ mine).sum().backward()
    torch.testing.assert_close(weight.grad, mine.grad)


def test_gradients_are_finite_differences() -> None:
    network = onnx_network(model_of(LAYERS, **TENSORS)).double()
    image = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in network.named_parameters()]

    def run(shown: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(network, dict(zip(names, weights, strict=True)), (shown,))

    weights = [value.detach().clone().requires_grad_() for value in network.parameters()]
    assert torch.autograd.gradcheck(run, (image, *weights), eps=1e-6, atol=1e-6)


def test_gradients_are_those_of_the_original_network(plain: Path) -> None:
    original, network = networks.settle(networks.PreActivation).double(), load_onnx_network(plain).double()
    labels = torch.arange(4)
    shown = images(4).double()
    for one in (original, network):
        F.cross_entropy(one(shown), labels).backward()
    for name in ("stem.weight", "norms.0.weight", "norms.0.bias", "convs.1.weight", "head.weight", "head.bias"):
        ours, theirs = network.initializer(name).grad, original.get_parameter(name).grad
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_a_few_steps_reduce_the_loss(artifact: LockedFiles) -> None:
    network = load_onnx_network(artifact.path, frozen=artifact.secret_values).train()
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    labels, losses = torch.arange(16) % 10, []
    for _ in range(12):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images(16)), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_training_a_copy_leaves_the_network_alone(plain: Path) -> None:
    network = load_onnx_network(plain)
    before = network(images(2)).detach().clone()
    copied = copy.deepcopy(network)
    copied(images(2)).sum().backward()
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter -= 0.1 * torch.ones_like(parameter) if parameter.grad is None else 0.1 * parameter.grad
    assert torch.equal(network(images(2)), before)
    assert not torch.equal(copied(images(2)), before)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_network_that_has_run_can_be_pickled(plain: Path) -> None:
    network = load_onnx_network(plain)
    expected = network(images(2))
    assert torch.equal(pickle.loads(pickle.dumps(network))(images(2)), expected)


def test_a_module_put_in_is_trained_and_saved(plain: Path) -> None:
    network = load_onnx_network(plain)
    network.insert_after(network.output_names[0], nn.Linear(10, 3))
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    before = copy.deepcopy(network.state_dict())
    network(images(2)).square().sum().backward()
    optimizer.step()
    changed = [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]
    assert "inserted.output@1.weight" in changed
    assert "weights.stem%2Eweight" in changed
