"""Whom a device trusts: the issuer's public keys, old and new, and the cosigners it demands; as a file, trust.json.

    {"keylatch": "trust/1", "issuers": [{"jwk": {...}, "until": null}, …], "cosigners": [{"jwk": {...}}, …]}

`until` marks a retired issuer key: the end of the last license that it signed. It then signs nothing else. A trust
file is not signed; it comes to the device the way the first public key did. An issuer's or cosigner's public key in
PEM is a trust file too, of one key.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from keylatch.errors import FormatError, SignatureError
from keylatch.keys._clock import MAX_TIME, format_time
from keylatch.keys._cosignature import CosignerPublicKey
from keylatch.keys._encoding import canonical_json, parse_json_object
from keylatch.keys._files import PUBLIC_MODE, read_public_file, write_file
from keylatch.keys._issuer_key import IssuerPublicKey

MAX_TRUST_BYTES = 256 * 1024
MAX_KEYS = 64
TRUST_VERSION = "trust/1"

_HINT = "get the trust file from the issuer again"


@dataclass(frozen=True, slots=True)
class Trust:
    """Keys that a device pins. All issuer keys are one issuer's: its present key, the next one, retired ones.

    Args:
        issuers: Ed25519 keys; any may have signed a license.
        cosigners: ML-DSA-65 keys; if there are any, every license must carry a signature of one of them.
        until: For a retired issuer key, its thumbprint to the last `exp` that a license of it may have.

    Raises:
        FormatError: More than `MAX_KEYS` keys, or an `until` for a key that is not among them.
    """

    issuers: Sequence[IssuerPublicKey] = ()
    cosigners: Sequence[CosignerPublicKey] = ()
    until: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "issuers", tuple(self.issuers))
        object.__setattr__(self, "cosigners", tuple(self.cosigners))
        object.__setattr__(self, "until", MappingProxyType(dict(self.until)))
        if len(self.issuers) + len(self.cosigners) > MAX_KEYS:
            raise FormatError(f"trust has more than {MAX_KEYS} keys", hint="leave out keys that retired long ago")
        # A key that is meant to retire and is misnamed would go on signing.
        if not self.until.keys() <= {key.thumbprint for key in self.issuers}:
            raise FormatError("trust retires an issuer key that it does not hold", hint="give that key's thumbprint")

    @property
    def active_issuers(self) -> tuple[IssuerPublicKey, ...]:
        """Issuer keys that are not retired: only these sign revocation lists and time tokens."""
        return tuple(issuer for issuer in self.issuers if issuer.thumbprint not in self.until)

    def check_not_retired(self, issuer: IssuerPublicKey, expires_at: int) -> None:
        """Holds a retired key to the licenses that were out when it retired.

        Raises:
            SignatureError: The license outlives them, so the key signed it later.
        """
        until = self.until.get(issuer.thumbprint)
        if until is not None and expires_at > until:
            found = f"license is signed by a retired issuer key and ends after {format_time(until)}, its last license"
            raise SignatureError(found, hint="ask the issuer for a license by its present key")

    @classmethod
    def merge(cls, parts: Iterable[Trust]) -> Self:
        """Returns the keys of several; a key that one of them calls retired is retired."""
        trusts = list(parts)
        issuers = {key.thumbprint: key for trust in trusts for key in trust.issuers}
        cosigners = {key.thumbprint: key for trust in trusts for key in trust.cosigners}
        until: dict[str, int] = {}
        for trust in trusts:
            for thumbprint, end in trust.until.items():
                until[thumbprint] = min(end, until.get(thumbprint, end))
        return cls(tuple(issuers.values()), tuple(cosigners.values()), until)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Reads a trust file, or one public key in PEM.

        Raises:
            FormatError: Neither of the two.
        """
        if data.lstrip()[:1] == b"{":
            return cls._from_json(parse_json_object(data, "trust file"))
        if data.count(b"-----BEGIN") > 1:
            # The PEM reader would take the first and say nothing of the rest, be it a cosigner to demand.
            raise FormatError("file holds several keys in PEM, expected one", hint="give each in a file of its own")
        key = _load_cosigner(data)
        return cls((IssuerPublicKey.from_pem(data),)) if key is None else cls((), (key,))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a trust file, or one public key in PEM.

        Raises:
            FormatError: Missing, too large, or neither of the two.
        """
        return cls.parse(
            read_public_file(Path(path), what="issuer public key or trust file", max_bytes=MAX_TRUST_BYTES)
        )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes a trust file.

        Raises:
            OutputError: The file exists (and `overwrite` is off), or it cannot be written.
        """
        issuers = [{"jwk": key.to_jwk(), "until": self.until.get(key.thumbprint)} for key in self.issuers]
        cosigners = [{"jwk": key.to_jwk()} for key in self.cosigners]
        data = canonical_json({"keylatch": TRUST_VERSION, "issuers": issuers, "cosigners": cosigners}) + b"\n"
        write_file(Path(path), data, what="trust file", mode=PUBLIC_MODE, overwrite=overwrite)

    @classmethod
    def _from_json(cls, value: dict[str, Any]) -> Self:
        if value.get("keylatch") != TRUST_VERSION:
            found = f"trust file has version {value.get('keylatch')!a:.20}, expected {TRUST_VERSION}"
            raise FormatError(found, hint="upgrade keylatch, or get a trust file in this version")
        if set(value) != {"keylatch", "issuers", "cosigners"}:
            raise FormatError("trust file has missing or unknown members", hint=_HINT)
        issuers = [_entry(item, {"jwk", "until"}) for item in _list(value["issuers"])]
        cosigners = [_entry(item, {"jwk"}) for item in _list(value["cosigners"])]
        keys = [IssuerPublicKey.from_jwk(item["jwk"]) for item in issuers]
        if len({key.thumbprint for key in keys}) != len(keys):
            raise FormatError("trust file names an issuer key twice", hint=_HINT)
        ends = [_end(item["until"]) for item in issuers]
        until = {key.thumbprint: end for key, end in zip(keys, ends, strict=True) if end is not None}
        return cls(keys, [CosignerPublicKey.from_jwk(item["jwk"]) for item in cosigners], until)


def _load_cosigner(data: bytes) -> CosignerPublicKey | None:
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        return None  # IssuerPublicKey.from_pem says what is wrong
    return CosignerPublicKey(key) if isinstance(key, MLDSA65PublicKey) else None


def _list(value: object) -> list[object]:
    if not isinstance(value, list) or len(value) > MAX_KEYS:
        raise FormatError(f"trust file does not hold lists of at most {MAX_KEYS} keys", hint=_HINT)
    return value


def _entry(value: object, members: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != members or not isinstance(value["jwk"], dict):
        raise FormatError("trust file has an entry with missing or unknown members", hint=_HINT)
    return value


def _end(value: object) -> int | None:
    # type(), not isinstance(): a JSON true is an int to Python.
    if value is not None and (type(value) is not int or not 0 <= value <= MAX_TIME):
        raise FormatError("trust file has an until that is no time in seconds", hint=_HINT)
    return value
