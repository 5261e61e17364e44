"""trust.json: whom a device trusts."""

from __future__ import annotations

import json

from fuzz.attempts import REFUSED, attempt, require
from fuzz.byte_source import ByteSource
from fuzz.harnesses import DECISIONS, Harness
from fuzz.mutations import changed, changed_json
from fuzz.originals import original
from keylatch.errors import FormatError
from keylatch.keys import Trust, canonical_json

_FILES = [original(name) for name in ("trust.json", "trust.cosigned.json")]
_PEM = original("issuer.pub")


def parse(data: bytes) -> None:
    trust = attempt(Trust.parse, data, errors=FormatError)
    if trust is REFUSED:
        return
    # Nothing between the file and the keys gets lost: an `until`, or a cosigner that a device is to demand.
    again = Trust.parse(_serialized(trust))
    require(again == trust, "trust changes when it is stored and read")
    if data.lstrip().startswith(b"{"):
        require(json.loads(_serialized(trust)) == json.loads(data), "trust is not what its file says")
    require(set(trust.active_issuers) <= set(trust.issuers), "an active issuer is none")


def parse_changed(data: bytes) -> None:
    source = ByteSource(data)
    edit = source.choose((changed, changed_json, changed_json))
    parse(edit(source, source.choose(_FILES), source.choose([*_FILES, _PEM])))


def merge(data: bytes) -> None:
    """Of several files a retired key stays retired, and none gets lost."""
    source = ByteSource(data)
    files = [changed_json(source, file, file) for file in _FILES]
    parts = [
        trust for trust in (attempt(Trust.parse, file, errors=FormatError) for file in files) if trust is not REFUSED
    ]
    merged = attempt(Trust.merge, parts, errors=FormatError)
    if merged is not REFUSED:
        for part in parts:
            require(set(part.until) <= set(merged.until), "a retired issuer came back")
            require({key.thumbprint for key in part.cosigners} <= {key.thumbprint for key in merged.cosigners}, "lost")


def _serialized(trust: Trust) -> bytes:
    """As `Trust.save` writes it."""
    issuers = [{"jwk": key.to_jwk(), "until": trust.until.get(key.thumbprint)} for key in trust.issuers]
    cosigners = [{"jwk": key.to_jwk()} for key in trust.cosigners]
    return canonical_json({"keylatch": "trust/1", "issuers": issuers, "cosigners": cosigners})


HARNESS = Harness(
    attacks=(parse, parse_changed, merge),
    seeds=((*_FILES, _PEM), DECISIONS, DECISIONS),
    words=(
        b'"issuers"',
        b'"cosigners"',
        b'"until"',
        b"null",
        b'"jwk"',
        b'"trust/1"',
        b"-----BEGIN PUBLIC KEY-----",
        b"[]",
    ),
)
