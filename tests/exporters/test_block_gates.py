"""Artifacts of block locks: the transform runs inside the graph, by the key that a license brings."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from artifacts import Artifact, external_location, make_artifact
from torch import nn

import networks
from keylatch.errors import KeylatchError, LockError
from keylatch.exporters import export, export_plain
from keylatch.keys import FileDeviceKey, FileIssuerKey
from keylatch.locks import IMAGENET_MEAN, IMAGENET_STD, BlockTransform, InputSpec, Locked, block_lock
from keylatch.locks._block_gate import SHOWN as SHOWN_VALUE
from keylatch.runtime import InferenceSession, read_manifest

SPEC = InputSpec(3, networks.SIZE, networks.SIZE, IMAGENET_MEAN, IMAGENET_STD)
LINEAR, EVERYTHING = ("shf", "np"), ("shf", "np", "ffx")
EXACT = {"float32": 1e-5, "float16": 1e-2}  # of the output range
ANOTHER = 0.05


class Shows(nn.Module):
    """A network whose output is its input, as NCHW."""

    def __init__(self, channels: int = 3, layout: str = "NCHW") -> None:
        super().__init__()
        self.layout, self.same = layout, nn.Conv2d(channels, channels, 1, bias=False)
        with torch.no_grad():
            self.same.weight.copy_(torch.eye(channels).view(channels, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.same(x if self.layout == "NCHW" else x.permute(0, 3, 1, 2))


@dataclass(frozen=True)
class Case:
    """How an artifact is made."""

    build: Callable[[], nn.Module] = Shows
    steps: tuple[str, ...] = LINEAR
    size: int = 4
    spec: InputSpec = SPEC
    absorb: bool = False
    code: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 1

    @property
    def tolerance(self) -> float:
        return EXACT[self.options.get("precision", "float32")]

    def key(self) -> BlockTransform:
        seed = bytes([self.seed]) * 32
        return BlockTransform.draw(self.steps, block_size=self.size, channels=self.spec.channels, seed=seed)

    def lock(self) -> Locked:
        network = networks.settle(self.build, self.spec.channels)
        if self.code:
            return networks.lock(network, self.spec, blocks=self.key(), absorb=self.absorb)
        return block_lock(network, self.spec, self.key(), absorb=self.absorb)


GRAY = InputSpec(1, networks.SIZE, networks.SIZE, (0.4,), (0.3,))
NHWC = InputSpec(3, networks.SIZE, networks.SIZE, IMAGENET_MEAN, IMAGENET_STD, "NHWC")
BYTES, HALF = {"uint8_input": True}, {"precision": "float16"}

SHOWN = {
    "floats": Case(),
    "bytes": Case(options=BYTES),
    "floats, half": Case(options=HALF),
    "floats, shf": Case(steps=("shf",), size=2),
    "bytes, np": Case(steps=("np",), size=8, options=BYTES),
    "floats, one block": Case(size=networks.SIZE),
    "floats, gray": Case(lambda: Shows(1), spec=GRAY),
    "bytes, gray": Case(lambda: Shows(1), spec=GRAY, size=16, options=BYTES),
    "floats, NHWC": Case(lambda: Shows(3, "NHWC"), spec=NHWC),
    "bytes, NHWC": Case(lambda: Shows(3, "NHWC"), spec=NHWC, options=BYTES),
    "floats, ffx": Case(steps=EVERYTHING),
    "bytes, ffx": Case(steps=EVERYTHING, options=BYTES),
    "bytes, ffx, half": Case(steps=("ffx",), options={**BYTES, **HALF}),
    "floats, ffx, half": Case(steps=EVERYTHING, options=HALF),
    "floats, ffx, NHWC": Case(lambda: Shows(3, "NHWC"), ("np", "ffx"), spec=NHWC),
    "bytes, ffx, NHWC": Case(lambda: Shows(3, "NHWC"), ("np", "ffx"), spec=NHWC, options=BYTES),
}
STEMS = {
    "stem": Case(networks.Tokens, absorb=True),
    "stem, bytes": Case(networks.Tokens, absorb=True, options=BYTES),
    "stem, half": Case(networks.Tokens, absorb=True, options=HALF),
    "stem, bytes, half": Case(networks.Tokens, absorb=True, options={**BYTES, **HALF}),
    "stem, whole patches": Case(networks.Tokens, absorb=True, size=8),
    "stem, not absorbed": Case(networks.Tokens),
    "stem without bias": Case(lambda: nn.Sequential(nn.Conv2d(3, 64, 4, 4, bias=False), nn.GELU(), nn.Flatten(1),
                                                    nn.Linear(4096, 80)), absorb=True),
}  # fmt: skip
OTHERS = {
    "stem, ffx": Case(networks.Tokens, EVERYTHING),
    "stem, ffx, bytes": Case(networks.Tokens, EVERYTHING, options=BYTES),
    "convolutions": Case(networks.PaddedConvs),
    "convolutions, bytes": Case(networks.PaddedConvs, options=BYTES),
    "stem, code": Case(networks.Tokens, absorb=True, code=True),
    "stem, code, bytes": Case(networks.Tokens, absorb=True, code=True, options=BYTES),
    "convolutions, code, ffx, bytes": Case(networks.PaddedConvs, EVERYTHING, code=True, options=BYTES),
    "another key": Case(networks.Tokens, absorb=True, seed=2),
    "sealed": Case(networks.Tokens, absorb=True, options={"sealed_weights": True}),
}
CASES = {**SHOWN, **STEMS, **OTHERS}
# The others have every property at least once.
SLOW = {
    "floats, half", "floats, shf", "bytes, np", "floats, one block", "bytes, gray", "bytes, NHWC", "bytes, ffx, half",
    "floats, ffx, half", "floats, ffx, NHWC", "stem, half", "stem, bytes, half", "stem, not absorbed",
    "stem without bias", "convolutions, code, ffx, bytes",
}  # fmt: skip


def marked(names: Iterable[str]) -> list[Any]:
    """Names of cases, some of them only for `make test-all`."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names]


