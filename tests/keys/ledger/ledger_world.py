"""A ledger in a folder of its own, its issuer's key, two devices, and short ways to use them."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from license_world import DAY, MODEL_ID, SECRET

from keylatch.keys import FileDeviceKey, FileIssuerKey, License, current_time, read_claims_unverified
from keylatch.keys._ledger import KnownDevice, Ledger, LicensedModel, LicenseTerms, issue_and_record

OTHER_MODEL_ID = "3f9b" * 16
SECRET_VALUES = {"gate.patch": np.frombuffer(SECRET, np.uint8)}


@dataclass
class LedgerWorld:
    folder: Path
    issuer: FileIssuerKey
    device: FileDeviceKey
    other_device: FileDeviceKey
    ledger: Ledger
    now: int = field(default_factory=current_time)

    @property
    def path(self) -> Path:
        return self.ledger.path

    def issue(self, *devices: Any, model: str = "resnet50", days: int = 30, start: int = 0, **changes: Any) -> License:
        model_id = changes.pop("model_id", MODEL_ID)
        options = {name: changes.pop(name) for name in ("cosigner", "issuer", "ledger") if name in changes}
        terms = {"customer": "ACME Vision", "not_before": self.now + start, "expires_at": self.now + days * DAY}
        return issue_and_record(
            **{"ledger": self.ledger, "issuer": self.issuer, **options},
            model=LicensedModel(model_id=model_id, name=model, secret_values=SECRET_VALUES),
            devices=[KnownDevice(key.public) for key in devices or (self.device,)],
            terms=LicenseTerms(**{**terms, **changes}),
        )

    def issue_id(self, *devices: Any, **changes: Any) -> str:
        return read_claims_unverified(self.issue(*devices, **changes)).license_id


def rows(path: Path, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """What SQLite itself finds in a ledger, not through the code under test."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute(statement, values).fetchall()


def change(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(statement)
        db.commit()


@contextlib.contextmanager
def mounted(*arguments: str, at: Path) -> Iterator[None]:
    """Something mounted at a folder; skips where that is not allowed."""
    done = subprocess.run(["mount", *arguments, str(at)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not possible here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that nothing can be written in: by its mode, or for root, whom no mode stops, by a mount."""
    if os.geteuid():
        folder.chmod(0o500)
        try:
            yield
        finally:
            folder.chmod(0o700)
        return
    with mounted("--bind", str(folder), at=folder):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield


def payload(license: License) -> dict[str, Any]:
    return json.loads(json.dumps(read_claims_unverified(license).to_payload()))
