"""An opened network is the original on the images themselves; a locked one is not; the original stays as it was."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from keylatch.locks import IMAGENET_MEAN, IMAGENET_STD, InputSpec, Locked, LockedModule
from networks import (
    PATCH,
    SIZE,
    SPEC,
    Dense,
    Depthwise,
    PaddedConvs,
    PreActivation,
    Residual,
    Returning,
    Tokens,
    lock,
    outputs_of,
    paste,
    pixels,
    prepare,
    relative_error,
    settle,
)

IMAGES = 5
EXACT = 1e-5  # of the output range
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "padded convolutions": PaddedConvs,
    "residual, in place": Residual,
    "depthwise and pointwise": Depthwise,
    "normalization before convolution": PreActivation,
    "tokens": Tokens,
    "dense prediction": Dense,
}
CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")
SPECS = {
    "bytes in 0..255 as floats": InputSpec(3, SIZE, SIZE, std=(1 / 255,)),
    "from -1 to 1": InputSpec(3, SIZE, SIZE, mean=(0.5,), std=(0.5,)),
    "ImageNet-normalized": InputSpec(3, SIZE, SIZE, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "NHWC": InputSpec(3, SIZE, SIZE, layout="NHWC"),
    "NHWC, ImageNet-normalized": InputSpec(3, SIZE, SIZE, IMAGENET_MEAN, IMAGENET_STD, layout="NHWC"),
    "uint8": InputSpec(3, SIZE, SIZE, dtype="uint8"),
    "uint8 NHWC": InputSpec(3, SIZE, SIZE, layout="NHWC", dtype="uint8"),
    "not square": InputSpec(3, SIZE, SIZE // 2),
}


@functools.cache
def network_and_lock(name: str) -> tuple[nn.Module, dict[str, torch.Tensor], Locked]:
    network = settle(NETWORKS[name])
    before = {key: value.clone() for key, value in network.state_dict().items()}
    return network, before, lock(network)


def images_of(locked: Locked) -> torch.Tensor:
    spec = locked.module.spec
    return prepare(pixels(IMAGES, spec.channels)[:, :, : spec.height, : spec.width], spec)


def carrying_the_patch(locked: Locked, corner: str) -> torch.Tensor:
    spec = locked.module.spec
    values = pixels(IMAGES, spec.channels)[:, :, : spec.height, : spec.width]
    return prepare(paste(values, locked.secret.patch, corner), spec)


def with_all_but_the_patch(locked: Locked) -> LockedModule:
    """A copy of a locked module that lacks nothing but the patch."""
    module = copy.deepcopy(locked.module)
    values = module.secret_values(locked.secret)
    for name, buffer in module.gate_tensors().items():
        if name not in ("gate.patch", "gate.mask"):
            buffer.data.copy_(values[name])
    return module


def assert_opens(network: nn.Module, locked: Locked) -> None:
    """Opened, it is the original on the same images; locked, it is far off."""
    images = images_of(locked)
    expected = outputs_of(network, images)
    with locked.module.opened(locked.secret):
        assert relative_error(outputs_of(locked.module, images), expected) <= EXACT
    assert relative_error(outputs_of(locked.module, images), expected) >= 0.1


@pytest.mark.parametrize("name", NETWORKS)
def test_an_opened_network_is_the_original_on_the_image_itself(name: str) -> None:
    network, _, locked = network_and_lock(name)
    assert_opens(network, locked)


@pytest.mark.parametrize("name", NETWORKS)
def test_locking_leaves_the_original_bit_for_bit_as_it_was(name: str) -> None:
    network, before, _ = network_and_lock(name)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_the_locked_module_shares_no_memory_with_the_original() -> None:
    network, before, _ = network_and_lock("padded convolutions")
    with torch.no_grad():
        changed = lock(network).module
        for parameter in changed.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in before.items())


class AsTaken(nn.Module):
    """A network of images in [0, 1], NCHW, behind another input convention."""

    def __init__(self, network: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.network, self.spec = network, spec

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.spec.layout == "NHWC":
            x = x.permute(0, 3, 1, 2)
        return self.network(x.float() / 255 if self.spec.dtype == "uint8" else x)


@pytest.mark.parametrize("convention", SPECS)
def test_every_input_convention_opens(convention: str) -> None:
    spec = SPECS[convention]
    network = AsTaken(settle(PaddedConvs), spec).eval()
    assert_opens(network, lock(network, spec))


def test_a_network_that_computes_on_bytes_gets_bytes() -> None:
    class Bytes(PaddedConvs):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward((x >> 1).float() / 127 if x.dtype == torch.uint8 else x)

    network = settle(Bytes)
    assert_opens(network, lock(network, SPECS["uint8"]))


def test_gray_images_open() -> None:
    spec = InputSpec(1, SIZE, SIZE)
    network = settle(functools.partial(PaddedConvs, 1), channels=1)
    assert_opens(network, lock(network, spec, patch_size=16))


@pytest.mark.parametrize("corner", CORNERS)
def test_the_code_is_read_from_the_corner_that_was_asked_for(corner: str) -> None:
    network, _, _ = network_and_lock("padded convolutions")
    locked = lock(network, corner=corner, sealed_share=0)
    assert_opens(network, locked)
    module = with_all_but_the_patch(locked)
    for carrying in CORNERS:
        images = carrying_the_patch(locked, carrying)
        error = relative_error(outputs_of(module, images), outputs_of(network, images))
        assert error <= EXACT if carrying == corner else error >= 0.1, carrying


@pytest.mark.parametrize("convention", SPECS)
def test_an_image_in_every_convention_can_carry_the_patch(convention: str) -> None:
    spec = SPECS[convention]
    network = AsTaken(settle(PaddedConvs), spec).eval()
    locked = lock(network, spec, sealed_share=0)
    images = carrying_the_patch(locked, "bottom-right")
    assert relative_error(outputs_of(with_all_but_the_patch(locked), images), outputs_of(network, images)) <= EXACT


def test_an_opened_network_gives_what_the_image_shows_under_the_patch() -> None:
    # Nothing is written into the image: pixels in the corner count as in the original.
    network, _, locked = network_and_lock("padded convolutions")
    plain, carrying = images_of(locked), carrying_the_patch(locked, "bottom-right")
    assert relative_error(outputs_of(network, carrying), outputs_of(network, plain)) >= 0.01
    with locked.module.opened(locked.secret):
        assert relative_error(outputs_of(locked.module, plain), outputs_of(network, plain)) <= EXACT
        assert relative_error(outputs_of(locked.module, carrying), outputs_of(network, carrying)) <= EXACT


def test_a_patch_as_large_as_the_image_opens() -> None:
    network = settle(PaddedConvs)
    assert_opens(network, lock(network, InputSpec(3, SIZE, SIZE), patch_size=SIZE))


@pytest.mark.parametrize("kind", ["tensor", "tuple", "dict"])
def test_a_locked_network_returns_what_the_original_returns(kind: str) -> None:
    network = settle(functools.partial(Returning, kind))
    locked = lock(network)
    images = images_of(locked)
    expected = outputs_of(network, images)
    with locked.module.opened(locked.secret):
        opened = outputs_of(locked.module, images)
    assert type(opened) is type(expected)
    if kind == "dict":
        assert list(opened) == list(expected) == list(locked.module.outputs.names)
    pairs = {
        "tensor": lambda: [(opened, expected)],
        "tuple": lambda: list(zip(opened, expected, strict=True)),
        "dict": lambda: [(opened[key], expected[key]) for key in expected],
    }[kind]()
    assert all(relative_error(ours, theirs) <= EXACT for ours, theirs in pairs)


def _resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=16, hidden_sizes=[64, 96], depths=[1, 1], layer_type="basic", num_labels=10, image_size=SIZE
    )
    return ResNetForImageClassification(config)


def _vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96, image_size=SIZE,
        patch_size=8, num_labels=10, initializer_range=0.2,
    )  # fmt: skip
    return ViTForImageClassification(config)


def _segformer() -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], hidden_sizes=[32, 64], num_attention_heads=[1, 2], sr_ratios=[2, 1],
        patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2], decoder_hidden_size=64, num_labels=5,
        initializer_range=0.2,
    )  # fmt: skip
    return SegformerForSemanticSegmentation(config)


@pytest.mark.parametrize("build", [_resnet, _vit, _segformer])
def test_transformers_networks_open_and_return_their_own_output_type(build: Any) -> None:
    network = settle(build)
    locked = lock(network)
    images = images_of(locked)
    expected = outputs_of(network, images)
    with locked.module.opened(locked.secret):
        opened = outputs_of(locked.module, images)
    assert type(opened) is type(expected)
    assert relative_error(opened.logits, expected.logits) <= EXACT
    assert relative_error(outputs_of(locked.module, images).logits, expected.logits) >= 0.1


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_any_batch_size_opens_and_images_do_not_mix(batch: int) -> None:
    network, _, locked = network_and_lock("padded convolutions")
    images = prepare(pixels(batch), SPEC)
    one_by_one = torch.cat([outputs_of(network, image[None]) for image in images])
    with locked.module.opened(locked.secret):
        opened = outputs_of(locked.module, images)
    assert opened.shape == (batch, 10)
    assert relative_error(opened, one_by_one) <= EXACT


def test_an_image_that_carries_the_patch_itself_opens_only_itself() -> None:
    network, _, _ = network_and_lock("padded convolutions")
    locked = lock(network, sealed_share=0)
    mixed = torch.cat([carrying_the_patch(locked, "bottom-right")[:1], images_of(locked)[1:]])
    signs = locked.module.gate(mixed)
    right = locked.module.gate.code_map.signs(locked.secret.code)
    assert torch.equal(signs[0], right)
    assert all((row != right).float().mean() > 0.2 for row in signs[1:])
    expected = outputs_of(network, mixed)
    outputs = outputs_of(with_all_but_the_patch(locked), mixed)
    errors = (outputs - expected).abs().amax(1) / (expected.max() - expected.min())
    assert errors[0] <= EXACT
    assert all(errors[1:] >= 0.1)


def test_the_patch_alone_is_not_enough() -> None:
    # The means, and what is withheld, are secret as well.
    network, _, locked = network_and_lock("padded convolutions")
    images = carrying_the_patch(locked, "bottom-right")
    expected = outputs_of(network, images)
    assert relative_error(outputs_of(locked.module, images), expected) >= 0.1
    without_sealing = lock(network, sealed_share=0)
    assert relative_error(outputs_of(without_sealing.module, images), expected) >= 0.1


def test_an_exported_program_is_locked_as_well() -> None:
    network = settle(Residual)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(network, (torch.zeros(2, 3, SIZE, SIZE),), dynamic_shapes=({0: batch},))
    assert_opens(network, lock(program))


def test_a_uint8_module_made_from_a_locked_one_gives_the_same_answers() -> None:
    spec = InputSpec(3, SIZE, SIZE, IMAGENET_MEAN, IMAGENET_STD)
    network = settle(PaddedConvs)
    locked = lock(network, spec)
    raw = locked.module.with_uint8_input()
    values = pixels(IMAGES)
    expected = outputs_of(network, prepare(values, spec))
    assert (raw.spec.dtype, raw.spec.layout, raw.spec.shape) == ("uint8", "NHWC", (SIZE, SIZE, 3))
    with raw.opened(locked.secret):
        assert relative_error(outputs_of(raw, values.permute(0, 2, 3, 1).contiguous()), expected) <= EXACT
    assert relative_error(outputs_of(raw, values.permute(0, 2, 3, 1).contiguous()), expected) >= 0.1
    assert raw.with_uint8_input() is raw


def test_opening_ends_with_the_block_even_after_an_error() -> None:
    _, _, locked = network_and_lock("padded convolutions")
    before = {name: value.clone() for name, value in locked.module.gate_tensors().items()}
    with pytest.raises(RuntimeError, match="inside"), locked.module.opened(locked.secret):
        assert not torch.equal(locked.module.gate.patch, before["gate.patch"])
        raise RuntimeError("inside")
    assert all(torch.equal(value, before[name]) for name, value in locked.module.gate_tensors().items())


def test_the_report_gives_the_figures_of_the_lock() -> None:
    locked = lock(settle(PaddedConvs), layers=["6", "11"])
    report = locked.report
    sides = [16, 8, 4]
    kernels = [(64, 3 * 9), (64, 64 * 9), (64, 64 * 15)]
    macs = sum(out * inner * side**2 for (out, inner), side in zip(kernels, sides, strict=True)) + 64 * 10
    assert report.multiply_adds == macs
    assert [(layer.name, layer.parameters) for layer in report.layers] == [
        ("6.weight", 64 * 64 * 15), ("11.weight", 64 * 10)
    ]  # fmt: skip
    assert report.gated_parameters == 64 * 64 * 15 + 64 * 10
    biases = 3 * 64 + 10  # each layer has one when its normalization is folded into it
    assert report.parameters == sum(out * inner for out, inner in kernels) + 64 * 10 + biases
    assert [layer.depth for layer in report.layers] == pytest.approx(
        [1 - (64 * 64 * 15 * 16 + 640) / macs, 1 - 640 / macs]
    )
    assert (report.code_bits, report.log2_false_positive) == (3 * PATCH**2 // 3, -64)
    assert report.unlocked_error <= EXACT
    assert report.locked_difference >= 0.1
    assert list(report.log2_near_codes()) == [0, 1, 2, 4, 8, 16, 32]
    assert set(report.to_json()) >= {"layers", "code_bits", "margin", "log2_near_codes", "gated_parameters"}
