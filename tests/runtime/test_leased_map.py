"""A mapped file that nobody can change: whoever wants to write waits until the mapping has a copy of its own."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from runtime_world import LockedModel, same

from keylatch.errors import DigestError
from keylatch.runtime import WEIGHTS_NAME, InferenceSession, _leased_map, _weights_file
from keylatch.runtime._aligned_buffer import Buffer
from keylatch.runtime._leased_map import forget_pages, map_leased

CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 300_001, dtype=np.uint8))  # no whole number of pages


@pytest.fixture
def path(leases: Path) -> Path:
    made = leases / "weights"
    made.write_bytes(CONTENT)
    return made


def mapped(path: Path, size: int = len(CONTENT)) -> Buffer | None:
    with path.open("rb") as file:
        return map_leased(file.fileno(), size)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(len(CONTENT)))


def replace_content(path: Path) -> None:
    path.write_bytes(b"other")


def cut(path: Path) -> None:
    os.truncate(path, 1)


def map_and_write(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
        shared[:5] = b"other"


def write_from_another_process(path: Path) -> None:
    subprocess.run(["sh", "-c", 'printf other > "$1"', "sh", str(path)], check=True)


WRITERS = [overwrite, replace_content, cut, map_and_write, write_from_another_process]


def test_the_mapping_is_the_file_and_cannot_be_written(path: Path) -> None:
    buffer = mapped(path)
    assert buffer is not None and buffer.tobytes() == CONTENT
    assert buffer.dtype == np.uint8 and not buffer.flags.writeable
    assert buffer.ctypes.data % mmap.PAGESIZE == 0


@pytest.mark.parametrize("write", WRITERS)
def test_whoever_changes_the_file_does_not_change_the_mapping(path: Path, write: Callable[[Path], None]) -> None:
    buffers = [mapped(path), mapped(path)]
    write(path)
    assert path.read_bytes() != CONTENT
    assert all(buffer is not None and buffer.tobytes() == CONTENT for buffer in buffers)
    assert (mapped(path, path.stat().st_size) is not None) == (path.stat().st_size > 0)


def test_a_reader_sees_the_same_bytes_while_they_are_replaced(path: Path) -> None:
    buffer = mapped(path)
    assert buffer is not None
    wrong, done = [], threading.Event()

    def read() -> None:
        while not done.is_set():
            wrong.extend([1] if buffer.tobytes() != CONTENT else [])

    reader = threading.Thread(target=read)
    reader.start()
    overwrite(path)
    done.set()
    reader.join()
    assert not wrong


@pytest.mark.parametrize("still_open", [True, False])
def test_what_somebody_could_write_is_not_mapped(path: Path, still_open: bool) -> None:
    with path.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 0)
        if still_open:
            assert mapped(path) is None
    assert mapped(path) is None  # a writable mapping is left
    shared.close()
    assert mapped(path) is not None


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_a_file_of_another_size_is_not_mapped(path: Path, size: int) -> None:
    assert mapped(path, size) is None


def test_a_file_system_without_leases_is_left_to_copying(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(_leased_map.fcntl, "F_SETLEASE")
    assert mapped(path) is None


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """Signals of these kinds that reach the program."""
    came: list[int] = []
    kinds = (signal.SIGIO, signal.SIGURG)
    before = [signal.signal(kind, lambda number, _frame: came.append(number)) for kind in kinds]
    yield came
    for kind, handler in zip(kinds, before, strict=True):
        signal.signal(kind, handler)


def test_the_program_sees_no_signal(path: Path, signals: list[int]) -> None:
    buffer = mapped(path)
    overwrite(path)
    assert buffer is not None and not signals
    os.kill(os.getpid(), signal.SIGURG)  # its own still reach it
    assert signals == [signal.SIGURG]


def test_nothing_stays_behind_when_the_mapping_goes(path: Path) -> None:
    mapped(path)  # from here on the watching thread runs
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    buffer = mapped(path)
    assert str(path) in Path("/proc/self/maps").read_text()
    del buffer
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert str(path) not in Path("/proc/self/maps").read_text()


def resident_bytes(path: Path) -> int:
    """Of the mapping of a file (proc(5), smaps)."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    assert any(str(path) in line for line in lines)
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Rss:"))


def test_forgotten_pages_are_not_resident_and_are_read_again(path: Path) -> None:
    buffer = mapped(path)
    assert buffer is not None and buffer.tobytes() == CONTENT
    assert resident_bytes(path) >= len(CONTENT)
    forget_pages(buffer)
    assert resident_bytes(path) == 0
    assert buffer.tobytes() == CONTENT
    overwrite(path)
    forget_pages(buffer)  # there is a copy in their place
    assert buffer.tobytes() == CONTENT


_FORK = """
import os, pathlib, sys, warnings
from keylatch.runtime._leased_map import map_leased
warnings.simplefilter("ignore")
path = pathlib.Path(sys.argv[1])
content = path.read_bytes()
def mapped():
    with path.open("rb") as file:
        return map_leased(file.fileno(), len(content))
buffer = mapped()
child = os.fork()
if child == 0:
    path.write_bytes(bytes(len(content)))
    kept = buffer.tobytes() == content
    path.write_bytes(content)
    other = mapped()  # the child watches its own
    path.write_bytes(b"other")
    os._exit(0 if kept and other.tobytes() == content else 1)
assert os.waitpid(child, 0)[1] == 0, "the child's bytes"
assert buffer.tobytes() == content, "the parent's bytes"
assert path.read_bytes() == b"other"
"""


def test_a_forked_child_and_its_parent_keep_their_bytes(path: Path) -> None:
    subprocess.run([sys.executable, "-c", _FORK, str(path)], check=True, timeout=40)


@pytest.mark.parametrize("write", WRITERS)
def test_a_session_answers_as_before_when_its_weights_are_overwritten(
    leased: LockedModel, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(_weights_file, "_SMALL_BYTES", 0)
    weights = leased.path / WEIGHTS_NAME
    session = leased.open()
    assert str(weights) in Path("/proc/self/maps").read_text()
    write(weights)
    assert same(session.run(None, leased.feed())[0], leased.keyed)
    with pytest.raises(DigestError):
        InferenceSession(leased.path, **leased.credentials())
