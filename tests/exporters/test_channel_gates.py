"""Artifacts of networks with permuted feature maps: keyed, they run the plain network's nodes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from artifacts import Artifact, external_location, make_artifact
from test_block_gates import optimized

import networks
from keylatch.exporters import export_plain
from keylatch.locks import ChannelKey, channel_lock
from keylatch.runtime import InferenceSession

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from dense_scenes import LAYERS, SPEC, Segmenter, scenes

TOLERANCE = 1e-2  # of the output range, for float16; export proves float32 to 1e-4
KEYS = ("body.channel_key_0", "body.channel_key_1")


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return networks.settle(Segmenter)


@pytest.fixture(scope="module", params=["float32", "float16", "bytes"])
def made(
    request: pytest.FixtureRequest, network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    key = ChannelKey.draw(network, LAYERS[::-1], seed=bytes(range(32)))  # in another order than the graph's
    options = {"uint8_input": True} if request.param == "bytes" else {"precision": request.param}
    return make_artifact(channel_lock(network, SPEC, key), tmp_path_factory.mktemp("dense") / "net.latch", **options)


def fed(artifact: Artifact, count: int = 3) -> np.ndarray:
    pixels = scenes(8, 3)[0][:count]
    if artifact.stock().get_inputs()[0].type == "tensor(uint8)":
        return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())
    return networks.prepare(pixels, SPEC).numpy()


def torch_outputs(artifact: Artifact, *, opened: bool, count: int = 3) -> np.ndarray:
    images, module = networks.prepare(scenes(8, 3)[0][:count], SPEC), artifact.locked.module
    if not opened:
        return networks.outputs_of(module, images).numpy()
    with module.opened(artifact.locked.secret):
        return networks.outputs_of(module, images).numpy()


def relative(output: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(output - expected).max() / np.ptp(expected))


def test_a_license_makes_the_runtime_give_the_opened_network(made: Artifact, tmp_path: Path) -> None:
    session = InferenceSession(made.path, **made.new_credentials(tmp_path))
    expected = torch_outputs(made, opened=True)
    for batch in (3, 1):
        (keyed,) = session.run(None, {"image": fed(made, batch)})
        assert relative(keyed, expected[:batch]) <= TOLERANCE
    locked = torch_outputs(made, opened=False)
    assert relative(made.run(fed(made)), locked) <= TOLERANCE
    assert relative(locked, expected) > 0.05


def test_gate_tensors_lie_in_a_file_of_their_own(made: Artifact) -> None:
    tensors = {tensor.name: tensor for tensor in made.graph().graph.initializer}
    for name in KEYS:
        assert external_location(tensors[name]) == "gate.bin"
        assert list(tensors[name].dims) == [32]
        assert tensors[name].data_type == onnx.TensorProto.INT64
    assert set(made.gate_values) == set(KEYS)


def test_a_keyed_session_has_exactly_the_operators_of_a_plain_one(network: torch.nn.Module, tmp_path: Path) -> None:
    key = ChannelKey.draw(network, LAYERS, seed=bytes(32))
    artifact = make_artifact(channel_lock(network, SPEC, key), tmp_path / "net.latch")
    plain = optimized(export_plain(network, SPEC, tmp_path / "plain"), {})
    assert optimized(artifact.path / "model.onnx", artifact.gate_values) == plain


def test_the_key_is_not_in_the_files(made: Artifact) -> None:
    stored = b"".join(path.read_bytes() for path in made.path.iterdir())
    for key in made.locked.secret.channels.permutations:
        assert key.numpy().tobytes() not in stored
