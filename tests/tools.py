"""Tools that some tests need beside Python packages: a TPM simulator, an HSM in software, file leases.

Without one, its tests skip and say what is missing; where KEYLATCH_REQUIRE_TOOLS is set, as in CI, they fail instead.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_IN_MEMORY = Path("/dev/shm")
SOFTHSM_MODULES = [
    Path("/usr/lib/softhsm/libsofthsm2.so"),
    Path("/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"),
    Path("/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so"),
    Path("/usr/lib64/pkcs11/libsofthsm2.so"),
]


def require_programs(*programs: str, package: str) -> None:
    """Skip, or fail where tools are required, if a program is not on the path."""
    for program in programs:
        if shutil.which(program) is None:
            _missing(f"{program} is missing; install {package}")


def require_module(module: str, *, extra: str) -> None:
    """Skip, or fail where tools are required, if a Python module is not installed."""
    if importlib.util.find_spec(module) is None:
        _missing(f"{module} is missing; pip install '.[{extra}]'")


@contextmanager
def folder_with_leases(folder: Path) -> Iterator[Path]:
    """The folder, if its file system grants read leases (fcntl(2)), or one in memory; skips, or fails, without both."""
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None) as other:
        granting = next((place for place in (folder, Path(other)) if _grants_leases(place)), None)
        if granting is None:
            _missing(f"neither the file system of {folder} nor {_IN_MEMORY} grants leases; set TMPDIR to one that does")
        else:
            yield granting


def _grants_leases(folder: Path) -> bool:
    made = folder / "leased"
    made.touch()
    try:
        with made.open("rb") as file:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except (AttributeError, OSError):
        return False
    finally:
        made.unlink()
    return True


def softhsm_module() -> Path:
    """Return the SoftHSM2 library, or skip, or fail where tools are required."""
    found = next((path for path in SOFTHSM_MODULES if path.exists()), None)
    if found is None:
        _missing("the SoftHSM2 library is missing; install softhsm2")
    assert found is not None
    return found


def _missing(reason: str) -> None:
    (pytest.fail if os.environ.get("KEYLATCH_REQUIRE_TOOLS") else pytest.skip)(reason)
