from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_world import LedgerWorld

from keylatch.keys import FileDeviceKey, FileIssuerKey
from keylatch.keys._ledger import Ledger


@pytest.fixture
def book(tmp_path: Path) -> Iterator[LedgerWorld]:
    """A new ledger, open."""
    folder = tmp_path / "issuer"
    folder.mkdir(mode=0o700)
    issuer = FileIssuerKey.generate()
    devices = [FileDeviceKey.generate(tmp_path / f"{name}.key") for name in ("device", "other")]
    with Ledger.create(folder / "issuer.ledger", issuer.public) as ledger:
        yield LedgerWorld(folder, issuer, *devices, ledger)
