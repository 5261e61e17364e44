"""A network behind an edit: the key opens it, nothing else does, and files keep it."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from edit_world import SEED, SPEC, key_for, locked_network, pixel_editor

import networks
from keylatch.errors import FormatError, LockError, OutputError
from keylatch.locks import (
    EditKey,
    EditSettings,
    InputSpec,
    Locked,
    LockSecret,
    PixelEditor,
    load_editor,
    load_locked,
    model_lock,
    save_locked,
)
from keylatch.locks._model_lock._editor import EditTensors

PIXELS = networks.pixels(4)


def expected(editor: PixelEditor, key: EditKey) -> torch.Tensor:
    """Written out: edit, blend, normalize, run."""
    edit, values = editor.edit(SPEC.height, SPEC.width, key.settings), key.values
    pixels, zero = PIXELS.float() / 255, torch.zeros(1)
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (SPEC.mean, SPEC.std))
    with torch.no_grad():
        edited = edit(
            pixels, EditTensors(values["embedding"], (values["noise_0"],), values.get("text_guidance", zero), zero)
        )
        blended = ((1 - values["blend"]) * pixels + values["blend"] * edited).clamp(0, 1)
        return networks.settle(networks.PaddedConvs)((blended - mean) / std)


@pytest.fixture(scope="module")
def made() -> tuple[Locked, EditKey, PixelEditor]:
    return locked_network()


def images() -> torch.Tensor:
    return networks.prepare(PIXELS, SPEC)


@pytest.mark.parametrize("guided", [True, False])
def test_opened_it_is_the_network_on_edited_images(guided: bool) -> None:
    locked, key, editor = locked_network(settings=EditSettings(2, guided=guided))
    wanted = expected(editor, key)
    with locked.module.opened(locked.secret):
        found = networks.outputs_of(locked.module, images())
    assert torch.allclose(found, wanted, atol=1e-4 * float(wanted.std()) + 1e-5)
    shut = networks.outputs_of(locked.module, images())
    assert float((shut - wanted).abs().max()) > 0.05 * float(wanted.max() - wanted.min())
    assert locked.report.unlocked_error < 1e-3
    assert ("body.edit.text_guidance" in locked.module.gate_names()) is guided


def test_every_gate_tensor_is_read(made: tuple[Locked, EditKey, PixelEditor]) -> None:
    locked, key, _ = made
    with locked.module.opened(locked.secret):
        right = networks.outputs_of(locked.module, images())
        for name, tensor in locked.module.gate_tensors().items():
            kept = tensor.clone()
            tensor.data.mul_(0.5)
            assert not torch.allclose(networks.outputs_of(locked.module, images()), right, atol=1e-6), name
            tensor.data.copy_(kept)
    assert len(locked.module.gate_names()) == len(key.values)


def test_locked_defaults_tell_nothing_of_the_key(made: tuple[Locked, EditKey, PixelEditor]) -> None:
    locked, _, editor = made
    other = model_lock(
        networks.settle(networks.PaddedConvs), SPEC, editor, key_for(editor, "at night", seed=SEED[::-1])
    )
    ours, theirs = locked.module.state_dict(), other.module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert locked.module.describe() == other.module.describe()


def test_another_prompt_and_other_noise_are_other_keys(made: tuple[Locked, EditKey, PixelEditor]) -> None:
    locked, key, editor = made
    with locked.module.opened(locked.secret):
        right = networks.outputs_of(locked.module, images())
    for wrong in (key.with_prompt(editor, "at night"), key_for(editor, seed=SEED[::-1]), key.near(0.25, SEED)):
        with locked.module.opened(LockSecret.of_edit(wrong)):
            assert not torch.allclose(networks.outputs_of(locked.module, images()), right, atol=1e-4)


def test_it_comes_back_from_a_file_and_its_secret_from_a_vault(
    tmp_path: Path, made: tuple[Locked, EditKey, PixelEditor]
) -> None:
    locked, key, _ = made
    save_locked(tmp_path / "net.pt2", locked.module, locked.report)
    module, report = load_locked(tmp_path / "net.pt2")
    arrays = locked.secret.to_arrays()
    secret = LockSecret.from_arrays(arrays)
    assert report == locked.report
    assert module.describe() == locked.module.describe()
    assert secret.edit is not None
    assert (secret.edit.prompt, secret.edit.settings) == (key.prompt, key.settings)
    with locked.module.opened(locked.secret):
        right = networks.outputs_of(locked.module, images())
    with module.opened(secret):
        assert torch.equal(networks.outputs_of(module, images()), right)
    written = (tmp_path / "net.pt2").read_bytes()
    assert b"neon" not in written
    assert key.values["embedding"].numpy().tobytes()[:24] not in written
    assert key.values["noise_0"].numpy().tobytes()[:24] not in written


def test_an_opened_module_is_not_written(tmp_path: Path, made: tuple[Locked, EditKey, PixelEditor]) -> None:
    locked = made[0]
    with locked.module.opened(locked.secret), pytest.raises(LockError, match="is opened"):
        save_locked(tmp_path / "net.pt2", locked.module, locked.report)


def test_a_key_of_another_editor_is_refused(made: tuple[Locked, EditKey, PixelEditor]) -> None:
    locked, key, _ = made
    other = pixel_editor(1)
    with pytest.raises(LockError, match="the key was made with") as refused:
        model_lock(networks.settle(networks.PaddedConvs), SPEC, other, key)
    assert key.digest[:8] in refused.value.message
    with pytest.raises(LockError, match="does not fit"):
        locked.module.secret_values(LockSecret.of_edit(key_for(other)))
    with pytest.raises(LockError, match="does not fit"):
        locked.module.secret_values(LockSecret.of_edit(key_for(made[2], settings=EditSettings(2))))


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        (InputSpec(1, 32, 32), {}, "1 channels"),
        (InputSpec(3, 30, 32), {}, "multiples of 4, these have 30 x 32"),
        (SPEC, {"blend": 0.0}, "blend is 0"),
        (SPEC, {"blend": 1.5}, "blend is 1.5"),
        (SPEC, {"text_guidance": float("nan")}, "guidance"),
    ],
)
def test_a_key_that_cannot_be_is_refused(spec: InputSpec, options: dict[str, float], said: str) -> None:
    with pytest.raises(LockError, match=said):
        key_for(pixel_editor(), spec=spec, **options)


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": 9}, {"strength": 0.0}, {"steps": 2, "strength": 0.4}])
def test_settings_that_leave_no_step_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(LockError, match="step"):
        EditSettings(**options)  # type: ignore[arg-type]


def test_a_key_keeps_silent() -> None:
    key = key_for(pixel_editor())
    assert "neon" not in repr(key)
    assert "neon" not in repr(LockSecret.of_edit(key))
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_a_torn_vault_is_an_error() -> None:
    arrays = LockSecret.of_edit(key_for(pixel_editor())).to_arrays()
    with pytest.raises(FormatError, match="no edit key"):
        LockSecret.from_arrays({**arrays, "edit.facts": np.frombuffer(b"{}", dtype=np.uint8)})


def test_an_editor_comes_back_from_a_folder(tmp_path: Path) -> None:
    editor = pixel_editor()
    editor.save(tmp_path / "editor")
    assert load_editor(tmp_path / "editor").digest == editor.digest != pixel_editor(1).digest
    with pytest.raises(OutputError, match="exists already"):
        editor.save(tmp_path / "editor")
    (tmp_path / "editor" / "editor.safetensors").unlink()
    with pytest.raises(LockError, match="does not load"):
        load_editor(tmp_path / "editor")
    with pytest.raises(LockError, match="no folder"):
        load_editor(tmp_path / "nowhere")


def test_words_have_directions_and_prompts_their_sum() -> None:
    editor = pixel_editor()
    same, other = editor.embed("A NEON sign!"), editor.embed("at night")
    assert torch.equal(editor.embed("a neon sign"), same)
    assert float((same * other).sum()) < 0.5
    assert not editor.embed("").any()
