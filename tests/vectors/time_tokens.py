"""Time tokens, and the requests that they answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keylatch.keys import canonical_json
from vectors import statements
from vectors.base_originals import DAY, NOW
from vectors.named_keys import device, hybrid, issuer, seed
from vectors.signing import encode, header, sign
from vectors.statements import Headers, Statement
from vectors.vector_file import Vector

TYP = "keylatch-time+jwt"
NONCE = encode(seed("state nonce")).decode()
OLD_NONCE = encode(seed("earlier state nonce")).decode()
OURS = device().public.thumbprint
HEADERS: Headers = (("now", str(NOW)), ("trust", "issuer"), ("device", "device"), ("nonce", NONCE))


def vectors() -> Iterator[Vector]:
    yield from _accepted()
    yield from statements.vectors(Statement("time token", TYP, _payload(), b"", HEADERS, _WRONG))
    yield from _other_requests()
    yield from _clocks()
    yield from _requests()


_WRONG: dict[str, dict[str, tuple[object, str]]] = {
    "cnf": {
        "list": ([OURS], "is a list"),
        "text": ({"jkt": OURS}, "names one device without a list"),
        "none": ({"jkt": []}, "names no device"),
        "two": ({"jkt": sorted([OURS, "A" * 43])}, "names two devices"),
        "short": ({"jkt": ["A" * 42]}, "names a device with 42 characters"),
        "more": ({"jkt": [OURS], "jwk": {}}, "has a second member"),
    },
    "nonce": {
        "short": ("A" * 42, "has 42 characters"),
        "padded": (NONCE + "=", "is padded"),
        "empty": ("", "is empty"),
        "number": (1, "is a number"),
    },
}


def _payload(**changes: Any) -> dict[str, Any]:
    values = {"keylatch": 1, "aud": "keylatch-device", "iss": issuer().public.thumbprint, "iat": NOW}
    return {**values, "cnf": {"jkt": [OURS]}, "nonce": NONCE, **changes}


def _token(name: str, expect: str, comment: str, headers: Headers = HEADERS, **changes: Any) -> Vector:
    data = sign(header(TYP), _payload(**changes))
    return Vector(f"time-token/{name}", expect, "time token", comment, headers, data)


def _accepted() -> Iterator[Vector]:
    yield _token("p256", "success", "answers a P-256 device", (*HEADERS, ("issued_at", str(NOW))))
    headers = (("now", str(NOW)), ("trust", "issuer"), ("device", "hybrid"), ("nonce", NONCE), ("issued_at", str(NOW)))
    theirs = {"jkt": [hybrid().public.thumbprint]}
    yield _token("hybrid", "success", "answers a hybrid device", headers, cnf=theirs)
    comment = "answered a day ago, and the clock is right"
    yield _token("a-day-old", "success", comment, (*HEADERS, ("issued_at", str(NOW - DAY))), iat=NOW - DAY)


def _other_requests() -> Iterator[Vector]:
    other = {"jkt": [device("foreign-device").public.thumbprint]}
    yield _token("device-other", "ClockError", "answers another device", cnf=other)
    yield _token("nonce-other", "ClockError", "answers an earlier request of this device", nonce=OLD_NONCE)


def _clocks() -> Iterator[Vector]:
    """Only a device's state judges these: it knows the clock."""
    state = (*HEADERS, ("way", "state"))
    comment = "the clock stands 301 seconds before the token"
    yield _token("clock-behind", "ClockError", comment, state, iat=NOW + 301)
    comment = "the clock stands a day and a second after the token"
    yield _token("clock-ahead", "ClockError", comment, state, iat=NOW - DAY - 1)


def _requests() -> Iterator[Vector]:
    right = {"keylatch": "time-request/1", "device": OURS, "nonce": NONCE}
    text = canonical_json(right)
    success = (("thumbprint", OURS), ("nonce", NONCE))

    def request(name: str, expect: str, comment: str, data: bytes, *headers: tuple[str, str]) -> Vector:
        return Vector(f"time-request/{name}", expect, "time request", comment, headers, data)

    yield request("p256", "success", "as a device writes it", text + b"\n", *success)
    changes: dict[str, tuple[dict[str, Any], str]] = {
        "version-2": ({"keylatch": "time-request/2"}, "the version is 2"),
        "version-null": ({"keylatch": None}, "the version is null"),
        "version-other": ({"keylatch": "enrollment/1"}, "it is an enrollment's version"),
        "device-short": ({"device": OURS[:-1]}, "device has 42 characters"),
        "device-number": ({"device": 1}, "device is a number"),
        "nonce-long": ({"nonce": NONCE + "A"}, "nonce has 44 characters"),
        "nonce-null": ({"nonce": None}, "nonce is null"),
        "unknown": ({"iat": NOW}, "there is a member iat"),
    }
    for name, (change, comment) in changes.items():
        yield request(name, "FormatError", comment, canonical_json({**right, **change}))
    for member in right:
        rest = {name: value for name, value in right.items() if name != member}
        yield request(f"{member}-missing", "FormatError", f"there is no {member}", canonical_json(rest))
    yield request("nonce-twice", "FormatError", "nonce stands twice", text[:-1] + b',"nonce":"%s"}' % NONCE.encode())
    yield request("too-large", "FormatError", "it has 1,025 bytes", text + b" " * (1025 - len(text)))
    yield request("truncated", "FormatError", "the last brace is missing", text[:-1])
    yield request("list", "FormatError", "it is a list", b"[" + text + b"]")
    yield request("empty", "FormatError", "it is empty", b"")
