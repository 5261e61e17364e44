"""Channel means of gated inputs: where they come from, and that the bias makes up for them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from networks import (
    SPEC,
    Dense,
    PaddedConvs,
    Residual,
    Tokens,
    lock,
    outputs_of,
    pixels,
    prepare,
    relative_error,
    settle,
)

CALIBRATION = 24


def calibration_images() -> torch.Tensor:
    return prepare(pixels(64)[40:][:CALIBRATION], SPEC)


def inputs_of(network: nn.Module, layer: str, images: torch.Tensor) -> torch.Tensor:
    """What a layer gets, (N, C, positions), with its zero padding."""
    seen: list[torch.Tensor] = []
    module = network.get_submodule(layer)
    with module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone())):
        outputs_of(network, images)
    value = seen[0]
    if isinstance(module, nn.Conv2d):
        rows, columns = module.padding
        return F.pad(value, (columns, columns, rows, rows)).flatten(2)
    return value.reshape(len(value), -1, value.shape[-1]).transpose(1, 2)


@pytest.mark.parametrize(
    ("build", "layers"),
    [(PaddedConvs, ["3", "6", "11"]), (Residual, ["first", "third", "head"]), (Tokens, ["qkv", "contract", "head"]),
     (Dense, ["decode", "classify"])],
)  # fmt: skip
def test_means_from_calibration_images_are_the_true_ones(build: type[nn.Module], layers: list[str]) -> None:
    network = settle(build)
    locked = lock(network, layers=layers, calibration=calibration_images())
    images = calibration_images()
    assert {layer.means for layer in locked.report.layers} == {"calibration images"}
    for layer, mean in zip(layers, locked.secret.means, strict=True):
        assert torch.allclose(mean, inputs_of(network, layer, images).mean((0, 2)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layer", ["3", "6", "11"])
def test_means_from_batch_norm_statistics_are_close_to_measured_ones(layer: str) -> None:
    network = settle(PaddedConvs)
    locked = lock(network, layers=[layer])
    assert locked.report.layers[0].means == "batch-norm statistics"
    measured = inputs_of(network, layer, prepare(pixels(32), SPEC)).mean((0, 2))
    (mean,) = locked.secret.means
    assert float((mean - measured).abs().mean()) <= 0.1 * float(measured.abs().mean())


def test_calibration_images_are_preferred_to_batch_norm_statistics() -> None:
    network = settle(PaddedConvs)
    sources = lambda **options: {layer.means for layer in lock(network, **options).report.layers}  # noqa: E731
    assert sources() == {"batch-norm statistics"}
    assert sources(calibration=calibration_images()) == {"calibration images"}


def test_without_either_means_come_from_made_images() -> None:
    network = settle(Tokens)
    locked = lock(network, layers=["qkv"])
    assert locked.report.layers[0].means == "sample images"
    measured = inputs_of(network, "qkv", prepare(pixels(8), SPEC)).mean((0, 2))
    assert torch.allclose(locked.secret.means[0], measured, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("build", [Residual, Tokens])
def test_the_mean_output_is_the_original_s_whatever_the_signs(build: type[nn.Module]) -> None:
    # Centered, a layer's mean output tells nothing about its signs; uncentered, each wrong sign would move it.
    network = settle(build)
    locked = lock(network, layers=["head"], calibration=calibration_images())
    images = calibration_images()
    expected = outputs_of(network, images)
    draws = torch.Generator().manual_seed(0)
    with locked.module.opened(locked.secret), torch.no_grad():
        for _ in range(5):
            signs = torch.randint(0, 2, (1, locked.module.description.channels), generator=draws) * 2.0 - 1
            scrambled = locked.module.body(images, signs.expand(len(images), -1))[0]
            assert torch.allclose(scrambled.mean(0), expected.mean(0), rtol=1e-4, atol=1e-5)
            assert relative_error(scrambled, expected) >= 0.1


@pytest.mark.parametrize(("build", "layer"), [(Residual, "head"), (Residual, "third"), (Dense, "decode")])
def test_a_gated_bias_is_the_original_plus_weight_times_means(build: type[nn.Module], layer: str) -> None:
    network = settle(build)
    locked = lock(network, layers=[layer], calibration=calibration_images())
    original = network.get_submodule(layer)
    weight = original.weight.detach().double().flatten(2).sum(2) if original.weight.dim() == 4 else original.weight
    expected = original.bias.double() + weight.double() @ locked.secret.means[0].double()
    graph = locked.module.body.graph
    (node,) = next(node for node in graph.find_nodes(op="get_attr") if node.target == f"{layer}.weight").users
    bias = locked.module.body.get_parameter(node.args[2].target)
    assert torch.allclose(bias.double(), expected, atol=1e-6)
