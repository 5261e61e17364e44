"""Gates become branches: what is left of them when onnxruntime opens an artifact, and that each branch is right."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from artifacts import Artifact, make_artifact
from torch import nn
from torch.nn import functional as F

import networks
from keylatch.exporters import _locked_graph, export_plain

EVERYTHING = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
NOTHING = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
SHARE = 0.02  # of the weights
GATE_OPERATORS = {"If", "Where", "GreaterOrEqual", "ReduceProd", "Slice", "Pad"}


class Unbiased(networks.Tokens):
    """Tokens, with linear layers that have no bias."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("project", "expand", "contract"):
            layer = self.get_submodule(name)
            setattr(self, name, nn.Linear(layer.in_features, layer.out_features, bias=False))


class Padding(nn.Module):
    """A convolution behind a padding of the network's own."""

    def __init__(self, pad: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.pad = pad
        self.stem, self.conv, self.head = nn.Conv2d(3, 64, 4, 4), nn.Conv2d(64, 64, 3), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.conv(self.pad(F.relu(self.stem(x))))).mean((2, 3)))


class Siblings(nn.Module):
    """Two convolutions that pad the same input in the same way, one of them dilated and strided."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 64, 4, 4), nn.Conv2d(64, 64, 5, 2, 2)
        self.second, self.head = nn.Conv2d(64, 64, 3, 2, 2, dilation=2), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.first(x) + self.second(x)).mean((2, 3)))


CONVOLUTIONS = "padded and 1x1 convolutions, a linear head"
NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    CONVOLUTIONS: (networks.Residual, ["first", "second", "third", "head"]),
    "tokens": (networks.Tokens, ["qkv", "project", "expand", "contract", "head"]),
    "a convolution of another shape": (networks.PaddedConvs, ["3", "6", "11"]),
    "dense prediction": (networks.Dense, ["decode", "classify"]),
    "zeros on two sides": (lambda: Padding(lambda x: F.pad(x, (0, 2, 1, 0))), ["conv", "head"]),
    "reflected borders": (lambda: Padding(lambda x: F.pad(x, (1, 1, 1, 1), "reflect")), ["conv", "head"]),
    "borders of ones": (lambda: Padding(lambda x: F.pad(x, (1, 1, 1, 1), value=1.0)), ["conv", "head"]),
    "cropped": (lambda: Padding(lambda x: F.pad(x, (-1, 0, 0, 1))), ["conv", "head"]),
    "normalization before convolution": (networks.PreActivation, ["convs.0", "convs.1", "head"]),
    "one padding for two": (Siblings, ["first", "second", "head"]),
}


Make = Callable[..., Artifact]


def open_with(
    path: Path, values: Mapping[str, np.ndarray], level: Any = EVERYTHING
) -> tuple[onnxruntime.InferenceSession, Counter[str]]:
    """Stock onnxruntime from the path: a session, and how often each operator is left in its optimized graph."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3  # it warns that an optimized graph fits this machine alone
    options.optimized_model_filepath = str(path.parent.with_suffix(f".{len(values)}.optimized.onnx"))
    tensors = [onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value)) for value in values.values()]
    if values:
        options.add_external_initializers(list(values), tensors)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath, load_external_data=False).graph
    return session, Counter(node.op_type for node in graph.node)


def run(session: onnxruntime.InferenceSession, images: np.ndarray) -> np.ndarray:
    return session.run(None, {"image": images})[0]


def images(count: int) -> np.ndarray:
    return networks.prepare(networks.pixels(count), networks.SPEC).numpy()


def relative(output: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(output - expected).max() / np.ptp(expected))


