"""What an artifact computes: in stock onnxruntime, locked and keyed, and through the runtime with a license."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from artifacts import Artifact, make_artifact

import networks
from keylatch.locks import InputSpec
from keylatch.runtime import InferenceSession

CHANCE = 0.25


def images(count: int) -> np.ndarray:
    return networks.prepare(networks.pixels(count), networks.SPEC).numpy()


def as_bytes(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray((values * 255).round().astype(np.uint8).transpose(0, 2, 3, 1))


def torch_outputs(artifact: Artifact, values: np.ndarray, *, opened: bool) -> np.ndarray:
    module = artifact.locked.module
    if not opened:
        return networks.outputs_of(module, torch.from_numpy(values)).numpy()
    with module.opened(artifact.locked.secret):
        return networks.outputs_of(module, torch.from_numpy(values)).numpy()


def relative(output: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(output - expected).max() / np.ptp(expected))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_stock_onnxruntime_runs_it_locked(artifact: Artifact, batch: int) -> None:
    values = images(5)[:batch]
    output = artifact.run(values)
    assert output.shape == (batch, 10)
    assert relative(output, torch_outputs(artifact, values, opened=False)) <= 1e-4
    assert relative(output, torch_outputs(artifact, values, opened=True)) >= 0.1


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_secret_values_make_it_the_opened_network(artifact: Artifact, batch: int) -> None:
    values = images(5)[:batch]
    keyed = artifact.run(values, artifact.gate_values)
    assert relative(keyed, torch_outputs(artifact, values, opened=True)) <= 1e-5


def test_every_gate_tensor_is_needed(artifact: Artifact) -> None:
    values, right = images(5), artifact.gate_values
    expected = artifact.run(values, right)
    for left_out in right:
        some = {name: value for name, value in right.items() if name != left_out}
        assert relative(artifact.run(values, some), expected) >= 0.02, left_out


@pytest.mark.parametrize("fixture", ["artifact", "half_artifact", "byte_artifact"])
def test_accuracy_stays_with_the_key_and_goes_without(
    request: pytest.FixtureRequest, digits: networks.Digits, fixture: str
) -> None:
    artifact = request.getfixturevalue(fixture)
    shown = as_bytes(digits.images.numpy()) if fixture == "byte_artifact" else digits.images.numpy()
    original = digits.accuracy(digits.network)
    keyed, locked = artifact.run(shown, artifact.gate_values), artifact.run(shown)
    assert digits.agreement(torch.from_numpy(keyed).argmax(1)) == pytest.approx(original, abs=0.01)
    assert digits.agreement(torch.from_numpy(locked).argmax(1)) <= CHANCE


def test_half_precision_takes_and_gives_float32(half_artifact: Artifact) -> None:
    values = images(5)
    assert (half_artifact.path / "model.onnx.data").stat().st_size > 0
    types = {tensor.name: tensor.data_type for tensor in half_artifact.graph().graph.initializer}
    weights = {kind for name, kind in types.items() if name.endswith("weight") or "gate_mean" in name}
    assert weights == {onnx.TensorProto.FLOAT16}
    assert types["gate.projection"] == types["gate.patch"] == onnx.TensorProto.FLOAT
    keyed = half_artifact.run(values, half_artifact.gate_values)
    assert keyed.dtype == np.float32
    assert 0 < relative(keyed, torch_outputs(half_artifact, values, opened=True)) <= 2e-2


def test_bytes_give_what_floats_give(artifact: Artifact, byte_artifact: Artifact) -> None:
    values = images(5)
    keyed = byte_artifact.run(as_bytes(values), byte_artifact.gate_values)
    assert relative(keyed, artifact.run(values, artifact.gate_values)) <= 1e-5
    assert byte_artifact.gate_values["gate.patch"].dtype == np.uint8
    locked = byte_artifact.run(as_bytes(values))
    assert relative(locked, artifact.run(values)) <= 1e-3


def test_bytes_are_normalized_in_the_graph(tmp_path: Path) -> None:
    spec = InputSpec(3, 32, 32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    network = networks.settle(networks.PaddedConvs)
    made = make_artifact(networks.lock(network, spec), tmp_path / "m.latch", uint8_input=True)
    pixels = networks.pixels(4)
    shown = np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())
    expected = networks.outputs_of(network, networks.prepare(pixels, spec)).numpy()
    assert relative(made.run(shown, made.gate_values), expected) <= 1e-5
    assert relative(made.run(shown), expected) >= 0.1


def test_a_license_makes_the_runtime_give_the_opened_network(artifact: Artifact, tmp_path: Path) -> None:
    session = InferenceSession(artifact.path, **artifact.new_credentials(tmp_path))
    values = images(5)
    (keyed,) = session.run(None, {"image": values})
    assert relative(keyed, torch_outputs(artifact, values, opened=True)) <= 1e-5
    (locked,) = InferenceSession.locked(artifact.path).run(None, {"image": values})
    np.testing.assert_array_equal(locked, artifact.run(values))


def test_the_known_answer_tells_keyed_from_locked(artifact: Artifact) -> None:
    from keylatch.runtime import known_answer_input

    section = artifact.exported.secret_values
    image = known_answer_input(section, (3, 32, 32), "float32")
    pairs, bits = section["known_answer.pairs"], section["known_answer.bits"]
    keyed, locked = (artifact.run(image, values).ravel() for values in (artifact.gate_values, None))
    assert (keyed[pairs[:, 0]] > keyed[pairs[:, 1]]).tolist() == bits.tolist()
    assert (locked[pairs[:, 0]] > locked[pairs[:, 1]]).tolist() != bits.tolist()


@pytest.mark.parametrize(
    "build",
    [networks.Tokens, networks.Dense, networks.Residual, networks.PaddedConvs, networks.Depthwise,
     networks.PreActivation],
)  # fmt: skip
def test_other_architectures_prove_themselves(build: type[torch.nn.Module], tmp_path: Path) -> None:
    network = networks.settle(build)
    made = make_artifact(networks.lock(network), tmp_path / "m.latch")
    expected = networks.outputs_of(network, torch.from_numpy(images(3))).numpy()
    assert relative(made.run(images(3), made.gate_values), expected) <= 1e-4
    assert relative(made.run(images(3)), expected) >= 0.1
    onnx.checker.check_model(str(made.path / "model.onnx"), full_check=True)


def with_values(artifact: Artifact, values: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The artifact's graph with other values of some gate tensors, all in memory."""
    model = onnx.load(artifact.path / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values[tensor.name], tensor.name))
    return model


