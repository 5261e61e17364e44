"""Artifacts of ModelLock: the edit runs inside the graph, by the key that a license brings."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artifacts import Artifact, make_artifact
from torch import nn

import networks
from keylatch.locks import EditKey, EditSettings, InputSpec, PixelEditor, load_editor, model_lock
from keylatch.runtime import InferenceSession, read_manifest

SPEC = InputSpec(3, networks.SIZE, networks.SIZE)
BYTES = 255.0
PIXELS = networks.pixels(3)


class Shows(nn.Module):
    """A network whose output is its input: the edited image itself."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.same.weight.copy_(torch.eye(3).view(3, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.same(x)


def pixel_editor() -> PixelEditor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PixelEditor(16).eval().requires_grad_(False)


def keyed(editor: Any, **options: Any) -> EditKey:
    return EditKey.draw(editor, "as a neon sign", SPEC, **{"seed": bytes(range(32)), **options})


def artifact_of(editor: Any, key: EditKey, path: Path, **options: Any) -> Artifact:
    return make_artifact(model_lock(Shows().eval(), SPEC, editor, key), path / "shown.latch", **options)


def opened(artifact: Artifact) -> np.ndarray:
    with artifact.locked.module.opened(artifact.locked.secret):
        return networks.outputs_of(artifact.locked.module, networks.prepare(PIXELS, SPEC)).numpy()


def licensed(artifact: Artifact, folder: Path) -> InferenceSession:
    return InferenceSession(artifact.path, **artifact.new_credentials(folder))


@pytest.fixture(scope="module")
def editor() -> PixelEditor:
    return pixel_editor()


@pytest.fixture(scope="module")
def guided(editor: PixelEditor, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return artifact_of(editor, keyed(editor, settings=EditSettings(2)), tmp_path_factory.mktemp("guided"))


def assert_edits_as_pytorch_does(artifact: Artifact, folder: Path, fed: np.ndarray) -> None:
    session, expected = licensed(artifact, folder), opened(artifact)
    for batch in (3, 1, 2):
        (found,) = session.run(None, {"image": fed[:batch]})
        assert np.abs(found - expected[:batch]).mean() * BYTES <= 0.01  # required: 2
    (shut,) = artifact.stock().run(None, {"image": fed})
    assert np.abs(shut - expected).max() > 0.05


def test_a_license_makes_the_runtime_edit_as_pytorch_does(guided: Artifact, tmp_path: Path) -> None:
    assert_edits_as_pytorch_does(guided, tmp_path, networks.prepare(PIXELS, SPEC).numpy())


def test_a_license_brings_withheld_weights_beside_the_key(editor: PixelEditor, tmp_path: Path) -> None:
    key, network = keyed(editor, settings=EditSettings(1, guided=False)), networks.settle(networks.PaddedConvs)
    locked = model_lock(network, SPEC, editor, key, sealed_share=0.3, seed=bytes(32))
    artifact = make_artifact(locked, tmp_path / "sealed.latch")
    fed, expected = {"image": networks.prepare(PIXELS, SPEC).numpy()}, opened(artifact)
    (found,) = licensed(artifact, tmp_path).run(None, fed)
    assert np.allclose(found, expected, atol=1e-4 * np.ptp(expected))
    edit = {name: value for name, value in artifact.gate_values.items() if name.startswith("body.edit.")}
    (half,) = artifact.stock(edit).run(None, fed)
    assert np.abs(half - expected).max() > 0.02 * np.ptp(expected)
    assert len(artifact.gate_values) > len(edit)


@pytest.mark.slow
def test_raw_bytes_are_edited_alike(editor: PixelEditor, tmp_path: Path) -> None:
    key = keyed(editor, settings=EditSettings(1, guided=False))
    artifact = artifact_of(editor, key, tmp_path, uint8_input=True)
    assert_edits_as_pytorch_does(artifact, tmp_path, np.ascontiguousarray(PIXELS.permute(0, 2, 3, 1).numpy()))


def test_the_manifest_says_what_is_public(guided: Artifact, editor: PixelEditor) -> None:
    description = read_manifest(guided.path)[0].lock
    assert description["method"] == "model-lock"
    assert description["edit"]["editor_sha256"] == editor.digest
    assert description["edit"]["settings"] == EditSettings(2).to_json()


def test_nothing_of_the_key_is_in_the_files(guided: Artifact) -> None:
    key = guided.locked.secret.edit
    assert key is not None
    written = b"".join(path.read_bytes() for path in guided.path.iterdir())
    assert b"neon" not in written
    for name in ("embedding", "noise_0"):
        assert key.values[name].numpy().tobytes()[:24] not in written
        assert key.values[name].numpy().tobytes() == guided.gate_values[f"body.edit.{name}"].tobytes()
    default = guided.locked.module.get_buffer("body.edit.embedding").numpy().tobytes()
    assert default in (guided.path / "gate.bin").read_bytes()


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        ("instruct", 1),
        pytest.param("instruct", 2, marks=pytest.mark.slow),
        pytest.param("image-to-image", 2, marks=pytest.mark.slow),
        pytest.param("inpaint", 2, marks=pytest.mark.slow),
    ],
)
def test_an_editor_of_diffusers_runs_inside_the_graph(tmp_path: Path, kind: str, steps: int) -> None:
    import tiny_editors

    tiny_editors.saved(tmp_path / "editor", kind)
    editor = load_editor(tmp_path / "editor")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        artifact = artifact_of(editor, keyed(editor, settings=EditSettings(steps)), tmp_path)
    (found,) = licensed(artifact, tmp_path).run(None, {"image": networks.prepare(PIXELS, SPEC).numpy()})
    assert np.abs(found - opened(artifact)).mean() * BYTES <= 0.05  # required: 2
    assert artifact.exported.proof.locked_difference > 0.05
