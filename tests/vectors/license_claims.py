"""A license's claims, each really signed: missing, null, of another type, out of range, twice; and unknown ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from keylatch.keys import canonical_json
from vectors.base_originals import DAY, NOW, VALUES, base
from vectors.named_keys import device, issuer
from vectors.signing import header, license_vector, payload_of, reissue, sign
from vectors.value_headers import value_headers
from vectors.vector_file import Vector

DIGEST = "0123456789abcdef" * 4
OURS = device().public.thumbprint

# Claim to what it may not be; each with what is wrong about it.
WRONG: dict[str, dict[str, tuple[object, str]]] = {
    "iss": {"number": (1, "is a number"), "empty": ("", "is empty"), "short": ("A" * 42, "has 42 characters")},
    "sub": {
        "number": (1, "is a number"),
        "empty": ("", "is empty"),
        "long": ("x" * 201, "has 201 characters"),
        "newline": ("ACME\nVision", "holds a newline"),
        "escape": ("\x1b[2JACME", "holds a terminal's escape"),
        "override": ("ACME\u202enoisiV", "turns the direction of writing"),
        "surrogate": ("ACME\ud800", "holds half a character"),
        "list": (["ACME Vision"], "is a list"),
    },
    "jti": {
        "number": (1, "is a number"),
        "upper-case": ("6F1B5C1A-2B1D-4C6E-9B57-3F6D0D1B2A4C", "is in upper case"),
        "version-1": ("6f1b5c1a-2b1d-11ee-9b57-3f6d0d1b2a4c", "is a UUID of version 1"),
        "without-dashes": ("6f1b5c1a2b1d4c6e9b573f6d0d1b2a4c", "has no dashes"),
        "braces": ("{6f1b5c1a-2b1d-4c6e-9b57-3f6d0d1b2a4c}", "stands in braces"),
        "urn": ("urn:uuid:6f1b5c1a-2b1d-4c6e-9b57-3f6d0d1b2a4c", "is a URN"),
        "other-variant": ("6f1b5c1a-2b1d-4c6e-cb57-3f6d0d1b2a4c", "is of another variant than RFC 9562's"),
    },
    "seq": {
        "0": (0, "is 0"),
        "negative": (-1, "is negative"),
        "2-53": (2**53, "is 2^53"),
        "20-digits": (10**19, "has 20 digits"),
        "text": ("7", "is text"),
        "true": (True, "is true"),
        "fraction": (7.0, "has a fraction"),
    },
    "cnf": {
        "list": ([OURS], "is a list"),
        "empty": ({"jkt": []}, "names no device"),
        "text": ({"jkt": OURS}, "names one device without a list"),
        "device-twice": ({"jkt": [OURS, OURS]}, "names a device twice"),
        "unsorted": ({"jkt": sorted([OURS, "A" * 43], reverse=True)}, "is not sorted"),
        "number": ({"jkt": [OURS, 1]}, "names a number"),
        "short": ({"jkt": ["A" * 42, OURS]}, "names a device with 42 characters"),
        "1025": ({"jkt": sorted([OURS, *(f"{n:043d}" for n in range(1024))])}, "names 1,025 devices"),
        "extra": ({"jkt": [OURS], "jwk": {}}, "has a second member"),
        "jwk": ({"jwk": device().public.to_jwk()}, "holds a key, not its thumbprint"),
    },
    "keylatch": {"0": (0, "is 0"), "2": (2, "is 2"), "text": ("1", "is text"), "true": (True, "is true")},
    "max_list_age": {
        "negative": (-1, "is negative"),
        "text": ("60", "is text"),
        "true": (True, "is true"),
        "eleven-years": (11 * 366 * DAY, "is eleven years"),
    },
    "cosignature_sha256": {"none-text": ("None", "is the text None, and there is no cosignature")},
}
TIMES: dict[str, tuple[object, str]] = {
    "fraction": (NOW + 0.5, "has a fraction"),
    "text": (str(NOW), "is text"),
    "true": (True, "is true"),
    "negative": (-1, "is negative"),
    "year-10000": (253_402_300_800, "lies in the year 10000"),
    "exponent": (b"4.1e9", "has an exponent"),
}
DIGESTS: dict[str, tuple[object, str]] = {
    "upper-case": (DIGEST.upper(), "is in upper case"),
    "short": (DIGEST[1:], "has 63 digits"),
    "number": (1, "is a number"),
    "newline": (DIGEST + "\n", "ends in a newline"),
}
REQUIRED = (
    "iss",
    "sub",
    "aud",
    "iat",
    "nbf",
    "exp",
    "jti",
    "seq",
    "cnf",
    "keylatch",
    "model_id",
    "jwe_sha256",
    "blob_sha256",
)
OPTIONAL = ("max_list_age", "cosignature_sha256")


def vectors() -> Iterator[Vector]:
    for claim in REQUIRED:
        expect = "SignatureError" if claim == "aud" else "FormatError"
        yield _vector(f"{claim}-missing", expect, f"there is no {claim}", reissue(base("p256"), without=claim).jwt)
    for claim in REQUIRED + OPTIONAL:
        expect = "SignatureError" if claim == "aud" else "FormatError"
        yield _changed(claim, "null", None, "is null", expect)
        # "cosignature_sha256" once is a failure of its own, and has its own vectors.
        yield _twice(claim)
    for claim in ("iat", "nbf", "exp"):
        for name, (value, what) in TIMES.items():
            yield _changed(claim, name, value, what)
    for claim in ("model_id", "jwe_sha256", "blob_sha256"):
        for name, (value, what) in DIGESTS.items():
            yield _changed(claim, name, value, what)
    for claim, wrongs in WRONG.items():
        for name, (value, what) in wrongs.items():
            yield _changed(claim, name, value, what)
    yield from _audiences()
    yield from _together()
    yield from _documents()
    yield from _edges()


def _vector(name: str, expect: str, comment: str, jwt: bytes, *given: tuple[str, str]) -> Vector:
    return license_vector(f"claims-{name}", expect, comment, replace(base("p256"), jwt=jwt), *given)


def _changed(claim: str, name: str, value: object, what: str, expect: str = "FormatError") -> Vector:
    payload = {**payload_of(base("p256")), claim: "HERE" if isinstance(value, bytes) else value}
    text = json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()
    if isinstance(value, bytes):  # JSON that Python would not write
        text = text.replace(b'"HERE"', value)
    return _vector(f"{claim}-{name}", expect, f"{claim} {what}", sign(header(), text))


def _twice(claim: str) -> Vector:
    payload = {"max_list_age": DAY, "cosignature_sha256": DIGEST, **payload_of(base("p256"))}
    payload = {name: value for name, value in payload.items() if name not in OPTIONAL or name == claim}
    text = canonical_json(payload)
    again = text[:-1] + b',"%s":%s}' % (claim.encode(), canonical_json(payload[claim]))
    return _vector(f"{claim}-twice", "FormatError", f"{claim} stands twice with the same value", sign(header(), again))


def _audiences() -> Iterator[Vector]:
    for name, audience in {
        "other": "keylatch-device",
        "list": ["keylatch-runtime"],
        "upper-case": "KEYLATCH-RUNTIME",
    }.items():
        jwt = reissue(base("p256"), aud=audience).jwt
        yield _vector(f"aud-{name}", "SignatureError", f"aud is {json.dumps(audience)}", jwt)
    payload = {**payload_of(base("p256")), "iss": issuer("foreign-issuer").public.thumbprint}
    yield _vector("iss-other", "SignatureError", "iss is another issuer than signed", sign(header(), payload))


def _together() -> Iterator[Vector]:
    jwt = reissue(base("p256"), iat=NOW - DAY, nbf=NOW + DAY, exp=NOW + DAY).jwt
    yield _vector("exp-at-nbf", "FormatError", "exp is nbf", jwt)
    jwt = reissue(base("p256"), iat=NOW + DAY, nbf=NOW - DAY, exp=NOW + DAY).jwt
    yield _vector("exp-at-iat", "FormatError", "exp is iat", jwt)
    jwt = reissue(base("p256"), nbf=NOW + 2 * DAY).jwt
    yield _vector("exp-before-nbf", "FormatError", "exp is before nbf", jwt)
    jwt = reissue(base("p256"), admin=True).jwt
    yield _vector("unknown", "FormatError", "there is a claim admin", jwt)
    jwt = reissue(base("p256"), Exp=NOW).jwt
    yield _vector("unknown-case", "FormatError", "there is a claim Exp beside exp", jwt)


def _documents() -> Iterator[Vector]:
    text = canonical_json(payload_of(base("p256")))
    documents = {
        "list": (b"[" + text + b"]", "the claims are a list"),
        "text": (canonical_json(text.decode()), "the claims are a text that holds them"),
        "empty": (b"", "the claims are empty"),
        "empty-object": (b"{}", "the claims are an empty object"),
        "null": (b"null", "the claims are null"),
        "truncated": (text[:-1], "the claims lack their last brace"),
        "trailing": (text + b"{}", "a second object follows the claims"),
        "byte-order-mark": (b"\xef\xbb\xbf" + text, "a byte order mark stands before the claims"),
        "utf-16": (text.decode().encode("utf-16"), "the claims are in UTF-16"),
        "not-utf8": (text.replace(b"ACME", b"AC\xffE"), "the claims are not UTF-8"),
        "nan": (text[:-1] + b',"x":NaN}', "a claim is NaN"),
        "infinity": (text[:-1] + b',"x":-Infinity}', "a claim is -Infinity"),
        "comment": (text[:-1] + b"/**/}", "the claims hold a comment"),
        "single-quotes": (text.replace(b'"', b"'"), "the claims are in single quotes"),
        "deep": (text[:-1] + b',"x":' + b"[" * 9 + b"]" * 9 + b"}", "a claim is nine levels deep"),
        "very-deep": (text[:-1] + b',"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "a claim is 20,000 levels deep"),
        "control-character": (text.replace(b"ACME ", b"ACME\t"), "a text holds a raw tab"),
    }
    for name, (data, comment) in documents.items():
        yield _vector(f"document-{name}", "FormatError", comment, sign(header(), data))


def _edges() -> Iterator[Vector]:
    """The last values that each rule allows."""
    success = value_headers(VALUES)
    edges: dict[str, tuple[dict[str, Any], str]] = {
        "seq-1": ({"seq": 1}, "seq is 1"),
        "seq-largest": ({"seq": 2**53 - 1}, "seq is 2^53 - 1"),
        "exp-largest": ({"exp": 253_402_300_799}, "exp is the last second of the year 9999"),
        "exp-next": ({"exp": NOW + 1}, "exp is the next second"),
        "nbf-now": ({"nbf": NOW}, "nbf is now"),
        "times-0": ({"iat": 0, "nbf": 0}, "iat and nbf are 0"),
        "sub-longest": ({"sub": "x" * 200}, "sub has 200 characters"),
        "sub-beyond-ascii": ({"sub": "Ångström 株式会社 🦾"}, "sub holds characters of two, three and four bytes"),
        "cnf-1024": ({"cnf": {"jkt": sorted([OURS, *(f"{n:043d}" for n in range(1023))])}}, "cnf names 1,024 devices"),
    }
    for name, (claims, comment) in edges.items():
        yield _vector(name, "success", comment, reissue(base("p256"), **claims).jwt, *success)
