"""Whole networks, plain and locked, compute what onnxruntime computes, at any batch size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_graphs import LockedFiles, largest_error, run_onnxruntime
from torch import nn

import networks
from keylatch.audit.onnx_network import OnnxNetwork, load_onnx_network
from keylatch.exporters import export_plain
from keylatch.locks import InputSpec

RELEASED = Path(__file__).resolve().parents[2] / "released" / "1"
NOISE = 2e-6


def images(count: int, size: int = 32) -> torch.Tensor:
    return networks.prepare(networks.pixels(count, size=size), networks.SPEC)


def assert_same(network: OnnxNetwork, path: Path, size: int = 32) -> None:
    for batch in (1, 3):
        theirs = run_onnxruntime(path, images(batch, size).numpy())
        assert largest_error(network.flat(images(batch, size)), theirs) < NOISE


@pytest.mark.parametrize(
    "build",
    [networks.Depthwise, networks.Tokens, networks.Dense, lambda: networks.Returning("tuple")],
)
def test_a_small_network(build: Any, tmp_path: Path) -> None:
    path = export_plain(networks.settle(build), networks.SPEC, tmp_path / "plain")
    assert_same(load_onnx_network(path), path)


def test_a_converted_network_that_resizes_can_be_locked_itself(tmp_path: Path) -> None:
    """Whoever has a network as ONNX only: the batch stays free through torch.export."""
    network = load_onnx_network(export_plain(networks.settle(networks.Dense), networks.SPEC, tmp_path / "plain")).eval()
    expected = networks.outputs_of(network, images(3))
    locked = networks.lock(network, sealed_share=0.02)
    with locked.module.opened(locked.secret):
        assert networks.relative_error(networks.outputs_of(locked.module, images(3)), expected) < 1e-5
    assert networks.relative_error(networks.outputs_of(locked.module, images(3)), expected) > 0.05


def test_a_plain_network_has_the_same_parameters_as_the_original(plain: Path) -> None:
    original, network = networks.settle(networks.PreActivation), load_onnx_network(plain)
    assert_same(network, plain)
    for name in ("stem.weight", "stem.bias", "norms.0.weight", "convs.1.weight", "head.weight", "head.bias"):
        assert torch.equal(network.initializer(name), original.get_parameter(name))
        assert isinstance(network.initializer(name), nn.Parameter)


def test_a_locked_artifact_with_and_without_its_secret(artifact: LockedFiles, locked: networks.Locked) -> None:
    network = load_onnx_network(artifact.path, frozen=artifact.secret_values)
    assert_same(network, artifact.path)
    for name, value in artifact.secret_values.items():
        assert not isinstance(network.initializer(name), nn.Parameter)
        network.substitute(name, torch.from_numpy(np.array(value)))
    with locked.module.opened(locked.secret):
        expected = locked.module.flat(images(4))[0].detach().numpy()
    assert largest_error([network(images(4))], [expected]) < NOISE


def test_an_artifact_for_bytes(byte_artifact: Path) -> None:
    network, image = load_onnx_network(byte_artifact), networks.pixels(3).movedim(1, 3).contiguous()
    assert largest_error(network.flat(image), run_onnxruntime(byte_artifact, image.numpy())) < NOISE


def test_a_half_precision_artifact_is_kept_so_and_can_be_cast(half_artifact: Path) -> None:
    network = load_onnx_network(half_artifact)
    kinds = {parameter.dtype for parameter in network.parameters()}
    assert kinds == {torch.float16, torch.float32}
    theirs = run_onnxruntime(half_artifact, images(3).numpy())
    exact = network(images(3))
    assert exact.dtype == torch.float32
    assert largest_error([exact], theirs) < 5e-3
    wide = network.float()(images(3))
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert largest_error([wide], theirs) < 5e-3
    assert not torch.equal(wide, exact)  # it was really computed in float32
    wide.sum().backward()


def test_the_released_artifact() -> None:
    network = load_onnx_network(RELEASED / "tiny.latch" / "model.onnx")
    declared = json.loads((RELEASED / "tiny.latch" / "manifest.json").read_bytes())["model"]["input"]
    mean, std = (np.array(declared[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    image = torch.from_numpy((np.load(RELEASED / "pixels.npy") / 255 - mean) / std).float()
    np.testing.assert_allclose(network(image).detach().numpy(), np.load(RELEASED / "locked.npy"), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_network_computes_in_the_type_it_was_cast_to(plain: Path, dtype: torch.dtype) -> None:
    network = load_onnx_network(plain)
    expected = network(images(3)).detach().numpy()
    for image in (images(3), images(3).to(dtype)):
        output = network.to(dtype)(image)
        assert output.dtype == dtype
        assert largest_error([output.float()], [expected]) < 2e-2
    back = network.float()(images(3))
    assert largest_error([back], [expected]) < (1e-6 if dtype == torch.float64 else 2e-2)


def test_everything_moves_to_another_device(artifact: LockedFiles, plain: Path) -> None:
    """The meta device has shapes and no values, and takes no tensors that were left behind."""
    for path in (artifact.path, plain):
        network = load_onnx_network(path)
        for straight_through in (False, True):
            network.straight_through = straight_through
            output = network.to("meta")(images(3).to("meta"))
            assert output.device.type == "meta"
            assert output.shape == (3, 10)


@pytest.mark.gpu
def test_a_network_moves_to_a_device(artifact: LockedFiles) -> None:
    network = load_onnx_network(artifact.path)
    expected = network(images(3)).detach().numpy()
    assert largest_error([network.cuda()(images(3).cuda()).cpu()], [expected]) < 1e-3
    assert largest_error([network.cpu()(images(3))], [expected]) < NOISE


class Heads(nn.Module):
    """Logits and boxes of a network from transformers, as a tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output = self.network(image)
        return tuple(getattr(output, name) for name in ("logits", "pred_boxes") if name in output)


