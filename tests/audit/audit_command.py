"""The command line, as its users have it, in this process."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from keylatch.cli import main

IMAGES = ("--images", "images.npy", "--labels", "labels.npy")
OWNER = ("--secret", "digits.secret", "--issuer", "issuer.key")


@dataclass(frozen=True)
class Left:
    """What a command left: exit status, stdout, stderr."""

    status: int
    out: str
    err: str


Audit = Callable[..., Left]


def run_command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: object) -> Left:
    """Run `keylatch audit` with these arguments."""
    capfd.readouterr()
    monkeypatch.setattr(sys, "argv", ["keylatch", "audit", *(str(argument) for argument in arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    status = 0
    try:
        main()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    finally:
        # The command guards its process for good. Here that is pytest's own.
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    captured = capfd.readouterr()
    return Left(status, captured.out, captured.err)


def errors_of(left: Left) -> str:
    """What stderr says, on one line."""
    return " ".join(left.err.split())


def leftovers(folder: Path) -> list[str]:
    """Names of what an audit may have made."""
    return sorted(path.name for path in folder.glob("*.audit"))
