"""The four files of an artifact: what stands in them, and what does not."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import numpy as np
import onnx
import pytest
from artifacts import FILES, Artifact, external_location, make_artifact
from blake3 import blake3

import networks
from keylatch.exporters import METADATA_KEY, export
from keylatch.keys import canonical_json
from keylatch.locks import CodeLockDescription
from keylatch.runtime import model_id_of, parse_manifest, read_model_files, scan_graph

ALL = ["artifact", "half_artifact", "byte_artifact"]
GATE = ["gate.patch", "gate.mask", *(f"body.gate_mean_{index}" for index in range(3)), "body.sealed_0", "body.sealed_1"]


@pytest.fixture
def any_artifact(request: pytest.FixtureRequest) -> Artifact:
    return request.getfixturevalue(request.param)


on_all = pytest.mark.parametrize("any_artifact", ALL, indirect=True)


@on_all
def test_an_artifact_is_exactly_four_files(any_artifact: Artifact) -> None:
    assert sorted(path.name for path in any_artifact.path.iterdir()) == FILES
    assert [path.name for path in any_artifact.path.parent.iterdir()] == ["digits.latch"]
    assert stat.S_IMODE(any_artifact.path.stat().st_mode) == 0o755


@on_all
def test_onnx_checker_takes_the_graph_from_its_path(any_artifact: Artifact) -> None:
    onnx.checker.check_model(str(any_artifact.path / "model.onnx"), full_check=True)


@on_all
def test_gate_tensors_are_external_in_a_file_of_their_own(any_artifact: Artifact) -> None:
    locations = {tensor.name: external_location(tensor) for tensor in any_artifact.graph().graph.initializer}
    assert sorted(name for name, location in locations.items() if location == "gate.bin") == sorted(GATE)
    assert set(locations.values()) == {"gate.bin", "model.onnx.data", None}


@on_all
def test_weights_over_a_kilobyte_are_external_and_smaller_ones_are_not(any_artifact: Artifact) -> None:
    widths = {onnx.TensorProto.FLOAT: 4, onnx.TensorProto.FLOAT16: 2, onnx.TensorProto.INT64: 8}
    for tensor in any_artifact.graph().graph.initializer:
        if tensor.name not in GATE:
            large = int(np.prod(tensor.dims)) * widths.get(tensor.data_type, 1) > 1024
            assert external_location(tensor) == ("model.onnx.data" if large else None), tensor.name


def test_gates_of_equal_shape_stay_tensors_of_their_own(artifact: Artifact) -> None:
    shapes = {name: value.shape for name, value in artifact.gate_values.items()}
    assert shapes["body.gate_mean_0"] == shapes["body.gate_mean_1"] == (1, 64, 1, 1)
    extents = set()
    for tensor in artifact.graph().graph.initializer:
        if tensor.name in GATE:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            extents.add((int(entries["offset"]), int(entries["length"])))
    assert len(extents) == len(GATE)
    ends = [offset + length for offset, length in sorted(extents)]
    assert all(start >= end for (start, _), end in zip(sorted(extents)[1:], ends, strict=False))


def test_gate_bin_holds_the_locked_defaults(artifact: Artifact) -> None:
    model = onnx.load(artifact.path / "model.onnx")
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, default in artifact.locked.module.gate_tensors().items():
        np.testing.assert_array_equal(stored[name], default.numpy(), strict=True)


@on_all
def test_nothing_secret_stands_in_any_file(any_artifact: Artifact) -> None:
    secret = any_artifact.locked.secret
    code = secret.code.numpy()
    bits = code > 0
    patterns = {
        "code": code,
        "code as floats": code.astype(np.float32),
        "code bits": bits,
        "patch": secret.patch.numpy(),
    }
    patterns |= {"packed code": np.packbits(bits), "packed code, low first": np.packbits(bits, bitorder="little")}
    patterns |= {"signs": any_artifact.locked.module.gate.code_map.signs(secret.code).numpy()}
    patterns |= {f"mean {index}": mean.numpy() for index, mean in enumerate(secret.means)}
    patterns |= {f"fp16 mean {index}": mean.half().numpy() for index, mean in enumerate(secret.means)}
    values = any_artifact.exported.secret_values
    patterns |= {name: value for name, value in values.items() if name not in ("gate.mask", "known_answer.images")}
    for file in FILES:
        data = (any_artifact.path / file).read_bytes()
        for name, value in patterns.items():
            content = value.tobytes()
            assert content not in data, (file, name)
            assert content.hex().encode() not in data, (file, name)
            assert content[: len(content) // 2] not in data, (file, name)


@on_all
def test_no_running_statistic_and_no_original_bias_is_written(any_artifact: Artifact) -> None:
    graph = (any_artifact.path / "model.onnx").read_bytes()
    assert b"running_" not in graph
    assert b"BatchNormalization" not in graph
    names = {tensor.name for tensor in any_artifact.graph().graph.initializer}
    assert "body.14.weight" in names
    assert "body.14.bias" not in names


@on_all
def test_nothing_of_the_exporting_machine_is_written(any_artifact: Artifact) -> None:
    # torch.onnx notes the source lines and file paths of whoever exports beside each node.
    for file in FILES:
        data = (any_artifact.path / file).read_bytes()
        for trace in (b".py", b"stack_trace", b"forward", b"LockedModule", str(Path.cwd()).encode()):
            assert trace not in data, (file, trace)
    graph = any_artifact.graph()
    assert [entry.key for entry in graph.metadata_props] == [METADATA_KEY]
    assert not any(node.metadata_props or node.doc_string for node in graph.graph.node)


@on_all
def test_the_graph_carries_the_lock_s_public_description(any_artifact: Artifact) -> None:
    (entry,) = any_artifact.graph().metadata_props
    assert entry.key == "keylatch.lock"
    lock = json.loads(entry.value)
    assert entry.value.encode() == canonical_json(lock)
    assert lock == parse_manifest((any_artifact.path / "manifest.json").read_bytes()).lock
    assert CodeLockDescription.from_json(lock) == any_artifact.locked.module.description
    report = any_artifact.locked.report
    assert lock["report"] == {
        "margin": report.margin,
        "multiply_adds": report.multiply_adds,
        "gated_parameters": report.gated_parameters,
        "parameters": report.parameters,
        "means": [layer.means for layer in report.layers],
    }


@on_all
def test_the_manifest_is_canonical_and_its_digests_are_right(any_artifact: Artifact) -> None:
    data = (any_artifact.path / "manifest.json").read_bytes()
    fields = json.loads(data)
    assert canonical_json(fields) == data
    assert sorted(fields["files"]) == ["gate.bin", "model.onnx", "model.onnx.data"]
    for name, entry in fields["files"].items():
        content = (any_artifact.path / name).read_bytes()
        assert entry == {"bytes": len(content), "blake3": blake3(content).hexdigest()}
    assert any_artifact.exported.model_id == hashlib.sha256(data).hexdigest() == model_id_of(data)


@on_all
def test_the_manifest_lists_the_gate_as_it_is_in_the_graph(any_artifact: Artifact) -> None:
    manifest = parse_manifest((any_artifact.path / "manifest.json").read_bytes())
    listed = {tensor.name: (tensor.dtype, tensor.shape) for tensor in manifest.gate}
    assert listed == {name: (value.dtype.name, value.shape) for name, value in any_artifact.gate_values.items()}
    for tensor in any_artifact.graph().graph.initializer:
        if tensor.name in listed:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name
            assert listed.pop(tensor.name) == (dtype, tuple(tensor.dims))
    assert listed == {}


@pytest.mark.parametrize(
    ("any_artifact", "shape", "layout", "dtype", "precision"),
    [("artifact", [3, 32, 32], "NCHW", "float32", "float32"),
     ("half_artifact", [3, 32, 32], "NCHW", "float32", "float16"),
     ("byte_artifact", [32, 32, 3], "NHWC", "uint8", "float32")],
    indirect=["any_artifact"],
)  # fmt: skip
def test_the_manifest_says_what_the_model_takes(
    any_artifact: Artifact, shape: list[int], layout: str, dtype: str, precision: str
) -> None:
    model = parse_manifest((any_artifact.path / "manifest.json").read_bytes()).model
    assert (model["name"], model["precision"]) == ("digits", precision)
    image = model["input"]
    assert (image["name"], image["shape"], image["layout"], image["dtype"]) == (
        "image",
        ["batch", *shape],
        layout,
        dtype,
    )
    assert model["outputs"] == [{"name": "output", "shape": ["batch", 10]}]
    assert model["normalization"] == {"mean": [0.0] * 3, "std": [1.0] * 3}
    (node,) = any_artifact.stock().get_inputs()
    assert (node.name, node.shape) == ("image", ["batch", *shape])
    assert node.type == {"uint8": "tensor(uint8)", "float32": "tensor(float)"}[dtype]


@on_all
def test_the_runtime_reads_the_artifact(any_artifact: Artifact) -> None:
    with read_model_files(any_artifact.path) as files:
        files.finish()
        assert files.model_id == any_artifact.exported.model_id
        assert scan_graph(bytes(files.graph)) is not None


def test_showing_an_export_shows_no_secret_value(artifact: Artifact) -> None:
    shown = repr(artifact.exported)
    assert artifact.exported.model_id[:8] in shown
    assert "array" not in shown
    assert len(shown) < 60 + len(str(artifact.path))


def test_names_of_outputs_are_those_of_the_network(tmp_path: Path) -> None:
    locked = networks.lock(networks.settle(lambda: networks.Returning("dict")))
    made = make_artifact(locked, tmp_path / "two.latch", name="detector")
    assert [node.name for node in made.stock().get_outputs()] == ["boxes", "scores"]
    model = parse_manifest((made.path / "manifest.json").read_bytes()).model
    assert model["name"] == "detector"
    assert model["outputs"] == [{"name": "boxes", "shape": ["batch", 4]}, {"name": "scores", "shape": ["batch", 7]}]


def test_without_a_report_the_artifact_has_no_figures(artifact: Artifact, tmp_path: Path) -> None:
    exported = export(artifact.locked.module, artifact.locked.secret, tmp_path / "plain.latch")
    lock = parse_manifest((exported.path / "manifest.json").read_bytes()).lock
    assert "report" not in lock
    assert exported.model_id != artifact.exported.model_id
