"""One issuer, two devices, small licenses, and the means to forge them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keylatch.keys import (
    BUILD_TIME,
    FileDeviceKey,
    IssuerKey,
    License,
    Trust,
    decrypt_license,
    issue_license,
    parse_license,
    read_claims_unverified,
    verify_license,
)
from keylatch.keys._token import sign_claims

NOW = BUILD_TIME + 1_000_000
DAY = 86_400
MODEL_ID = "3f9a" * 16
SECRET = b"\x5a\x11\xc3\x77secret-values\xff\xfe\xfd\xfc"


def unpadded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@dataclass(frozen=True)
class World:
    """Everything a test needs to issue, forge and open."""

    issuer: IssuerKey
    foreign_issuer: IssuerKey
    device: FileDeviceKey
    foreign_device: FileDeviceKey
    device_path: Path

    def issue(self, **changes: Any) -> License:
        arguments: dict[str, Any] = {
            "issuer": self.issuer,
            "devices": [self.device.public],
            "model_id": MODEL_ID,
            "secret_values": {"gate.patch": np.frombuffer(SECRET, np.uint8)},
            "customer": "ACME Vision",
            "not_before": NOW - DAY,
            "expires_at": NOW + DAY,
            "issued_at": NOW - DAY,
        }
        return issue_license(**{**arguments, **changes})

    def open(self, data: bytes, device: Any = None, now: int = NOW) -> dict[str, np.ndarray]:
        license = parse_license(data)
        claims = verify_license(license, Trust([self.issuer.public]), now=now)
        return decrypt_license(license, claims, device or self.device)

    def header(self) -> dict[str, Any]:
        return {"alg": "Ed25519", "typ": "keylatch-license+jwt", "kid": self.issuer.public.thumbprint}

    def payload(self) -> dict[str, Any]:
        return read_claims_unverified(self.issue()).to_payload()

    def sign(self, header: dict[str, Any] | bytes, payload: dict[str, Any] | bytes) -> bytes:
        """A JWT really signed by the issuer, whatever it says."""
        parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
        signed = b".".join(map(unpadded, parts))
        return signed + b"." + unpadded(self.issuer.sign(signed))

    def verify(self, jwt: bytes, now: int = NOW) -> Any:
        return verify_license(replace(self.issue(), jwt=jwt), Trust([self.issuer.public]), now=now)

    def resign(self, license: License, **parts: bytes) -> License:
        """The license with other encrypted parts, their digests signed by the real issuer."""
        changed = replace(license, **parts)
        claims = replace(
            read_claims_unverified(license),
            jwe_sha256=hashlib.sha256(changed.jwe).hexdigest(),
            blob_sha256=hashlib.sha256(changed.blob).hexdigest(),
        )
        return replace(changed, jwt=sign_claims(claims, self.issuer))

    def edit_jwe(self, license: License, edit: Callable[[dict[str, Any]], None]) -> License:
        jwe = json.loads(license.jwe)
        edit(jwe)
        return self.resign(license, jwe=json.dumps(jwe).encode())