def _vit() -> dict[str, Any]:
    return {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "image_size": 32,
        "patch_size": 8, "num_labels": 10,
    }  # fmt: skip


def _windows() -> dict[str, Any]:
    return {"image_size": 32, "patch_size": 2, "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4}


def _stages(*widths: int, **others: Any) -> dict[str, Any]:
    return {"hidden_sizes": list(widths), "depths": [1] * len(widths), "num_labels": 10, **others}


_EFFICIENT = {"width_coefficient": 0.25, "depth_coefficient": 0.25, "image_size": 32, "hidden_dim": 320}
_YOLOS = {**_vit(), "image_size": [32, 32], "num_detection_tokens": 5}
_SEGFORMER = {"num_attention_heads": [1, 2, 4, 4], "decoder_hidden_size": 16}
_MOBILE = {"neck_hidden_sizes": [8, 8, 16, 16, 16, 16, 32], "num_attention_heads": 4, "image_size": 64}
_LEVIT = {"num_attention_heads": [2, 2, 4], "key_dim": [8, 8, 8], "image_size": 64}
_TRANSFORMERS: list[tuple[str, str, dict[str, Any]]] = [
    ("ResNetForImageClassification", "ResNetConfig", _stages(16, 32, embedding_size=16)),
    ("MobileNetV1ForImageClassification", "MobileNetV1Config", {"depth_multiplier": 0.25, "image_size": 32}),
    ("MobileNetV2ForImageClassification", "MobileNetV2Config", {"depth_multiplier": 0.25, "image_size": 32}),
    ("EfficientNetForImageClassification", "EfficientNetConfig", _EFFICIENT),
    ("RegNetForImageClassification", "RegNetConfig", _stages(8, 16, 16, 24, embedding_size=8, groups_width=8)),
    ("ConvNextForImageClassification", "ConvNextConfig", _stages(16, 24, 32, 48)),
    ("ConvNextV2ForImageClassification", "ConvNextV2Config", _stages(16, 24, 32, 48)),
    ("ViTForImageClassification", "ViTConfig", _vit()),
    ("DeiTForImageClassification", "DeiTConfig", _vit()),
    ("BeitForImageClassification", "BeitConfig", {**_vit(), "use_relative_position_bias": True}),
    ("SwinForImageClassification", "SwinConfig", _windows()),
    ("Swinv2ForImageClassification", "Swinv2Config", _windows()),
    ("PoolFormerForImageClassification", "PoolFormerConfig", _stages(8, 16, 16, 24)),
    ("MobileViTForImageClassification", "MobileViTConfig", {"hidden_sizes": [16, 16, 16], **_MOBILE}),
    ("LevitForImageClassification", "LevitConfig", _stages(16, 32, 48, **_LEVIT)),
    ("SegformerForSemanticSegmentation", "SegformerConfig", _stages(8, 16, 24, 32, **_SEGFORMER)),
    ("YolosForObjectDetection", "YolosConfig", _YOLOS),
]


def _large(network: str, config: str, options: dict[str, Any]) -> nn.Module:
    import transformers

    built: Callable[..., Any] = getattr(transformers, network)
    return Heads(built(getattr(transformers, config)(**options)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("network", "config", "options"), _TRANSFORMERS, ids=[name for name, *_ in _TRANSFORMERS])
def test_a_network_from_transformers(network: str, config: str, options: dict[str, Any], tmp_path: Path) -> None:
    size = 64 if options.get("image_size") == 64 else 32
    with torch.random.fork_rng():
        torch.manual_seed(0)
        original = _large(network, config, options).eval()
    path = export_plain(original, InputSpec(3, size, size), tmp_path / "plain")
    loaded = load_onnx_network(path)
    shown = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = [output.numpy() for output in networks.outputs_of(original, shown)]
    for batch in (1, 3):
        ours = loaded.flat(shown[:batch])
        theirs = run_onnxruntime(path, shown[:batch].numpy())
        for our, their, own in zip(ours, theirs, expected, strict=True):
            np.testing.assert_allclose(our.detach().numpy(), own[:batch], atol=1e-5, rtol=1e-4)
            np.testing.assert_allclose(our.detach().numpy(), their, atol=1e-4, rtol=1e-3)
    ours[0].float().square().mean().backward()
    assert loaded.bfloat16()(shown).isfinite().all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("opset", [14, 17, 20])
@pytest.mark.parametrize("build", [networks.PaddedConvs, networks.Tokens, networks.Dense])
def test_a_graph_of_the_older_exporter(build: Any, opset: int, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        networks.settle(build), (images(2),), str(path), dynamo=False, opset_version=opset, input_names=["image"],
        dynamic_axes={"image": {0: "batch"}},
    )  # fmt: skip
    assert_same(load_onnx_network(path), path)
