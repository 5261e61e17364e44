"""A small locked model that the audit tests share; nobody writes into it."""

from __future__ import annotations

import shutil
from pathlib import Path

import audit_command
import audit_world
import pytest
from audit_world import Shipped

import networks
from keylatch.audit import _clock


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    folder = tmp_path_factory.mktemp("shipped")
    digits = networks.trained_digits()
    # A code of 64 bits, what a patch this small has by default, would be a break in itself.
    locked = networks.lock(digits.network, layers=["6", "9", "14"], code_bits=160)
    return audit_world.ship(locked, digits, folder)


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> audit_world.FakeTime:
    clock = audit_world.FakeTime()
    monkeypatch.setattr(_clock, "time", clock)
    return clock


@pytest.fixture
def folder(shipped: Shipped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what was shipped, and the current directory."""
    copy = tmp_path / "work"
    shutil.copytree(shipped.folder, copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> audit_command.Audit:
    return lambda *arguments: audit_command.run_command(monkeypatch, capfd, *arguments)