@functools.cache
def network_and_lock(name: str, sealed_share: float) -> tuple[nn.Module, networks.Locked]:
    build, layers = NETWORKS[name]
    network = networks.settle(build)
    return network, networks.lock(network, layers=layers, sealed_share=sealed_share)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Artifacts by network, share and options; each is made once."""

    @functools.cache
    def make(name: str, sealed_share: float, **options: Any) -> Artifact:
        path = tmp_path_factory.mktemp("made") / "made.latch"
        return make_artifact(network_and_lock(name, sealed_share)[1], path, **options)

    return make


@pytest.fixture(scope="module")
def plain_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The same networks exported as they are."""

    @functools.cache
    def make(name: str) -> Path:
        return export_plain(network_and_lock(name, SHARE)[0], networks.SPEC, tmp_path_factory.mktemp("plain") / "plain")

    return make


@pytest.mark.parametrize(
    ("name", "sealed_share"),
    [*((name, SHARE) for name in NETWORKS), (CONVOLUTIONS, 1.0), ("tokens", 1.0)],  # 1.0: gated and withheld
)
def test_a_keyed_session_has_exactly_the_operators_of_a_plain_one(
    name: str, sealed_share: float, made: Make, plain_path: Callable[[str], Path]
) -> None:
    artifact = made(name, sealed_share)
    onnx.checker.check_model(str(artifact.path / "model.onnx"), full_check=True)
    plain, operators = open_with(plain_path(name), {})
    keyed, left = open_with(artifact.path / "model.onnx", artifact.gate_values)
    assert left == operators
    assert relative(run(keyed, images(3)), run(plain, images(3))) <= 1e-5
    locked, gated = open_with(artifact.path / "model.onnx", {})
    assert gated["Where"] == 3 and gated["ReduceProd"] == 1  # the others have them: they were looked for
    assert relative(run(locked, images(3)), run(plain, images(3))) >= 0.1


def test_a_linear_layer_without_bias_costs_one_sum(tmp_path: Path) -> None:
    network = networks.settle(Unbiased)
    artifact = make_artifact(networks.lock(network, layers=["project", "expand", "contract"]), tmp_path / "m.latch")
    plain, operators = open_with(export_plain(network, networks.SPEC, tmp_path / "plain"), {})
    keyed, left = open_with(artifact.path / "model.onnx", artifact.gate_values)
    ours, theirs = ({op: n for op, n in each.items() if "Gelu" not in op} for each in (left, operators))
    extra = Counter(ours) - Counter(theirs)
    assert extra.total() <= 3 and set(extra) == {"Add"}
    assert not Counter(theirs) - Counter(ours)
    assert relative(run(keyed, images(3)), run(plain, images(3))) <= 1e-5


@pytest.mark.parametrize("options", [
    pytest.param({"precision": "float16"}, marks=pytest.mark.slow),
    pytest.param({"uint8_input": True}, marks=pytest.mark.slow),
    {"precision": "float16", "uint8_input": True},
])  # fmt: skip
@pytest.mark.parametrize("name", [CONVOLUTIONS, "tokens"])
def test_no_gate_is_left_for_bytes_and_in_half_precision(
    name: str, options: dict[str, Any], made: Make, plain_path: Callable[[str], Path]
) -> None:
    _, operators = open_with(plain_path(name), {})
    artifact = made(name, SHARE, **options)
    _, left = open_with(artifact.path / "model.onnx", artifact.gate_values)
    for operator in GATE_OPERATORS | {"Split", "Gemm", "Conv", "Reshape", "Gather"}:
        assert left[operator] == operators[operator], operator
    assert left["Where"] == 0


@pytest.mark.parametrize("options", [{}, {"precision": "float16"}, {"uint8_input": True}])
@pytest.mark.parametrize("name", [CONVOLUTIONS, "tokens"])
def test_without_optimization_the_branches_are_decided_for_each_run(
    name: str, options: dict[str, Any], made: Make
) -> None:
    artifact = made(name, SHARE, **options)
    path, shown = artifact.path / "model.onnx", images(3)
    if options.get("uint8_input"):
        shown = np.ascontiguousarray((shown * 255).round().astype(np.uint8).transpose(0, 2, 3, 1))
    tolerance = 1e-2 if "precision" in options else 1e-5
    outputs = {}
    for values in (artifact.gate_values, {}):
        optimized, _ = open_with(path, values)
        plain, operators = open_with(path, values, NOTHING)
        assert operators["If"] == 1 + len(artifact.locked.module.description.layers)
        outputs[len(values)] = run(plain, shown)
        assert relative(run(plain, shown), run(optimized, shown)) <= tolerance
        assert relative(run(plain, shown[:1]), run(optimized, shown[:1])) <= tolerance
    keyed, locked = (outputs[count] for count in (len(artifact.gate_values), 0))
    assert relative(locked, keyed) >= 0.1


