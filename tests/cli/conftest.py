"""One small model, taken through the real commands once; every test works on a copy."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from cli_world import NETWORK, Command, Outcome, must, run_main


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["keylatch", *(str(argument) for argument in arguments)])
        try:
            run_main()
            status = 0
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "nets_for_cli.py").write_text(NETWORK)
    np.save(folder / "images.npy", np.random.default_rng(0).random((3, 3, 32, 32), dtype=np.float32))
    with chdir(folder):
        must("issuer", "init")
        must("device", "init")
        must("lock", "nets_for_cli:small", "--input", "3x32x32", "--patch-size", "8", "--issuer", "issuer.key",
             "--out", "net.pt2", "--secret", "net.secret")  # fmt: skip
        must("export", "net.pt2", "--secret", "net.secret", "--issuer", "issuer.key", "--out", "net.latch")
        must("license", "issue", "net.latch", "--secret", "net.secret", "--issuer", "issuer.key", "--to", "device.pub",
             "--customer", "acme", "--days", "30", "--out", "acme.license")  # fmt: skip
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the made files, and the current directory."""
    copy = tmp_path / "work"
    shutil.copytree(made, copy)
    monkeypatch.chdir(copy)
    yield copy
    sys.modules.pop("nets_for_cli", None)
