"""A process that opened a model leaves no secret outside its memory: core dump, command line, environment, log."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from runtime_world import LockedModel
from test_session_secrecy import pieces

from keylatch.keys import FileDeviceKey, write_license

CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
AS_USUAL = "0x33"  # core(5): the kernel's default, with anonymous memory

OPEN_AND_DIE = """
import logging, os, resource, sys
logging.basicConfig(level=logging.DEBUG)
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
import numpy as np
from keylatch.runtime import InferenceSession
model, license, key, trust, dumped = sys.argv[1:]
session = InferenceSession(model, license=license, key=key, trust=trust)
session.run(None, {"image": np.zeros((1, 3, 32, 32), np.float32)})
for shown in ("cmdline", "environ"):
    with open(f"/proc/self/{shown}", "rb") as stream:
        sys.stdout.buffer.write(stream.read())
sys.stdout.flush()
if dumped:
    with open("/proc/self/coredump_filter", "w") as stream:
        stream.write(dumped)
    resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
os.abort()
"""


def secrets_of(model: LockedModel, key: Path) -> set[bytes]:
    private = load_pem_private_key(key.read_bytes(), None).private_numbers().private_value.to_bytes(32, "big")
    return pieces(model.section) | {private, private[::-1], key.read_bytes().splitlines()[1]}


def found(data: bytes, secrets: set[bytes]) -> int:
    return sum(secret in data for secret in secrets)


def die(model: LockedModel, folder: Path, key: Path, dumped: str = "") -> subprocess.CompletedProcess[bytes]:
    write_license(folder / "acme.license", model.license(devices=[FileDeviceKey.load(key).public]))
    model.issuer.public.save(folder / "issuer.pub")
    command = [sys.executable, "-c", OPEN_AND_DIE, str(model.path), "acme.license", str(key), "issuer.pub", dumped]
    done = subprocess.run(command, cwd=folder, env=dict(os.environ), capture_output=True, timeout=120)
    assert done.returncode == -6, done.stderr.decode()
    return done


def core_dump(folder: Path) -> bytes:
    dumps = [path for path in folder.iterdir() if path.name.startswith("core")]
    return b"".join(path.read_bytes() for path in dumps)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    FileDeviceKey.generate(tmp_path / "device.key")
    return tmp_path / "device.key"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    return made


def test_a_process_that_dies_leaves_no_secret(made: LockedModel, key: Path, folder: Path) -> None:
    done, secrets = die(made, folder, key), secrets_of(made, key)
    assert len(secrets) > 50
    assert core_dump(folder) == b""
    assert found(done.stdout + done.stderr, secrets) == 0
    assert b"acme.license" in done.stdout  # the command line and the environment were really read


def test_without_the_guard_its_core_dump_holds_them(made: LockedModel, key: Path, folder: Path) -> None:
    """The control of the test above: the secrets are in memory, and this system writes core files."""
    die(made, folder, key, dumped=AS_USUAL)
    dump = core_dump(folder)
    if not dump:
        pytest.skip(f"this system writes no core files here: {CORE_PATTERN.read_text().strip()}")
    assert found(dump, secrets_of(made, key)) > 50


def test_the_memory_is_out_of_what_a_reporter_gets(made: LockedModel) -> None:
    made.open()
    assert int(Path("/proc/self/coredump_filter").read_text(), 16) == 0
