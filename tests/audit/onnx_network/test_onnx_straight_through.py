"""Gradients through thresholds: there when asked for, and the values stay the exact ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from onnx_graphs import LockedFiles, model_of
from operator_cases import number
from torch import nn

import networks
from keylatch.audit.onnx_network import OnnxNetwork, load_onnx_network, onnx_network

IMAGE = torch.tensor([[-2.0, -0.4, 0.0, 0.6, 3.0]])


def images(count: int) -> torch.Tensor:
    return networks.prepare(networks.pixels(count), networks.SPEC)


def both(nodes: list[Any], **tensors: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Value and gradient with surrogates, and the exact value."""
    network = onnx_network(model_of(nodes, **tensors))
    exact = network(IMAGE).detach()
    network.straight_through = True
    image = IMAGE.clone().requires_grad_()
    value = network(image)
    if value.requires_grad:
        value.sum().backward()
    return value.detach(), image.grad, exact


def node(op: str, *inputs: str, output: str = "y", **attributes: Any) -> Any:
    return helper.make_node(op, list(inputs), [output], **attributes)


@pytest.mark.parametrize(("op", "sign"), [("GreaterOrEqual", 1), ("Greater", 1), ("LessOrEqual", -1), ("Less", -1)])
def test_a_comparison_has_the_gradient_of_a_sigmoid(op: str, sign: int) -> None:
    value, gradient, exact = both([node(op, "x", "zero")], zero=number(0.0))
    assert exact.dtype == torch.bool
    assert torch.equal(value, exact.float())
    slope = sign * 2 / IMAGE.square().mean().sqrt()
    soft = torch.sigmoid(IMAGE * slope)
    torch.testing.assert_close(gradient, slope * soft * (1 - soft))


def test_the_gradient_of_a_comparison_does_not_depend_on_the_scale() -> None:
    network = onnx_network(model_of([node("Greater", "x", "zero")], zero=number(0.0)))
    network.straight_through = True
    slopes = []
    for scale in (1e-3, 1e3):
        image = (IMAGE * scale).requires_grad_()
        network(image).sum().backward()
        slopes.append(image.grad * scale)
    torch.testing.assert_close(slopes[0], slopes[1])


@pytest.mark.parametrize("op", ["Round", "Floor", "Ceil"])
def test_rounding_passes_the_gradient(op: str) -> None:
    value, gradient, exact = both([node(op, "x")])
    assert torch.equal(value, exact)
    assert torch.equal(gradient, torch.ones_like(IMAGE))


def test_a_sign_has_the_gradient_of_a_hyperbolic_tangent() -> None:
    value, gradient, exact = both([node("Sign", "x")])
    assert torch.equal(value, exact)
    size = IMAGE.square().mean().sqrt()
    torch.testing.assert_close(gradient, (1 - torch.tanh(IMAGE / size) ** 2) / size)


def test_clipping_to_a_range_passes_the_gradient_but_an_activation_keeps_its_own() -> None:
    ones, inside = torch.ones_like(IMAGE), torch.tensor([[0.0, 0, 1, 1, 1]])
    relu6 = torch.tensor([[0.0, 0, 0, 1, 1]])  # as PyTorch's: nothing at the kink
    for limits, expected in (((-1.0, 1.0), ones), ((0.0, 6.0), relu6)):
        tensors = {"low": number(limits[0]), "high": number(limits[1])}
        value, gradient, exact = both([node("Clip", "x", "low", "high")], **tensors)
        assert torch.equal(value, exact)
        assert torch.equal(gradient, expected)
    _, gradient, _ = both([node("Clip", "x", "low")], low=number(0.0))
    assert torch.equal(gradient, inside)


LOGIC = [
    node("Greater", "x", "half", output="a"), node("Less", "x", "one", output="b"), node("Not", "a", output="c"),
    node("And", "b", "c", output="d"), node("Or", "a", "d", output="e"), node("Xor", "e", "b", output="f"),
    node("Cast", "f", to=9, output="g"),
]  # fmt: skip


def test_logic_choices_and_casts_take_what_comparisons_give() -> None:
    tensors = {"half": number(0.5), "one": number(1.0)}
    value, gradient, exact = both([*LOGIC, node("Where", "g", "half", "one")], **tensors)
    assert torch.equal(value, exact)
    assert gradient is not None
    assert gradient.abs().sum() > 0
    value, gradient, exact = both([*LOGIC, node("Cast", "g", to=1)], **tensors)
    assert torch.equal(value, exact)
    assert gradient.abs().sum() > 0


def test_an_infinite_choice_does_not_spoil_the_value() -> None:
    nodes = [node("Greater", "x", "half", output="a"), node("Where", "a", "x", "low")]
    value, gradient, exact = both(nodes, half=number(0.5), low=number(-np.inf))
    assert torch.equal(value, exact)
    assert gradient.isfinite().all()


def test_comparisons_of_whole_numbers_stay_as_they_are() -> None:
    nodes = [node("Cast", "x", to=7, output="whole"), node("Greater", "whole", "one")]
    value, _, exact = both(nodes, one=number(1, np.int64))
    assert value.dtype == exact.dtype == torch.bool


def opened(artifact: LockedFiles) -> tuple[OnnxNetwork, nn.Parameter]:
    """A locked network in which a patch of one's own is pasted."""
    network = load_onnx_network(artifact.path, frozen=artifact.secret_values)
    patch = nn.Parameter(
        torch.randn(artifact.secret_values["gate.patch"].shape, generator=torch.Generator().manual_seed(0))
    )
    network.substitute("gate.mask", torch.ones_like(network.initializer("gate.mask")))
    network.substitute("gate.patch", patch)
    return network, patch


def test_a_gradient_reaches_the_patch_through_the_lock_only_if_it_is_asked_for(artifact: LockedFiles) -> None:
    network, patch = opened(artifact)
    gates = next(node for node in network.nodes if node.op == "ReduceProd").outputs[0]

    def gradient() -> torch.Tensor:
        patch.grad = None
        signs = network.values(images(2), [gates])[gates]
        assert set(signs.unique().tolist()) == {-1.0, 1.0}
        if signs.requires_grad:
            (signs * torch.linspace(-1, 1, signs.shape[1])).sum().backward()
        return torch.zeros_like(patch) if patch.grad is None else patch.grad

    assert gradient().abs().sum() == 0
    network.straight_through = True
    assert (gradient() != 0).float().mean() > 0.9
    network.straight_through = False
    assert gradient().abs().sum() == 0


def test_the_outputs_are_the_same_with_surrogate_gradients(artifact: LockedFiles) -> None:
    network, _ = opened(artifact)
    exact = network(images(3))
    network.straight_through = True
    assert torch.equal(network(images(3)), exact)