Make = Callable[[str], Artifact]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Artifacts by name; each is made once."""

    @functools.cache
    def make(name: str) -> Artifact:
        return make_artifact(CASES[name].lock(), tmp_path_factory.mktemp("made") / "m.latch", **CASES[name].options)

    return make


def fed(name: str, count: int = 4) -> np.ndarray:
    """Images as an artifact takes them."""
    pixels, case = networks.pixels(count, CASES[name].spec.channels), CASES[name]
    if case.options.get("uint8_input"):
        return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())
    return networks.prepare(pixels, case.spec).numpy()


def torch_outputs(name: str, locked: Locked, *, opened: bool, count: int = 4) -> np.ndarray:
    images = networks.prepare(networks.pixels(count, CASES[name].spec.channels), CASES[name].spec)
    if not opened:
        return networks.outputs_of(locked.module, images).numpy()
    with locked.module.opened(locked.secret):
        return networks.outputs_of(locked.module, images).numpy()


def shown_values(name: str) -> np.ndarray:
    """What a key makes of the images, normalized, (N, C, H, W); from the transform, not from a gate."""
    case = CASES[name]
    values = case.key().values(networks.pixels(4, case.spec.channels)).double()
    mean, std = (torch.tensor(of, dtype=torch.float64).view(1, -1, 1, 1) for of in (case.spec.mean, case.spec.std))
    return ((values - mean) / std).numpy()


def relative(output: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(output - expected).max() / np.ptp(expected))


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> FileDeviceKey:
    return FileDeviceKey.generate(tmp_path_factory.mktemp("device") / "device.key")


ISSUER = FileIssuerKey.generate()


@pytest.mark.parametrize("name", marked(CASES))
def test_a_license_makes_the_runtime_give_the_opened_network(name: str, made: Make, device: FileDeviceKey) -> None:
    artifact = made(name)
    session = InferenceSession(artifact.path, **artifact.credentials(ISSUER, device))
    expected = torch_outputs(name, artifact.locked, opened=True)
    for batch in (4, 1, 3):
        (keyed,) = session.run(None, {"image": fed(name, batch)})
        assert keyed.dtype == np.float32
        assert relative(keyed, expected[:batch]) <= CASES[name].tolerance


@pytest.mark.parametrize("name", marked([name for name in CASES if name != "sealed"]))
def test_without_a_key_it_is_the_locked_network(name: str, made: Make) -> None:
    artifact = made(name)
    locked, opened = (torch_outputs(name, artifact.locked, opened=opened) for opened in (False, True))
    for batch in (4, 1, 3):
        assert relative(artifact.run(fed(name, batch)), locked[:batch]) <= max(CASES[name].tolerance, 1e-4)
    assert relative(artifact.run(fed(name)), opened) >= ANOTHER
    (by_runtime,) = InferenceSession.locked(artifact.path).run(None, {"image": fed(name)})
    np.testing.assert_array_equal(by_runtime, artifact.run(fed(name)))


@pytest.mark.parametrize("name", marked(SHOWN))
def test_a_network_is_shown_what_the_transform_gives(name: str, made: Make) -> None:
    artifact, expected = made(name), shown_values(name)
    shown = artifact.run(fed(name), artifact.gate_values)
    limit = 1e-6 if CASES[name].tolerance <= 1e-5 else 1e-3
    assert (np.abs(shown - expected) <= limit * np.maximum(1, np.abs(expected))).all()


def with_output(artifact: Artifact, inner: str, values: Mapping[str, np.ndarray]) -> onnxruntime.InferenceSession:
    """The artifact's graph with gate values in it, and an inner value as its output."""
    model = onnx.load(artifact.path / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values[tensor.name], tensor.name))
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name=inner))
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", marked([name for name in CASES if name.startswith("bytes") and "ffx" not in name]))
def test_bytes_inside_the_graph_are_exactly_the_transform_s(name: str, made: Make) -> None:
    artifact, case = made(name), CASES[name]
    pixels = networks.pixels(4, case.spec.channels)
    for values, expected in ((artifact.gate_values, case.key().bytes(pixels)), ({}, pixels)):
        (shown,) = with_output(artifact, SHOWN_VALUE, values).run(None, {"image": fed(name)})
        assert shown.dtype == np.uint8
        np.testing.assert_array_equal(shown, expected.numpy())