@pytest.mark.parametrize("level", [EVERYTHING, NOTHING])
def test_a_mask_over_part_of_the_patch_reads_patch_and_image_together(artifact: Artifact, level: Any) -> None:
    secret, module = artifact.locked.secret, artifact.locked.module
    values = {**artifact.gate_values, "gate.mask": artifact.gate_values["gate.mask"].copy()}
    values["gate.mask"][..., :3] = False  # the left three columns come from the image
    patch = networks.paste(networks.pixels(2), secret.patch)[:, :, -networks.PATCH :, -networks.PATCH :]
    shown = networks.pixels(4).clone()
    shown[:2, :, -networks.PATCH :, -networks.PATCH :][..., :3] = patch[..., :3]
    shown_images = networks.prepare(shown, networks.SPEC)
    with module.opened(secret):
        opened = networks.outputs_of(module, shown_images).numpy()
        module.gate.mask.data.copy_(torch.from_numpy(values["gate.mask"]))
        expected = networks.outputs_of(module, shown_images).numpy()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    tensors = [onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value)) for value in values.values()]
    options.add_external_initializers(list(values), tensors)
    session = onnxruntime.InferenceSession(artifact.path / "model.onnx", options, providers=["CPUExecutionProvider"])
    outputs = run(session, shown_images.numpy())
    assert relative(outputs, expected) <= 1e-5
    assert relative(outputs[:2], opened[:2]) <= 1e-5  # these images bring the missing columns
    assert relative(outputs[2:], opened[2:]) >= 0.1


@pytest.mark.parametrize("name", [CONVOLUTIONS, "tokens", "one padding for two"])
def test_an_image_that_carries_the_patch_opens_for_itself_alone(name: str, made: Make) -> None:
    network, locked = network_and_lock(name, 0.0)  # nothing withheld
    artifact = made(name, 0.0)
    means = {key: value for key, value in artifact.gate_values.items() if key not in ("gate.patch", "gate.mask")}
    pixels = networks.pixels(4).clone()
    pixels[1:2] = networks.paste(pixels[1:2], locked.secret.patch)
    shown = networks.prepare(pixels, networks.SPEC)
    expected = networks.outputs_of(network, shown).numpy()
    session, _ = open_with(artifact.path / "model.onnx", means)
    errors = np.abs(run(session, shown.numpy()) - expected).max(1) / np.ptp(expected)
    assert errors[1] <= 1e-5
    assert all(np.delete(errors, 1) >= 0.05)
    assert relative(run(session, shown.numpy()[1:2]), expected[1:2]) <= 1e-5


def test_what_does_not_look_like_a_gate_stays_as_it_is(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_onnx = _locked_graph.to_onnx

    def twisted(*arguments: Any, **options: Any) -> Any:
        model = to_onnx(*arguments, **options)
        for node in model.graph:
            if node.op_type == "Mul":  # the gate's, with its inputs in the other order
                first, second = node.inputs
                node.replace_input_with(0, second)
                node.replace_input_with(1, first)
        return model

    monkeypatch.setattr(_locked_graph, "to_onnx", twisted)
    again = make_artifact(artifact.locked, tmp_path / "m.latch")
    keyed, left = open_with(again.path / "model.onnx", again.gate_values)
    assert left["Mul"] == 3 and left["Where"] == 0
    assert relative(run(keyed, images(3)), artifact.run(images(3), artifact.gate_values)) <= 1e-5
