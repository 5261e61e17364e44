"""Editors of diffusers: ours compute what its pipelines compute, and refuse what they cannot."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_editors
from keylatch.errors import LockError
from keylatch.locks import EditSettings, load_editor, sample_images
from keylatch.locks._model_lock._editor import Edit, EditTensors
from keylatch.locks._model_lock._latent_edits import region_mask

diffusers = tiny_editors.diffusers
EULER = tiny_editors.EULER
PIXELS = sample_images(2, 3, tiny_editors.SIDE, tiny_editors.SIDE).float() / 255
TEXT, IMAGE = 3.5, 1.5
SAMPLERS = {
    "euler-ancestral": lambda: diffusers.EulerAncestralDiscreteScheduler(**EULER),
    "euler": lambda: diffusers.EulerDiscreteScheduler(
        **EULER, timestep_spacing="trailing", prediction_type="v_prediction"
    ),
    "ddim": lambda: diffusers.DDIMScheduler(**EULER, clip_sample=False),
    "lcm": lambda: diffusers.LCMScheduler(**EULER),
}


@pytest.fixture(autouse=True)
def _their_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def scalar(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1), value)


def tensors(editor: Any, edit: Edit, prompt: str = "neon", seed: int = 5, swapped: bool = False) -> EditTensors:
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randn(1, *edit.noise_shape, generator=generator) for _ in edit.noise_scales]
    if swapped:
        draws[0], draws[1] = draws[1], draws[0]
    noise = tuple(draw * scale for draw, scale in zip(draws, edit.noise_scales, strict=True))
    return EditTensors(editor.embed(prompt), noise, scalar(TEXT), scalar(IMAGE))


@pytest.mark.parametrize(
    ("kind", "sampler", "strength", "guided"),
    [
        ("instruct", "euler-ancestral", 1.0, True),
        ("instruct", "ddim", 1.0, True),
        ("image-to-image", "euler-ancestral", 0.75, True),
        ("image-to-image", "lcm", 0.75, True),
        ("image-to-image", "euler", 0.5, False),
        ("inpaint", "euler-ancestral", 1.0, True),
        ("inpaint", "ddim", 1.0, True),
    ],
)
def test_an_edit_is_what_the_pipeline_computes(
    tmp_path: Path, kind: str, sampler: str, strength: float, guided: bool
) -> None:
    pipeline = tiny_editors.saved(tmp_path / "editor", kind, SAMPLERS[sampler]())
    editor = load_editor(tmp_path / "editor")
    edit = editor.edit(tiny_editors.SIDE, tiny_editors.SIDE, EditSettings(4, strength, guided))
    options: dict[str, Any] = {"guidance_scale": TEXT if guided else 1.0}
    if kind == "instruct":
        options["image_guidance_scale"] = IMAGE
    else:
        options["strength"] = strength
    if kind == "inpaint":
        options["mask_image"] = region_mask("background", tiny_editors.SIDE, tiny_editors.SIDE)
        options |= {"height": tiny_editors.SIDE, "width": tiny_editors.SIDE}
    with torch.no_grad():
        ours = edit(PIXELS[:1], tensors(editor, edit, swapped=kind == "inpaint"))  # it draws the posterior's noise last
        theirs = pipeline(
            prompt="neon", image=PIXELS[:1], num_inference_steps=4, output_type="pt",
            generator=torch.Generator().manual_seed(5), **options,
        ).images  # fmt: skip
        other = edit(PIXELS[:1], tensors(editor, edit, seed=6))
    assert float((ours - theirs).abs().max()) < 1e-4
    assert float((ours - other).abs().max()) > 1e-3  # so the figure above says something
    assert 0 <= float(ours.min()) <= float(ours.max()) <= 1


def test_a_batch_is_edited_as_its_images_are(tmp_path: Path) -> None:
    tiny_editors.saved(tmp_path / "editor")
    editor = load_editor(tmp_path / "editor")
    edit = editor.edit(32, 32, EditSettings(2))
    key = tensors(editor, edit)
    with torch.no_grad():
        together = edit(PIXELS, key)
        alone = torch.cat([edit(image[None], key) for image in PIXELS])
    assert float((together - alone).abs().max()) < 1e-5


def test_the_digest_is_of_the_weights(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        tiny_editors.saved(tmp_path / name, seed=seed)
    one, same, other = (load_editor(tmp_path / name).digest for name in ("one", "same", "other"))
    assert one == same != other
    assert len(one) == 64


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda: diffusers.PNDMScheduler(**EULER, skip_prk_steps=True),
        lambda: diffusers.DPMSolverMultistepScheduler(beta_start=0.00085, beta_end=0.012),
        lambda: diffusers.DDIMScheduler(**EULER, clip_sample=True),
    ],
)
def test_a_sampler_that_is_no_table_is_refused(tmp_path: Path, scheduler: Any) -> None:
    tiny_editors.saved(tmp_path / "editor", scheduler=scheduler())
    editor = load_editor(tmp_path / "editor")
    with pytest.raises(LockError, match="cannot be unrolled"):
        editor.edit(32, 32, EditSettings(4))


def test_a_size_that_the_editor_cannot_take_is_refused(tmp_path: Path) -> None:
    tiny_editors.saved(tmp_path / "editor")
    with pytest.raises(LockError, match="multiples of 2, these have 33 x 32") as refused:
        load_editor(tmp_path / "editor").edit(33, 32, EditSettings())
    assert "32 x 32" in str(refused.value.hint)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(tmp_path: Path, part: str) -> None:
    tiny_editors.saved(tmp_path / "editor")
    shutil.rmtree(tmp_path / "editor" / part)
    with pytest.raises(LockError, match=f"has no {part}"):
        load_editor(tmp_path / "editor")


def test_missing_weights_are_an_error(tmp_path: Path) -> None:
    tiny_editors.saved(tmp_path / "editor")
    next((tmp_path / "editor" / "unet").glob("*.safetensors")).unlink()
    with pytest.raises(LockError, match="does not load"):
        load_editor(tmp_path / "editor")


def test_an_editor_of_another_kind_is_refused(tmp_path: Path) -> None:
    tiny_editors.saved(tmp_path / "editor", "instruct")
    with pytest.raises(LockError, match="takes 8 channels, inpaint needs 9"):
        load_editor(tmp_path / "editor", kind="inpaint")


@pytest.mark.parametrize("package", ["diffusers", "transformers"])
def test_without_the_libraries_the_install_command_is_named(tmp_path: Path, package: str) -> None:
    for part in ("model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        (tmp_path / part).mkdir()
    code = f"""
import sys
sys.modules[{package!r}] = None
from keylatch.locks import load_editor
try:
    load_editor({str(tmp_path)!r})
except ImportError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"needs {package}" in said
    assert "pip install 'keylatch[diffusion]'" in said


def test_locking_imports_no_diffusion_library() -> None:
    code = "import sys, keylatch.locks; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"diffusers", "transformers"} & set(loaded)
