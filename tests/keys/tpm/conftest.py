"""Simulated TPMs, and both ways to speak to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tpm_world import Simulator, location, running

from keylatch.keys._tpm import generate_device_key
from tools import require_module, require_programs


@pytest.fixture(scope="session")
def shared_tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    require_programs("swtpm", package="swtpm")
    with running(tmp_path_factory.mktemp("tpm") / "state") as simulator:
        yield simulator


@pytest.fixture
def tpm(shared_tpm: Simulator) -> Iterator[Simulator]:
    """A TPM that a test leaves as it was; and no test may leave anything in its slots."""
    yield shared_tpm
    assert shared_tpm.held() == []


@pytest.fixture
def own_tpm(tmp_path: Path) -> Iterator[Simulator]:
    """A TPM for a test that changes it."""
    require_programs("swtpm", package="swtpm")
    with running(tmp_path / "tpm-state") as simulator:
        yield simulator
        if simulator.process.poll() is None:
            assert simulator.held() == []


@pytest.fixture(params=["pytss", "esys"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "pytss":
        require_module("tpm2_pytss", extra="tpm")
    # Its package depends on the libraries that both need.
    require_programs("tpm2_getcap", package="tpm2-tools")
    return str(request.param)


@pytest.fixture(scope="session")
def key_file(shared_tpm: Simulator, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a key file of the shared TPM."""
    require_programs("tpm2_getcap", package="tpm2-tools")
    path = tmp_path_factory.mktemp("key") / "device.tpm"
    generate_device_key(location(shared_tpm, "esys", path), None)
    return path.read_bytes()
