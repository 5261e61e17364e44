"""One process that issues licenses until it is killed: ledger, then its own log, then the license file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import numpy as np

from keylatch.keys import DevicePublicKey, FileIssuerKey, current_time, read_claims_unverified, write_license
from keylatch.keys._ledger import KnownDevice, Ledger, LicensedModel, LicenseTerms, issue_and_record

SECRET_VALUES = {"gate.patch": np.arange(768, dtype=np.uint8)}


def issue_for_ever(folder: Path, log: Path) -> NoReturn:
    """Issue; append to the log what has returned, and sync it; write the file. In this order, again and again."""
    issuer = FileIssuerKey.load(folder / "issuer.key")
    device = KnownDevice(DevicePublicKey.load(folder / "device.pub"))
    model = LicensedModel(model_id="3f9a" * 16, name="resnet50", secret_values=SECRET_VALUES)
    now = current_time()
    terms = LicenseTerms(customer="ACME Vision", not_before=now, expires_at=now + 86_400)
    record = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with Ledger.open(folder / "issuer.ledger", timeout_seconds=60) as ledger:
        while True:
            license = issue_and_record(ledger, issuer=issuer, model=model, devices=[device], terms=terms)
            claims = read_claims_unverified(license)
            os.write(record, f"{claims.license_id} {claims.seq}\n".encode())
            os.fsync(record)
            write_license(folder / "licenses" / f"{claims.license_id}.license", license)