TENSORS: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {
    "floats": {"scale": ("float32", (48, 1, 1)), "offset": ("float32", (48, 1, 1))},
    "bytes": {"inversion": ("uint8", (48, 1, 1))},
    "floats, ffx": {"choice": ("int32", (48, 1, 1)), "tables": ("float32", (1024, 1))},
    "bytes, ffx": {"choice": ("int32", (48, 1, 1)), "tables": ("float32", (1024, 1))},
    "stem, half": {"scale": ("float32", (48, 1, 1)), "offset": ("float32", (48, 1, 1))},
    "stem, bytes": {"scale": ("float32", (48, 1, 1)), "offset": ("float32", (48, 1, 1))},
}  # fmt: skip


@pytest.mark.parametrize("name", TENSORS)
def test_gate_tensors_lie_in_a_file_of_their_own(name: str, made: Make) -> None:
    artifact = made(name)
    rest = {f"blocks.{tensor}": shape for tensor, shape in TENSORS[name].items()}
    expected = {"blocks.permutation": ("int64", (48,)), **rest}
    found = {tensor.name: tensor for tensor in artifact.graph().graph.initializer if tensor.name.startswith("blocks.")}
    own = {tensor: found[tensor] for tensor in expected}
    assert all(external_location(tensor) == "gate.bin" for tensor in own.values())
    gate = read_manifest(artifact.path)[0].gate
    assert {entry.name: (entry.dtype, tuple(entry.shape)) for entry in gate} == expected
    assert {key: (value.dtype.name, value.shape) for key, value in artifact.gate_values.items()} == expected
    assert artifact.run(fed(name)).shape == artifact.run(fed(name), artifact.gate_values).shape


@pytest.mark.parametrize("name", ["floats", "bytes", "bytes, ffx", "stem", "stem, code"])
def test_each_gate_tensor_is_needed(name: str, made: Make) -> None:
    artifact, right = made(name), made(name).gate_values
    expected = artifact.run(fed(name), right)
    for left_out in right:
        some = {key: value for key, value in right.items() if key != left_out}
        assert relative(artifact.run(fed(name), some), expected) >= 0.01, left_out


@pytest.mark.parametrize("name", marked(CASES))
def test_images_are_never_cut_into_planes(name: str, made: Make) -> None:
    """What is left of planes is computed while opening: from keys and weights alone."""
    artifact = made(name)
    if name != "sealed":
        onnx.checker.check_model(str(artifact.path / "model.onnx"), full_check=True)
    for node in artifact.graph().graph.node:
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Transpose":
            assert len(given["perm"]) <= 4
        if node.op_type in ("SpaceToDepth", "DepthToSpace"):
            assert given["blocksize"] == CASES[name].size
            assert given.get("mode", b"DCR") == b"DCR"


@pytest.mark.parametrize("name", marked(SHOWN))
def test_the_batch_keeps_its_name_behind_a_gate(name: str, made: Make) -> None:
    """Else onnxruntime plans no memory for all that follows."""
    graph = made(name).graph().graph
    shapes = {value.name: value.type.tensor_type.shape for value in (*graph.input, *graph.value_info)}
    assert shapes[SHOWN_VALUE].dim[0].dim_param == shapes["image"].dim[0].dim_param == "batch"


