"""Revocation lists: the statement, and the ids that follow it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from vectors import statements
from vectors.base_originals import DAY, NOW, base
from vectors.named_keys import issuer
from vectors.signing import flip, header, payload_of, sign
from vectors.statements import Headers, Statement
from vectors.vector_file import Vector

KIND, TYP = "revocation list", "keylatch-revocations+jwt"
TRUST: Headers = (("trust", "issuer"),)
IDS = ["0b5fc0a5-8b7d-4f55-9d0a-0d0c1f6f3b11", "e2a9d7c4-15a3-4b0e-8f43-7c1d2b9a6e50"]


def vectors() -> Iterator[Vector]:
    yield from _accepted()
    yield from statements.vectors(_statement(_lines(IDS), _WRONG))
    yield from _ids()
    yield from _signed_ids()
    yield from _remembered()


_WRONG: dict[str, dict[str, tuple[object, str]]] = {
    "seq": {"0": (0, "is 0"), "2-53": (2**53, "is 2^53"), "text": ("5", "is text"), "true": (True, "is true")},
    "max_age": {"negative": (-1, "is negative"), "eleven-years": (11 * 366 * DAY, "is eleven years"),
                "text": ("60", "is text"), "true": (True, "is true")},
    "revoked_sha256": {"upper-case": ("AB" * 32, "is in upper case"), "short": ("ab" * 31, "has 62 digits"),
                       "number": (1, "is a number")},
}  # fmt: skip


def _lines(ids: list[str]) -> bytes:
    return "".join(f"{license_id}\n" for license_id in ids).encode()


def _payload(lines: bytes, **changes: Any) -> dict[str, Any]:
    return {
        "keylatch": 1,
        "aud": "keylatch-runtime",
        "iss": issuer().public.thumbprint,
        "iat": NOW,
        "seq": 5,
        "max_age": DAY,
        "revoked_sha256": hashlib.sha256(lines).hexdigest(),
        **changes,
    }


def _statement(lines: bytes, wrong: Any) -> Statement:
    return Statement(KIND, TYP, _payload(lines), b"\n" + lines, TRUST, wrong)


def _vector(name: str, expect: str, comment: str, data: bytes, *headers: tuple[str, str]) -> Vector:
    return Vector(f"revocation-list/{name}", expect, KIND, comment, TRUST + headers, data)


def _list(ids: list[str], **changes: Any) -> bytes:
    lines = _lines(ids)
    return sign(header(TYP), _payload(lines, **changes)) + b"\n" + lines


def _accepted() -> Iterator[Vector]:
    def accepted(name: str, comment: str, ids: list[str], *more: tuple[str, str], **changes: Any) -> Vector:
        headers = [("seq", str(changes.get("seq", 5))), *(("revoked", license_id) for license_id in ids), *more]
        return _vector(name, "success", comment, _list(ids, **changes), *headers)

    second = payload_of(base("p256-second"))["jti"]
    ids = sorted([IDS[0], second])
    yield accepted("two-ids", "two ids, one that of a license here", ids)
    comment = "signed half an hour ago, with the same license's id"
    yield accepted("half-an-hour-old", comment, [second], seq=4, iat=NOW - 1800)
    yield accepted("none", "no id", [])
    yield accepted("many", "60 ids", [f"{n:08x}-0000-4000-8000-000000000000" for n in range(60)])
    yield accepted("max-age-0", "max_age is 0", [IDS[1]], max_age=0)
    yield accepted("ten-years", "max_age is ten years of 366 days", [IDS[0]], max_age=10 * 366 * DAY)
    yield accepted("largest-seq", "seq is 2^53 - 1", [IDS[0]], seq=2**53 - 1)
    remembered = (("now", str(NOW)), ("device", "device"), ("high_water", str(NOW)), ("seen_list_seq", "3"))
    yield accepted("newer-than-seen", "the device has seen list 3, and this is list 4", IDS, *remembered, seq=4)


def _ids() -> Iterator[Vector]:
    """The ids were changed after signing."""
    token, _, lines = _list(IDS).partition(b"\n")
    changes = {
        "id-removed": (_lines(IDS[:1]), "the second id is gone"),
        "ids-removed": (b"", "all ids are gone"),
        "id-added": (_lines([*IDS, "f" * 8 + "-0000-4000-8000-" + "0" * 12]), "a third id was added"),
        "id-flipped": (flip(lines, 8 * 3), "a bit of the first id is flipped"),
        "id-exchanged": (_lines([IDS[0], "e2a9d7c4-15a3-4b0e-8f43-7c1d2b9a6e51"]), "the second id is another one"),
        "ids-reversed": (_lines(IDS[::-1]), "the ids stand in reverse"),
        "last-newline": (lines[:-1], "the last newline is gone"),
        "trailing-newline": (lines + b"\n", "a newline was added"),
        "carriage-returns": (lines.replace(b"\n", b"\r\n"), "the lines end as on Windows"),
    }
    for name, (edited, comment) in changes.items():
        yield _vector(name, "SignatureError", comment, token + b"\n" + edited)
    yield _vector("token-alone", "FormatError", "the newline after the token is gone", _list([]).rstrip(b"\n"))
    yield _vector("ids-alone", "SignatureError", "the token is gone", lines)
    yield _vector(
        "carriage-return-after-token", "SignatureError", "the token's line ends as on Windows", token + b"\r\n" + lines
    )


def _signed_ids() -> Iterator[Vector]:
    """The issuer signed these lines."""
    documents = {
        "unsorted": (_lines(IDS[::-1]), "the ids are not sorted"),
        "twice": (_lines(IDS[:1] * 2), "an id stands twice"),
        "upper-case": (_lines([IDS[0].upper()]), "an id is in upper case"),
        "version-1": (_lines(["0b5fc0a5-8b7d-1f55-9d0a-0d0c1f6f3b11"]), "an id is a UUID of version 1"),
        "other-variant": (_lines(["0b5fc0a5-8b7d-4f55-cd0a-0d0c1f6f3b11"]), "an id is of another variant"),
        "without-newline": (_lines(IDS)[:-1], "the last line has no newline"),
        "windows": (_lines(IDS).replace(b"\n", b"\r\n"), "the lines end as on Windows"),
        "blank-line": (_lines([IDS[0], "", IDS[1]]), "there is a blank line"),
        "space": (_lines([IDS[0] + " "]), "a space follows an id"),
        "comment": (_lines(["# revoked", *IDS]), "there is a comment"),
        "byte-order-mark": (b"\xef\xbb\xbf" + _lines(IDS), "a byte order mark stands before the ids"),
        "null": (b"\0", "the ids are a null byte"),
    }
    for name, (lines, comment) in documents.items():
        data = sign(header(TYP), _payload(lines)) + b"\n" + lines
        yield _vector(f"signed-{name}", "FormatError", f"{comment}; the issuer signed it", data)


def _remembered() -> Iterator[Vector]:
    remembered = (("now", str(NOW)), ("device", "device"), ("high_water", str(NOW)), ("seen_list_seq", "6"))
    comment = "the device has seen list 6, and this is list 5"
    yield _vector("older", "OlderRevocationListError", comment, _list([IDS[1]]), *remembered)
    comment = "the list was signed 301 seconds after what the clock says"
    ahead = _list(IDS, seq=7, iat=NOW + 301)
    yield _vector("signed-ahead", "ClockSetBackError", comment, ahead, *remembered)