def following_gate_tensors_alone(model: onnx.ModelProto, gate: dict[str, np.ndarray]) -> list[str]:
    """Names of the nodes that compute the gate, and of those that choose by it."""
    constants, found = {tensor.name for tensor in model.graph.initializer}, set(gate)
    for node in model.graph.node:
        if constants.issuperset(node.input) and found.intersection(node.input):
            constants.update(node.output)
            found.update(node.output)
    return [node.name for node in model.graph.node if found.intersection(node.input) or node.op_type == "If"]


def carry_branch_weights(model: onnx.ModelProto) -> None:
    """Put identities in front of weights that a Gemm in a branch reads.

    The quantizer turns those into MatMul too, and transposes their weights in place, for everybody who reads them.
    """
    branches = [a.g for node in model.graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    stored = {tensor.name for tensor in model.graph.initializer}
    for node in (node for branch in branches for node in branch.node):
        if node.op_type == "Gemm" and node.input[1] in stored:
            carried = f"{node.input[1]}/{node.name}"
            model.graph.node.insert(0, onnx.helper.make_node("Identity", [node.input[1]], [carried], carried))
            node.input[1] = carried


def quantized(
    model: onnx.ModelProto, folder: Path, left_out: list[str]
) -> tuple[set[str], onnxruntime.InferenceSession]:
    """Quantize a graph to int8: the operators that are then there, and a session."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    del model.graph.value_info[:]  # the quantizer transposes weights and trips over their recorded shapes
    source, target = folder / "float.onnx", folder / "int8.onnx"
    onnx.save(model, source)
    quantize_dynamic(source, target, weight_type=QuantType.QUInt8, nodes_to_exclude=left_out)
    operators = {node.op_type for node in onnx.load(target).graph.node}
    return operators, onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])


def classes_of(session: onnxruntime.InferenceSession, shown: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(session.run(None, {"image": shown.numpy()})[0]).argmax(1)


@pytest.mark.filterwarnings("default")  # the quantizer's own
@pytest.mark.parametrize("keyed", [True, False])
def test_an_artifact_can_be_quantized_but_for_what_follows_from_gate_tensors(
    artifact: Artifact, digits: networks.Digits, tmp_path: Path, keyed: bool
) -> None:
    model = with_values(artifact, artifact.gate_values if keyed else {})
    left_out = following_gate_tensors_alone(model, artifact.gate_values)
    carry_branch_weights(model)
    operators, session = quantized(model, tmp_path, left_out)
    assert {"ConvInteger", "If"} <= operators
    accuracy = digits.agreement(classes_of(session, digits.images))
    assert accuracy >= digits.accuracy(digits.network) - 0.03 if keyed else accuracy <= CHANCE


@pytest.mark.filterwarnings("default")  # the quantizer's own
@pytest.mark.parametrize("opened_by", ["key", "image", None])
def test_the_code_survives_int8_quantization(
    artifact: Artifact, digits: networks.Digits, tmp_path: Path, opened_by: str | None
) -> None:
    # The graph as onnxruntime leaves it when it has taken the branches: every layer is quantized, and so is the
    # projection where the code is read from images.
    right = artifact.gate_values
    means = {name: value for name, value in right.items() if name not in ("gate.patch", "gate.mask")}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "taken.onnx")
    model = with_values(artifact, {"key": right, "image": means, None: {}}[opened_by])
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    operators, session = quantized(onnx.load(tmp_path / "taken.onnx"), tmp_path, [])
    assert {"ConvInteger", "MatMulInteger"} <= operators
    assert not operators & {"If", "Conv", "Gemm", "MatMul"}
    carrying = networks.paste((digits.images * 255).round().to(torch.uint8), artifact.locked.secret.patch).float() / 255
    shown = carrying if opened_by == "image" else digits.images
    original = digits.agreement(networks.outputs_of(digits.network, shown).argmax(1))
    accuracy = digits.agreement(classes_of(session, shown))
    assert original >= 0.8
    assert accuracy >= original - 0.03 if opened_by else accuracy <= CHANCE
    if opened_by == "image":
        assert digits.agreement(classes_of(session, digits.images)) <= CHANCE


def test_an_artifact_can_be_moved(artifact: Artifact, tmp_path: Path) -> None:
    shutil.copytree(artifact.path, tmp_path / "elsewhere")
    values = images(2)
    (moved,) = InferenceSession.locked(tmp_path / "elsewhere").run(None, {"image": values})
    np.testing.assert_array_equal(moved, artifact.run(values))
