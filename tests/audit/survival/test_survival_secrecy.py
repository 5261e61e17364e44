"""Nothing secret is written down while survival is measured, nor put into a graph."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from survival_world import World

from keylatch.audit._clock import Clock
from keylatch.audit.survival import SurvivalRow, measure_survival, survival_changes

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
_watching: list[list[tuple[str, bytes]]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    """Note files that are opened for writing, and keep those that are removed or renamed."""
    if not _watching:
        return
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
        _watching[-1].append((str(arguments[0]), b""))
    elif event in {"os.remove", "os.rename", "shutil.rmtree"}:
        place = Path(os.fsdecode(arguments[0]))
        files = [place] if place.is_file() else [one for one in place.rglob("*") if one.is_file()]
        _watching[-1].extend((str(one), one.read_bytes()) for one in files)


sys.addaudithook(_hook)  # cannot be taken out again; it does nothing unless somebody is watching


@contextmanager
def watched() -> Iterator[list[tuple[str, bytes]]]:
    seen: list[tuple[str, bytes]] = []
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.pop()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place for temporary files, and the working directory."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spellings(world: World) -> dict[str, bytes]:
    """The secret values as bytes, in every float width; masks are hardly secret and short of pattern."""
    values = {name: value for name, value in world.owner.values.items() if value.dtype.kind == "f"}
    widths = (np.float16, np.float32, np.float64)
    return {
        f"{name} {width.__name__}": value.astype(width).tobytes() for name, value in values.items() for width in widths
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def test_no_secret_is_written_and_nothing_is_left(world: World, place: Path) -> None:
    before = contents(world.target.path)
    with watched() as seen:
        measure_survival(world.target, world.owner, world.images, Clock())
    left = contents(place)
    for name, secret in spellings(world).items():
        assert [file for file, data in (*seen, *left.items()) if secret in data] == [], name
    # onnxruntime's dynamic quantizer writes the locked graph to a temporary file and reads it again.
    written = {file for file, _ in seen if not file.isdecimal() and "__pycache__" not in file}  # decimal: descriptors
    assert {file for file in written if not file.startswith(str(place))} <= {os.devnull}
    assert any("ort.quant." in file and data for file, data in seen)
    assert left == {}
    assert contents(world.target.path) == before


def test_the_watch_sees_files_that_come_and_go(world: World, place: Path) -> None:
    secret = world.owner.values["gate.patch"].tobytes()
    with watched() as seen, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "leak").write_bytes(b"before" + secret)
    assert any(secret in data for _, data in seen)
    assert secret in spellings(world).values()


def test_graphs_hold_locked_defaults_and_sessions_save_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[bytes, Any]] = []
    real = onnxruntime.InferenceSession

    def record(graph: Any, options: Any, **more: Any) -> Any:
        opened.append((graph if isinstance(graph, bytes) else Path(graph).read_bytes(), options))
        return real(graph, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", record)
    measure_survival(world.target, world.owner, world.images, Clock())
    assert len(opened) >= 2 * (len(survival_changes()) - 1)  # all but bfloat16, keyed and locked
    for graph, options in opened:
        assert [name for name, secret in spellings(world).items() if secret in graph] == []
        assert options.optimized_model_filepath == ""
        assert not options.enable_profiling


def test_rows_tell_nothing_secret(rows: list[SurvivalRow], world: World) -> None:
    told = repr(rows).encode()
    assert [name for name, secret in spellings(world).items() if secret in told or secret.hex().encode() in told] == []