@pytest.mark.parametrize("name", marked(CASES))
def test_nothing_unused_is_left_in_the_graph(name: str, made: Make) -> None:
    """onnxruntime warns of each unused initializer whenever it opens the file."""
    graph = made(name).graph().graph
    branches = [a.g for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    read = {source for part in (graph, *branches) for node in part.node for source in node.input}
    read |= {output.name for part in (graph, *branches) for output in part.output}
    assert [tensor.name for tensor in graph.initializer if tensor.name not in read] == []


PLANES = {"SpaceToDepth", "Gather", "DepthToSpace", "Range"}


def optimized(path: Path, values: Mapping[str, np.ndarray]) -> Counter[str]:
    """How often each operator is left when stock onnxruntime has optimized a graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that an optimized graph fits this machine alone
    options.optimized_model_filepath = str(path.parent.with_suffix(f".{len(values)}.optimized.onnx"))
    tensors = [onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value)) for value in values.values()]
    if values:
        options.add_external_initializers(list(values), tensors)
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath, load_external_data=False).graph
    return Counter(node.op_type for node in graph.node)


@pytest.mark.parametrize("name", marked(["floats, ffx", "bytes, ffx"]))
def test_tables_are_computed_while_opening_and_looked_up_once(name: str, made: Make) -> None:
    artifact = made(name)
    found = optimized(artifact.path / "model.onnx", artifact.gate_values)
    assert (found["GatherElements"], found["QuantizeLinear"]) == (2, name.startswith("floats"))
    assert found.keys().isdisjoint({"Sub", "Div", "Mul", "Round", "Clip", "Squeeze", *PLANES})


@pytest.mark.parametrize("name", marked([name for name in SHOWN if "ffx" not in name]))
def test_pixels_are_moved_in_one_pass(name: str, made: Make) -> None:
    artifact = made(name)
    found = optimized(artifact.path / "model.onnx", artifact.gate_values)
    assert (found["GatherElements"], found["Expand"]) == (1, 1)
    assert found.keys().isdisjoint(PLANES)


def test_floats_between_and_beyond_bytes_are_looked_up_as_the_nearest_byte(made: Make) -> None:
    """Pixels from black to white and beyond, a quarter and a half of a step aside."""
    artifact = made("floats, ffx")
    mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (SPEC.mean, SPEC.std))
    steps = np.random.default_rng(0).integers(-80, 1100, (8, 3, SPEC.height, SPEC.width))
    for pixels in (steps / 4 + 1e-3, steps / 4 - 1e-3):
        image = ((pixels / 255 - mean) / std).astype(np.float32)
        nearest = torch.from_numpy(pixels.round().clip(0, 255).astype(np.uint8))
        expected = (CASES["floats, ffx"].key().values(nearest).numpy() - mean) / std
        np.testing.assert_allclose(artifact.run(image, artifact.gate_values), expected, atol=1e-5)


@pytest.mark.parametrize("name", marked(["stem", "stem, whole patches", "stem, not absorbed", "stem without bias",
                                  "stem, code", "another key"]))  # fmt: skip
def test_behind_a_patchify_stem_a_keyed_session_has_exactly_the_operators_of_a_plain_one(
    name: str, made: Make, tmp_path: Path
) -> None:
    network = networks.settle(CASES[name].build)
    plain = optimized(export_plain(network, CASES[name].spec, tmp_path / "plain"), {})
    graph = made(name).path / "model.onnx"
    assert optimized(graph, made(name).gate_values) == plain
    if not CASES[name].code:
        assert optimized(graph, {}) == plain


class OfBytes(nn.Module):
    """A network behind the usual preprocessing of decoded images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("center", 255 * torch.tensor(IMAGENET_MEAN).view(1, -1, 1, 1))
        self.register_buffer("scale", 255 * torch.tensor(IMAGENET_STD).view(1, -1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network((x.permute(0, 3, 1, 2).float() - self.center) / self.scale)


def test_behind_a_patchify_stem_bytes_cost_no_more_than_their_preprocessing(made: Make, tmp_path: Path) -> None:
    network = OfBytes(networks.settle(networks.Tokens)).eval()
    plain = optimized(export_plain(network, SPEC.as_uint8(), tmp_path / "plain"), {})
    keyed = optimized(made("stem, bytes").path / "model.onnx", made("stem, bytes").gate_values)
    assert not keyed - plain
    assert not {"SpaceToDepth", "DepthToSpace", "Gather", "ScatterElements"} & keyed.keys() - plain.keys()


def test_other_networks_keep_the_transform_in_front(made: Make) -> None:
    left = optimized(made("convolutions").path / "model.onnx", made("convolutions").gate_values)
    assert left["GatherElements"] == 1


def test_two_keys_of_one_network_are_two_models_and_two_licenses(made: Make, device: FileDeviceKey) -> None:
    names, expected = ("stem", "another key"), None
    for own, other in (names, names[::-1]):
        artifact, foreign = made(own), made(other)
        assert artifact.exported.model_id != foreign.exported.model_id
        session = InferenceSession(artifact.path, **artifact.credentials(ISSUER, device))
        (keyed,) = session.run(None, {"image": fed(own)})
        original = networks.outputs_of(networks.settle(networks.Tokens), torch.from_numpy(fed(own))).numpy()
        assert relative(keyed, original) <= 1e-5
        with pytest.raises(KeylatchError, match="license") as caught:
            InferenceSession(artifact.path, **foreign.credentials(ISSUER, device))
        assert caught.value.hint
        # Nor do the values themselves, smuggled past the license.
        assert relative(artifact.run(fed(own), foreign.gate_values), original) >= ANOTHER
        expected = original if expected is None else expected
    np.testing.assert_array_equal(expected, original)


def test_files_of_two_keys_differ_in_the_stem_alone(made: Make) -> None:
    weights = []
    for name in ("stem", "another key"):
        model = onnx.load(made(name).path / "model.onnx")
        weights.append({tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer})
    first, second = weights
    assert first.keys() == second.keys()
    different = {name for name in first if not np.array_equal(first[name], second[name])}
    assert different == {"body.stem_weight", "body.stem_bias"}


def test_the_manifest_says_what_kind_of_lock_it_is(made: Make) -> None:
    for name, method in (("stem", "blocks"), ("stem, code", "code"), ("bytes", "blocks")):
        lock = read_manifest(made(name).path)[0].lock
        assert lock["method"] == method
        assert lock["blocks"] == {"steps": ["shf", "np"], "block_size": 4}


def key_forms(key: BlockTransform) -> list[bytes]:
    order, inverse = key.permutation.numpy(), torch.argsort(key.permutation).numpy()
    signs = (1 - 2 * key.negated.int()).numpy()
    forms: list[Any] = [part.astype(kind) for part in (order, inverse) for kind in ("u1", "<i4", "<i8", "<f4")]
    forms += [key.negated.numpy(), key.negated.numpy() * np.uint8(255), signs.astype("<f4"), signs.astype("i1")]
    forms += [key.table.numpy().astype(kind) for kind in ("<i2", "<i4", "<f4") if not key.is_linear]
    return [form.tobytes() for form in forms]


@pytest.mark.parametrize("name", marked(["floats", "bytes", "bytes, ffx", "stem", "stem, code", "stem, half"]))
def test_no_file_of_an_artifact_holds_the_key(name: str, made: Make) -> None:
    artifact = made(name)
    changed = [value for key, value in artifact.gate_values.items() if key.startswith("blocks.")]
    forms = key_forms(CASES[name].key()) + [value.tobytes() for value in changed]
    files = {file.name: file.read_bytes() for file in artifact.path.iterdir()}
    assert "gate.bin" in files
    assert not [file for file, data in files.items() for form in forms if form in data]


def test_exporting_an_opened_lock_is_refused(tmp_path: Path) -> None:
    locked = CASES["floats"].lock()
    with locked.module.opened(locked.secret), pytest.raises(LockError, match="opened") as caught:
        export(locked.module, locked.secret, tmp_path / "m.latch")
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_exporting_with_a_key_of_another_transform_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LockError, match="does not fit") as caught:
        export(CASES["floats"].lock().module, CASES["floats, shf"].lock().secret, tmp_path / "m.latch")
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("opset", [18, 20])
def test_older_operator_sets_give_the_same(opset: int, tmp_path: Path) -> None:
    artifact = make_artifact(CASES["bytes"].lock(), tmp_path / "m.latch", opset=opset, uint8_input=True)
    shown = artifact.run(fed("bytes"), artifact.gate_values)
    assert np.abs(shown - shown_values("bytes")).max() <= 1e-5
