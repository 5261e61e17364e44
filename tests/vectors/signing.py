"""What an issuer really signed, whatever it says: tokens and licenses that no careful issuer makes."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from keylatch.keys import IssuerKey, License, canonical_json
from vectors.base_originals import NOW
from vectors.named_keys import issuer
from vectors.vector_file import Vector

LICENSE_TYPE = "keylatch-license+jwt"
Payload = Mapping[str, Any] | bytes


def encode(data: bytes) -> bytes:
    """Returns base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def decode(text: bytes) -> bytes:
    """Returns the bytes of base64url without padding."""
    return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))


def header(typ: str = LICENSE_TYPE, *, signer: IssuerKey | None = None) -> dict[str, Any]:
    """Returns the header of a rightly signed token."""
    return {"alg": "Ed25519", "kid": (signer or issuer()).public.thumbprint, "typ": typ}


def sign(head: Payload, payload: Payload, *, signer: IssuerKey | None = None) -> bytes:
    """Returns a compact JWS over a header and a payload, given as values or as bytes."""
    parts = (part if isinstance(part, bytes) else canonical_json(part) for part in (head, payload))
    return sign_text(b".".join(map(encode, parts)), signer=signer)


def sign_text(signed: bytes, *, signer: IssuerKey | None = None) -> bytes:
    """Returns a compact JWS over text that should be two parts in base64url."""
    return signed + b"." + encode((signer or issuer()).sign(signed))


def payload_of(license: License) -> dict[str, Any]:
    """Returns a license's claims."""
    payload: dict[str, Any] = json.loads(decode(license.jwt.partition(b"~")[0].split(b".")[1]))
    return payload


def parts_of(license: License) -> tuple[bytes, bytes, bytes]:
    """Returns the header, payload and signature of a license's token, in base64url."""
    head, payload, signature = license.jwt.partition(b"~")[0].split(b".")
    return head, payload, signature


def reissue(license: License, *, signer: IssuerKey | None = None, without: str = "", **claims: Any) -> License:
    """Returns a license with other claims, really signed; a cosignature goes."""
    payload = {**payload_of(license), "iss": (signer or issuer()).public.thumbprint, **claims}
    payload.pop(without, None)
    if "cosignature_sha256" not in claims:
        payload.pop("cosignature_sha256", None)
    return replace(license, jwt=sign(header(signer=signer), payload, signer=signer))


def with_parts(license: License, **parts: bytes) -> License:
    """Returns a license with another JWE or blob, their digests really signed."""
    changed = replace(license, **parts)
    digests = {f"{name}_sha256": hashlib.sha256(getattr(changed, name)).hexdigest() for name in ("jwe", "blob")}
    return reissue(changed, **digests)


def with_jwe(license: License, edit: Callable[[dict[str, Any]], object]) -> License:
    """Returns a license whose JWE was edited before it was signed."""
    jwe = json.loads(license.jwe)
    edit(jwe)
    return with_parts(license, jwe=canonical_json(jwe))


def flip(data: bytes, bit: int = -1) -> bytes:
    """Returns the data with one bit flipped; by default the last."""
    number = int.from_bytes(data) ^ 1 << ((len(data) * 8 - 1 - bit) % (len(data) * 8))
    return number.to_bytes(len(data))


def judged(
    given: tuple[tuple[str, str], ...] = (), *, trust: tuple[str, ...] = ("issuer",)
) -> tuple[tuple[str, str], ...]:
    """Returns the headers of a license: when and by whom it is judged, and what else is given."""
    names = {name for name, _ in given}
    fixed = [("now", str(NOW)), *(("trust", key) for key in trust), ("device", "device")]
    return tuple(item for item in fixed if item[0] not in names) + given


def license_vector(
    name: str,
    expect: str,
    comment: str,
    body: License | bytes,
    *given: tuple[str, str],
    trust: tuple[str, ...] = ("issuer",),
) -> Vector:
    """Returns a vector that holds a license."""
    data = body.serialize() if isinstance(body, License) else body
    return Vector(f"license/{name}", expect, "license", comment, judged(given, trust=trust), data)
