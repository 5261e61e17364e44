"""A JWE's recipients: the device's entry, and the key agreement of either kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from keylatch.keys import canonical_json
from vectors.base_originals import VALUES, base
from vectors.content_keys import p384_key
from vectors.jwe_edits import HYBRID_DEVICE, Edit, drop, edited, edited_hybrid, jwe_vector, on_bytes, put
from vectors.named_keys import device
from vectors.signing import decode, encode, flip, license_vector, reissue, with_parts
from vectors.value_headers import value_headers
from vectors.vector_file import Vector


def vectors() -> Iterator[Vector]:
    yield from _accepted()
    yield from _lists()
    yield from _p256_headers()
    yield from _hybrid_headers()
    yield from _agreements()


def _accepted() -> Iterator[Vector]:
    success = value_headers(VALUES)
    yield license_vector("hybrid", "success", "one hybrid device", base("hybrid"), HYBRID_DEVICE, *success)
    for name in ("device", "second-device", "hybrid"):
        license = reissue(base("mixed"), sub=f"Opened by {name}")
        comment = f"two P-256 devices and a hybrid one, opened by {name}"
        yield license_vector(f"mixed-{name}", "success", comment, license, ("device", name), *success)
    spaced = with_parts(base("p256"), jwe=json.dumps(json.loads(base("p256").jwe), indent=1).encode())
    yield jwe_vector("spaced", "success", "the JWE is JSON with white space, which is as good", spaced, *success)


def _lists() -> Iterator[Vector]:
    refused = "FormatError"
    yield edited("recipients-0", refused, "there is no recipient", put("recipients", to=[]))
    many = put("recipients", to=lambda found: found * 1025)
    yield edited("recipients-1025", refused, "there are 1,025 recipients", many)
    twice = put("recipients", to=lambda found: found * 2)
    yield edited("recipient-twice", refused, "the device is a recipient twice", twice)
    yield edited("recipients-object", refused, "recipients is an object", put("recipients", to=lambda found: found[0]))
    yield edited("recipient-text", refused, "a recipient is a text", put("recipients", to=["device"]))
    other = json.loads(base("mixed").jwe)["recipients"]
    absent = [item for item in other if item["header"]["kid"] == device("second-device").public.thumbprint]
    yield edited(
        "recipient-absent", refused, "the claims name the device, the recipients do not", put("recipients", to=absent)
    )
    yield edited("recipient-without-kid", refused, "the recipient has no kid", drop("recipients", 0, "header", "kid"))
    yield edited("recipient-without-header", refused, "the recipient has no header", drop("recipients", 0, "header"))
    yield edited(
        "recipient-without-key", refused, "the recipient has no encrypted_key", drop("recipients", 0, "encrypted_key")
    )
    yield edited(
        "recipient-more", refused, "the recipient has a third member", put("recipients", 0, "unprotected", to={})
    )


def _p256_headers() -> Iterator[Vector]:
    header = ("recipients", 0, "header")
    second = json.loads(base("p256-second").jwe)["recipients"][0]["header"]
    numbers: dict[str, tuple[Edit, str]] = {
        "alg-hybrid": (put(*header, "alg", to="HPKE-MLKEM768-X25519-KE"), "alg is that of a hybrid device"),
        "alg-direct": (put(*header, "alg", to="ECDH-ES"), "alg is ECDH-ES, without the wrapping"),
        "alg-a128kw": (put(*header, "alg", to="ECDH-ES+A128KW"), "alg is ECDH-ES+A128KW"),
        "alg-dir": (put(*header, "alg", to="dir"), "alg is dir"),
        "alg-missing": (drop(*header, "alg"), "there is no alg"),
        "enc-in-header": (put(*header, "enc", to="A256GCM"), "there is an enc too"),
        "p2c": (put(*header, "p2c", to=2**31), "there is a p2c"),
        "jwk": (put(*header, "jwk", to=device().public.to_jwk()), "there is a jwk"),
        "ek": (put(*header, "ek", to="AAAA"), "there is an ek too"),
        "apu-other": (put(*header, "apu", to="AAAA"), "apu is another issuer's"),
        "apu-missing": (drop(*header, "apu"), "there is no apu"),
        "apv-other": (put(*header, "apv", to=second["apv"]), "apv is another license's"),
        "apv-missing": (drop(*header, "apv"), "there is no apv"),
        "epk-missing": (drop(*header, "epk"), "there is no epk"),
        "epk-null": (put(*header, "epk", to=None), "epk is null"),
        "epk-text": (put(*header, "epk", to="AAAA"), "epk is a text"),
        "epk-private": (put(*header, "epk", "d", to="AAAA"), "epk holds a private key"),
        "epk-kid": (put(*header, "epk", "kid", to="x"), "epk has a kid"),
        "epk-without-y": (drop(*header, "epk", "y"), "epk has no y"),
        "epk-number": (put(*header, "epk", "y", to=1), "epk's y is a number"),
        "epk-okp": (put(*header, "epk", "kty", to="OKP"), "epk is of type OKP"),
    }
    for name, (edit, what) in numbers.items():
        yield edited(name, "FormatError", f"in the recipient's header {what}", edit)


def _agreements() -> Iterator[Vector]:
    """From the key agreement on there is one error."""
    epk, refused = ("recipients", 0, "header", "epk"), "IntegrityError"
    off_curve = put(*epk, "y", to=on_bytes(flip))
    yield edited("epk-off-curve", refused, "epk is no point of the curve", off_curve)
    zero = encode(bytes(32)).decode()
    yield edited("epk-zero", refused, "epk is 0, 0", put(*epk, to=lambda key: {**key, "x": zero, "y": zero}))
    yield edited("epk-p384", refused, "epk is a point of P-384, and says so", put(*epk, to=p384_key()))
    named = put(*epk, "crv", to="P-384")
    yield edited("epk-named-p384", refused, "epk is a point of P-256 that says P-384", named)
    yield edited(
        "epk-named-p256",
        refused,
        "epk is a point of P-384 that says P-256",
        put(*epk, to={**p384_key(), "crv": "P-256"}),
    )
    yield edited("epk-unknown-curve", refused, "epk is on an unknown curve", put(*epk, "crv", to="P-257"))
    yield edited(
        "epk-other", refused, "epk is another point of the curve", put(*epk, to=_without_kid(device("second-device")))
    )
    yield edited("epk-own", refused, "epk is the device's own key", put(*epk, to=_without_kid(device())))
    yield edited("epk-padded", refused, "epk's x is padded", put(*epk, "x", to=lambda text: text + "="))
    wrapped = ("recipients", 0, "encrypted_key")
    changes: dict[str, tuple[Any, str]] = {
        "flipped": (on_bytes(flip), "last bit is flipped"),
        "first-bit": (on_bytes(lambda data: flip(data, 0)), "first bit is flipped"),
        "truncated": (on_bytes(lambda data: data[:-8]), "last eight bytes are missing"),
        "longer": (on_bytes(lambda data: data + bytes(8)), "end has eight bytes more"),
        "empty": ("", "content is empty"),
    }
    for name, (change, what) in changes.items():
        yield edited(f"encrypted-key-{name}", refused, f"encrypted_key's {what}", put(*wrapped, to=change))
        yield edited_hybrid(f"encrypted-key-{name}", refused, f"encrypted_key's {what}", put(*wrapped, to=change))
    second = json.loads(base("p256-second").jwe)["recipients"][0]
    first = json.loads(base("p256").jwe)["recipients"][0]["header"]
    moved = {**second, "header": {**second["header"], "apv": first["apv"]}}
    yield edited(
        "wrapped-for-another",
        refused,
        "the recipient is another license's, with this one's apv",
        put("recipients", 0, to=moved),
    )
    jwe = json.loads(base("p256-second").jwe)
    jwe["recipients"] = [moved]
    whole = with_parts(base("p256"), jwe=canonical_json(jwe), blob=base("p256-second").blob)
    yield jwe_vector("moved-for-another", refused, "JWE and blob are another license's, with this one's apv", whole)


def _hybrid_headers() -> Iterator[Vector]:
    header, refused = ("recipients", 0, "header"), "FormatError"
    second = json.loads(base("hybrid-second").jwe)["recipients"][0]
    p256 = json.loads(base("p256").jwe)["recipients"][0]["header"]
    exchanged = put(*header, "alg", to="ECDH-ES+A256KW")
    yield edited_hybrid("alg-p256", refused, "alg is that of a P-256 device", exchanged)
    draft = put(*header, "alg", to="HPKE-10-KE")
    yield edited_hybrid("alg-draft", refused, "alg is the draft's name for another suite", draft)
    yield edited_hybrid("ek-missing", refused, "there is no ek", drop(*header, "ek"))
    yield edited_hybrid("ek-null", refused, "ek is null", put(*header, "ek", to=None))
    yield edited_hybrid("epk", refused, "there is an epk too", put(*header, "epk", to=p256["epk"]))
    yield edited_hybrid(
        "apv-other", refused, "apv is another license's", put(*header, "apv", to=second["header"]["apv"])
    )
    yield edited_hybrid("psk-id", refused, "there is a psk_id", put(*header, "psk_id", to="AAAA"))
    ek, refused = (*header, "ek"), "IntegrityError"
    yield edited_hybrid("ek-last-bit", refused, "ek's last bit is flipped: X25519's part", put(*ek, to=on_bytes(flip)))
    first = put(*ek, to=on_bytes(lambda data: flip(data, 0)))
    yield edited_hybrid("ek-first-bit", refused, "ek's first bit is flipped: ML-KEM's part", first)
    yield edited_hybrid(
        "ek-truncated", refused, "ek lacks its last byte", put(*ek, to=on_bytes(lambda data: data[:-1]))
    )
    yield edited_hybrid("ek-longer", refused, "ek has a byte more", put(*ek, to=on_bytes(lambda data: data + b"\0")))
    yield edited_hybrid("ek-empty", refused, "ek is empty", put(*ek, to=""))
    yield edited_hybrid("ek-padded", refused, "ek is padded", put(*ek, to=lambda text: text + "=="))
    zero = put(*ek, to=on_bytes(lambda data: data[:-32] + bytes(32)))
    yield edited_hybrid("ek-x25519-zero", refused, "X25519's part of ek is 0, of low order", zero)
    yield edited_hybrid("boundary-moved", refused, "the first byte of encrypted_key is ek's last", _move_boundary)
    apv = json.loads(base("hybrid").jwe)["recipients"][0]["header"]["apv"]
    moved = {**second, "header": {**second["header"], "apv": apv}}
    comment = "the recipient is another license's, with this one's apv"
    yield edited_hybrid("wrapped-for-another", refused, comment, put("recipients", 0, to=moved))


def _move_boundary(jwe: dict[str, Any]) -> None:
    recipient = jwe["recipients"][0]
    ek, sealed = (decode(text.encode()) for text in (recipient["header"]["ek"], recipient["encrypted_key"]))
    recipient["header"]["ek"], recipient["encrypted_key"] = (
        encode(ek + sealed[:1]).decode(),
        encode(sealed[1:]).decode(),
    )


def _without_kid(key: Any) -> dict[str, str]:
    return {name: value for name, value in key.public.to_jwk().items() if name != "kid"}
