"""Artifacts in bfloat16: what they hold, and how they are proved where nothing runs them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from artifacts import Artifact, make_artifact
from bfloat16_graphs import ANYWHERE, BFLOAT16, ON_CUDA, open_twin, typed_nodes
from torch import nn

import networks
from keylatch.errors import ExportError, ProofError, SessionOptionError
from keylatch.exporters import _bfloat16_proof, _export, export_plain
from keylatch.locks import seal_lock
from keylatch.runtime import InferenceSession, known_answer_input, wrong_answers

CHANCE = 0.25
CUDA = "CUDAExecutionProvider"


@pytest.fixture(scope="module")
def narrow(locked_digits: networks.Locked, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_artifact(locked_digits, tmp_path_factory.mktemp("narrow") / "digits.latch", precision="bfloat16")


@pytest.fixture(scope="module")
def sealed_parts(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Parts of weights withheld, bytes for input, all weights encrypted, and normalizations that the lock left."""
    locked = seal_lock(networks.settle(networks.PaddedConvs), networks.SPEC, share=0.05)
    path = tmp_path_factory.mktemp("sealed") / "parts.latch"
    return make_artifact(locked, path, precision="bfloat16", uint8_input=True, sealed_weights=True)


def in_bfloat16(module: Any) -> Any:
    return copy.deepcopy(module).bfloat16()


def test_weights_are_bfloat16_and_gate_tensors_float32(artifact: Artifact, narrow: Artifact) -> None:
    tensors = {tensor.name: tensor.data_type for tensor in narrow.graph().graph.initializer}
    assert {kind for name, kind in tensors.items() if name.endswith("weight")} == {BFLOAT16}
    gate = json.loads((narrow.path / "manifest.json").read_bytes())["gate"]
    assert {entry["name"] for entry in gate} == set(narrow.gate_values)
    assert {entry["dtype"] for entry in gate} == {"float32", "bool"}
    weights = sum(np.prod(t.dims) * 4 for t in artifact.graph().graph.initializer if t.name.endswith("weight"))
    narrow_bytes, bytes_ = ((each.path / "model.onnx.data").stat().st_size for each in (narrow, artifact))
    assert bytes_ - narrow_bytes == pytest.approx(weights / 2, rel=0.1)
    assert json.loads((narrow.path / "manifest.json").read_bytes())["model"]["precision"] == "bfloat16"


def test_images_and_outputs_stay_float32(narrow: Artifact) -> None:
    graph = narrow.graph().graph
    types = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert types == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize("fixture", ["narrow", "sealed_parts"])
def test_every_operator_on_bfloat16_has_a_kernel(request: pytest.FixtureRequest, fixture: str) -> None:
    nodes = typed_nodes(request.getfixturevalue(fixture).path / "model.onnx")
    narrow_nodes = [(node.op_type, folded) for node, types, folded in nodes if BFLOAT16 in types]
    assert {op for op, folded in narrow_nodes if not folded} <= ON_CUDA | ANYWHERE
    assert {op for op, folded in narrow_nodes if folded} <= ANYWHERE  # folded on the CPU, which has no arithmetic
    assert ("Conv", False) in narrow_nodes


def test_the_network_keeps_its_answers_in_bfloat16(narrow: Artifact, digits: networks.Digits, tmp_path: Path) -> None:
    keyed, _ = open_twin(narrow.path, tmp_path / "keyed", narrow.gate_values, rounded=True)
    locked, _ = open_twin(narrow.path, tmp_path / "locked", {}, rounded=True)
    answers = {
        name: torch.from_numpy(session.run(None, {"image": digits.images.numpy()})[0])
        for name, session in (("keyed", keyed), ("locked", locked))
    }
    assert digits.agreement(answers["keyed"].argmax(1)) == pytest.approx(digits.accuracy(digits.network), abs=0.01)
    assert digits.agreement(answers["locked"].argmax(1)) <= CHANCE
    exact = networks.outputs_of(digits.network, digits.images)
    assert 1e-4 < networks.relative_error(answers["keyed"], exact) < 0.03  # it really rounds


def test_the_proof_says_what_ran_the_artifact_as_it_is(narrow: Artifact, artifact: Artifact) -> None:
    proof = narrow.exported.proof
    ran_on = CUDA if CUDA in onnxruntime.get_available_providers() else ""
    assert (proof.ran_on, artifact.exported.proof.ran_on) == (ran_on, "CPUExecutionProvider")
    assert proof.keyed_error <= 1e-5 and proof.locked_error <= 1e-5  # the graph and its constants
    assert 1e-4 < proof.rounding_error < 0.05
    assert artifact.exported.proof.rounding_error == 0


def test_pytorch_in_bfloat16_passes_the_known_answer_with_the_key_alone(narrow: Artifact) -> None:
    question = narrow.exported.secret_values
    image = torch.from_numpy(known_answer_input(question, networks.SPEC.shape, "float32"))
    module = in_bfloat16(narrow.locked.module)
    locked = networks.outputs_of(module, image).float().numpy()
    with module.opened(narrow.locked.secret):
        keyed = networks.outputs_of(module, image).float().numpy()
    assert wrong_answers(question, keyed) == 0
    assert wrong_answers(question, locked) > 0


