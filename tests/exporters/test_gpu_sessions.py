"""Keyed sessions on a CUDA device, as a server runs them: bound buffers, a captured CUDA graph, every precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from artifacts import Artifact, make_artifact

import networks
from keylatch.exporters import Precision
from keylatch.runtime import InferenceSession, read_manifest

pytestmark = pytest.mark.gpu

DEVICE, PROVIDER = "cuda", "CUDAExecutionProvider"
# Of the output range. CUDA multiplies float32 in TF32, which has float16's ten bits.
TOLERANCE: dict[Precision, float] = {"float32": 0.01, "float16": 0.02, "bfloat16": 0.05}
ANOTHER = 0.1


@pytest.fixture(scope="module", params=list(TOLERANCE))
def artifact(
    request: pytest.FixtureRequest, locked_digits: networks.Locked, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    path = tmp_path_factory.mktemp(request.param) / "digits.latch"
    return make_artifact(locked_digits, path, precision=request.param)


@pytest.mark.parametrize("captured", [False, True])
def test_bound_buffers_on_the_device_get_the_opened_network(
    artifact: Artifact, digits: networks.Digits, tmp_path: Path, captured: bool
) -> None:
    shown = np.ascontiguousarray(digits.images[:8].numpy())
    expected = networks.outputs_of(digits.network, digits.images[:8]).numpy()
    providers = [(PROVIDER, {"enable_cuda_graph": "1"} if captured else {})]
    session = InferenceSession(artifact.path, providers=providers, **artifact.new_credentials(tmp_path))
    assert session.get_providers()[0] == PROVIDER
    binding = session.io_binding()
    binding.bind_ortvalue_input("image", onnxruntime.OrtValue.ortvalue_from_numpy(shown, DEVICE, 0))
    output = onnxruntime.OrtValue.ortvalue_from_shape_and_type(expected.shape, np.float32, DEVICE, 0)
    binding.bind_ortvalue_output("output", output)
    for _ in range(3):  # the first captures
        session.run_with_iobinding(binding)
    assert difference(output.numpy(), expected) <= tolerance_of(artifact)


def test_run_gives_the_opened_network_and_without_a_license_another(
    artifact: Artifact, digits: networks.Digits, tmp_path: Path
) -> None:
    shown = np.ascontiguousarray(digits.images[:8].numpy())
    expected = networks.outputs_of(digits.network, digits.images[:8]).numpy()
    session = InferenceSession(artifact.path, providers=[PROVIDER], **artifact.new_credentials(tmp_path))
    assert difference(session.run(None, {"image": shown})[0], expected) <= tolerance_of(artifact)
    locked = InferenceSession.locked(artifact.path, providers=[PROVIDER])
    assert difference(locked.run(None, {"image": shown})[0], expected) > ANOTHER


def test_bfloat16_is_proved_as_it_is(artifact: Artifact) -> None:
    narrow = read_manifest(artifact.path)[0].model["precision"] == "bfloat16"
    assert artifact.exported.proof.ran_on == (PROVIDER if narrow else "CPUExecutionProvider")


def tolerance_of(artifact: Artifact) -> float:
    return TOLERANCE[read_manifest(artifact.path)[0].model["precision"]]


def difference(output: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(output - expected).max() / np.ptp(expected))
