"""Public keys as JWKs: a device's, P-256 or hybrid, an issuer's, a cosigner's."""

from __future__ import annotations

from typing import Any

from fuzz.attempts import REFUSED, attempt, require
from fuzz.byte_source import ByteSource
from fuzz.harnesses import DECISIONS, Harness
from fuzz.mutations import changed, changed_json
from fuzz.originals import original
from fuzz.token_mutations import unpadded
from keylatch.errors import FormatError
from keylatch.keys import (
    CosignerPublicKey,
    DevicePublicKey,
    HybridPublicKey,
    IssuerPublicKey,
    canonical_json,
    parse_json_object,
)

_KINDS: tuple[type[Any], ...] = (DevicePublicKey, HybridPublicKey, IssuerPublicKey, CosignerPublicKey)
_JWKS = [original(name) for name in ("device.jwk", "hybrid.jwk", "issuer.jwk", "cosigner.jwk", "device.other.jwk")]
_OWN = [parse_json_object(data, "JWK") for data in _JWKS]
_BYTES = {"x": 32, "y": 32, "pub": 1216}


def parse(data: bytes) -> None:
    jwk = attempt(parse_json_object, data, "JWK", errors=FormatError)
    if jwk is not REFUSED:
        _read(jwk)


def parse_changed(data: bytes) -> None:
    source = ByteSource(data)
    edit = source.choose((changed, changed_json, changed_json))
    parse(edit(source, source.choose(_JWKS), source.choose(_JWKS)))


def parse_other_points(data: bytes) -> None:
    """Well-formed members of the right length: what reaches the curve and the lattice."""
    source = ByteSource(data)
    jwk = dict(source.choose(_OWN))
    if source.below(2):
        jwk.pop("kid", None)
    for name in sorted(jwk.keys() & _BYTES.keys()):
        fill = source.choose((b"\0", b"\xff", b"\x01"))
        jwk[name] = unpadded(source.take(_BYTES[name]).ljust(_BYTES[name], fill)).decode()
    _read(jwk)


def _read(jwk: dict[str, Any]) -> None:
    for kind in _KINDS:
        key = attempt(kind.from_jwk, jwk, errors=FormatError)
        if key is not REFUSED:
            own = key.to_jwk()
            require(own == {**jwk, "kid": key.thumbprint} if "kid" in own else own == jwk, "a JWK has two forms")
            require(kind.from_jwk(own).thumbprint == key.thumbprint, "a key's name changes")
            require(parse_json_object(canonical_json(own), "JWK") == own, "a JWK does not round-trip")


HARNESS = Harness(
    attacks=(parse, parse_changed, parse_other_points),
    seeds=(tuple(_JWKS), DECISIONS, DECISIONS),
    words=(b'"kty":"EC"', b'"crv":"P-256"', b'"x"', b'"y"', b'"d"', b'"kid"', b'"pub"', b'"priv"', b'"alg"', b'"OKP"',
           b'"Ed25519"', b'"AKP"', b'"ML-DSA-65"', b'"MLKEM768-X25519"', b"A" * 43, b"_" * 43),
)  # fmt: skip