def test_a_keyed_session_has_exactly_the_operators_of_a_plain_one(
    narrow: Artifact, digits: networks.Digits, tmp_path: Path
) -> None:
    plain = export_plain(digits.network, networks.SPEC, tmp_path / "plain", precision="bfloat16")
    session, operators = open_twin(plain.parent, tmp_path / "plain twin", {})
    keyed, left = open_twin(narrow.path, tmp_path / "keyed twin", narrow.gate_values)
    assert left == operators
    shown = {"image": digits.images[:5].numpy()}
    assert np.abs(keyed.run(None, shown)[0] - session.run(None, shown)[0]).max() < 0.2
    assert {t.data_type for t in onnx.load(plain).graph.initializer if t.name.endswith("weight")} == {BFLOAT16}


def test_parts_of_weights_are_put_into_a_bfloat16_weight(sealed_parts: Artifact) -> None:
    values = {name: value for name, value in sealed_parts.gate_values.items() if name.startswith("withheld_")}
    assert {value.dtype.name for value in values.values()} == {"float32"}
    rounded = {name: torch.from_numpy(value).bfloat16().float().numpy() for name, value in values.items()}
    for name, value in values.items():
        np.testing.assert_array_equal(value, rounded[name])
    scattered = [types for node, types, _ in typed_nodes(sealed_parts.path / "model.onnx") if "Scatter" in node.op_type]
    assert scattered and all(BFLOAT16 in types for types in scattered)
    assert sealed_parts.exported.proof.keyed_error <= 1e-5
    assert (sealed_parts.path / "weights.sealed").exists()


class Pools(nn.Sequential):
    """Pooling and clipping, which have no bfloat16 kernels, with borders and rounding up."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU6(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(64, 64, 3), nn.Hardtanh(-0.5, 2.0),
            nn.MaxPool2d((2, 3), (2, 1), (0, 1), ceil_mode=True), nn.MaxPool2d(2, 1, dilation=2, padding=1),
            nn.Upsample(scale_factor=2), nn.Flatten(), nn.LazyLinear(10),
        )  # fmt: skip
        self(torch.zeros(1, 3, 32, 32))


def test_pooling_and_clipping_are_written_in_operators_that_have_kernels(tmp_path: Path) -> None:
    network = networks.settle(Pools)
    plain = export_plain(network, networks.SPEC, tmp_path / "plain", precision="bfloat16")
    nodes = typed_nodes(plain)
    assert {node.op_type for node, types, _ in nodes if BFLOAT16 in types} <= ON_CUDA | ANYWHERE
    operators = [node.op_type for node, _, _ in nodes]
    assert operators.count("MaxPool") == 1 and operators.count("Max") >= 6  # the dilated one is computed in float32
    session, _ = open_twin(plain.parent, tmp_path / "twin", {})
    shown = networks.prepare(networks.pixels(4), networks.SPEC)
    expected = networks.outputs_of(in_bfloat16(network).float(), shown)
    output = torch.from_numpy(session.run(None, {"image": shown.numpy()})[0])
    assert networks.relative_error(output, expected) < 1e-4


def test_an_altered_weight_fails_the_proof(
    locked_digits: networks.Locked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_graph = _export.write_graph

    def altered(model: Any, folder: Path, **names: Any) -> None:
        write_graph(model, folder, **names)
        weights = [value for name, value in model.graph.initializers.items() if name.endswith("weight")]
        data = bytearray((folder / "model.onnx.data").read_bytes())
        data[weights[-1].const_value.offset + 1] ^= 0x80  # the sign of one weight of the last layer
        (folder / "model.onnx.data").write_bytes(data)

    monkeypatch.setattr(_export, "write_graph", altered)
    with pytest.raises(ProofError, match="output differs from PyTorch"):
        make_artifact(locked_digits, tmp_path / "m.latch", precision="bfloat16")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_bfloat16_moves_too_far_is_refused(
    locked_digits: networks.Locked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_bfloat16_proof, "LARGEST_ROUNDING", 1e-6)
    with pytest.raises(ProofError, match=r"bfloat16 moves outputs by \d.\de-0\d of their range") as refused:
        make_artifact(locked_digits, tmp_path / "m.latch", precision="bfloat16")
    assert "float16" in str(refused.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_an_older_operator_set_is_refused(locked_digits: networks.Locked, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="opset 20 has no convolutions in bfloat16, expected 22 or newer"):
        make_artifact(locked_digits, tmp_path / "m.latch", precision="bfloat16", opset=20)


def test_on_a_cpu_it_does_not_open_and_says_why(narrow: Artifact) -> None:
    with pytest.raises(SessionOptionError, match=r"the model computes in bfloat16, for which .* CPU") as refused:
        InferenceSession.locked(narrow.path, providers=["CPUExecutionProvider"])
    assert "list CUDAExecutionProvider" in str(refused.value.hint)
