"""Editing many images: the same in parts, from a cache, after an interruption; and errors that say what to do."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from edit_world import key_for, pixel_editor

import networks
from keylatch.errors import LockError, OutputError
from keylatch.locks import EditSettings, KeyedEdit, edit_images
from keylatch.locks._model_lock._editor import Edit, EditTensors

IMAGES = networks.pixels(70)  # two parts of a cache


class Interrupted(Exception):
    """A power cut."""


def quiet(done: int, total: int) -> None:
    """No bar in a test."""


def interrupt(done: int, total: int) -> None:
    raise Interrupted


@pytest.fixture(scope="module")
def edit() -> KeyedEdit:
    editor = pixel_editor()
    return key_for(editor).keyed(editor)


@pytest.fixture(scope="module")
def edited(edit: KeyedEdit) -> torch.Tensor:
    return edit_images(edit, IMAGES, progress=quiet, device="cpu")


def test_bytes_and_floats_are_edited_alike_whatever_the_batch(edit: KeyedEdit, edited: torch.Tensor) -> None:
    with torch.no_grad():
        wanted = (edit(IMAGES[:3].float() / 255) * 255).round().to(torch.uint8)
    assert edited.shape == IMAGES.shape
    assert int((edited[:3].int() - wanted.int()).abs().max()) <= 1
    floats = edit_images(edit, IMAGES[:5].float() / 255, batch=2, progress=quiet, device="cpu")
    assert int((floats.int() - edited[:5].int()).abs().max()) <= 1
    assert float((edited.int() - IMAGES.int()).abs().float().mean()) > 5


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, edit: KeyedEdit, edited: torch.Tensor) -> None:
    with pytest.raises(Interrupted):
        edit_images(edit, IMAGES, cache=tmp_path / "cache", progress=interrupt, device="cpu")
    (first,) = (tmp_path / "cache").iterdir()
    written = first.stat().st_mtime_ns
    found = edit_images(edit, IMAGES, cache=tmp_path / "cache", progress=quiet, device="cpu")
    assert torch.equal(found, edited)
    assert first.stat().st_mtime_ns == written  # read, not made again
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_torn_part_is_made_again(tmp_path: Path, edit: KeyedEdit, edited: torch.Tensor) -> None:
    edit_images(edit, IMAGES[:3], cache=tmp_path, progress=quiet, device="cpu")
    (part,) = tmp_path.iterdir()
    part.write_bytes(part.read_bytes()[:100])
    found = edit_images(edit, IMAGES[:3], cache=tmp_path, progress=quiet, device="cpu")
    assert int((found.int() - edited[:3].int()).abs().max()) <= 1


def test_another_key_or_other_images_have_other_files(tmp_path: Path, edit: KeyedEdit) -> None:
    editor = pixel_editor()
    edit_images(edit, IMAGES[:2], cache=tmp_path, progress=quiet, device="cpu")
    edit_images(edit, IMAGES[1:3], cache=tmp_path, progress=quiet, device="cpu")
    other = key_for(editor, "at night").keyed(editor)
    edit_images(other, IMAGES[:2], cache=tmp_path, progress=quiet, device="cpu")
    assert len(list(tmp_path.iterdir())) == 3


class Meets(Edit):
    """An edit that goes on only while another one runs."""

    noise_shape, noise_scales, guided = (3, 4, 4), (1.0,), False

    def __init__(self) -> None:
        super().__init__()
        self.unconditional, self.meeting = torch.ones(1, 1, 2), threading.Barrier(2, timeout=60)

    def forward(self, pixels: torch.Tensor, key: EditTensors) -> torch.Tensor:
        self.meeting.wait()
        return 1 - pixels


def test_workers_edit_parts_at_the_same_time_and_in_order(tmp_path: Path) -> None:
    told: list[int] = []
    edit = KeyedEdit(Meets(), "digest", EditSettings())
    found = edit_images(
        edit, IMAGES, batch=64, workers=2, cache=tmp_path, progress=lambda done, _: told.append(done), device="cpu"
    )
    assert told == [64, 70]
    with torch.no_grad():
        blended = IMAGES.float() / 255 * (1 - edit.blend) + (1 - IMAGES.float() / 255) * edit.blend
    assert int((found.int() - (blended * 255).round().int()).abs().max()) <= 1
    assert len(list(tmp_path.iterdir())) == 2


def test_workers_edit_as_one_does(edit: KeyedEdit, edited: torch.Tensor) -> None:
    assert torch.equal(edit_images(edit, IMAGES, workers=3, progress=quiet, device="cpu"), edited)
    with pytest.raises(LockError, match="0 workers"):
        edit_images(edit, IMAGES, workers=0, progress=quiet)


class Greedy(Edit):
    """An edit that wants more memory than there is, for more than one image."""

    noise_shape, noise_scales, guided = (3, 4, 4), (1.0,), False

    def __init__(self) -> None:
        super().__init__()
        self.unconditional = torch.ones(1, 1, 2)

    def forward(self, pixels: torch.Tensor, key: EditTensors) -> torch.Tensor:
        wanted = 2**50 if len(pixels) > 2 else 1
        return pixels * torch.ones(wanted)[0]


def test_a_smaller_batch_is_suggested_where_memory_ends(tmp_path: Path) -> None:
    greedy = KeyedEdit(Greedy(), "digest", EditSettings())
    with pytest.raises(LockError, match="memory does not suffice to edit 4 images") as refused:
        edit_images(greedy, IMAGES, batch=4, cache=tmp_path, progress=quiet, device="cpu")
    assert "batch=2" in str(refused.value.hint)
    assert not list(tmp_path.iterdir())
    assert len(edit_images(greedy, IMAGES[:5], batch=2, cache=tmp_path, progress=quiet, device="cpu")) == 5


def test_gray_images_and_a_cache_that_is_a_file_are_refused(tmp_path: Path, edit: KeyedEdit) -> None:
    with pytest.raises(LockError, match="expected \\(N, 3, H, W\\)"):
        edit_images(edit, IMAGES[:, :1], progress=quiet)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        edit_images(edit, IMAGES[:1], cache=tmp_path / "file", progress=quiet)
