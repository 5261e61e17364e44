"""Strict JSON and base64url, under everything else; beside Python's own readers."""

from __future__ import annotations

import base64
import json
from typing import Any

from fuzz.attempts import REFUSED, attempt, require
from fuzz.byte_source import ByteSource
from fuzz.harnesses import DECISIONS, Harness
from fuzz.mutations import changed_json
from fuzz.originals import original
from keylatch.errors import FormatError
from keylatch.keys import canonical_json, parse_json_object
from keylatch.keys._encoding import decode_base64url, encode_base64url

_DOCUMENTS = (
    b'{"a":[1,-2,{"b":null,"c":[true,false]}],"d":"\\u00e9\\ud83d\\ude00","e":9223372036854775807}',
    b'{"mean":[0.5,-1.25e-3],"":{"":{"":{}}}}',
    original("trust.json"),
)


def parse(data: bytes) -> None:
    for fractions in (False, True):
        value = attempt(parse_json_object, data, "document", fractions=fractions, errors=FormatError)
        if value is not REFUSED:
            require(value == json.loads(data, object_pairs_hook=_once), "a document reads otherwise in a usual reader")
            canonical = canonical_json(value)
            require(parse_json_object(canonical, "document", fractions=fractions) == value, "canonical JSON is another")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    require(len(dict(pairs)) == len(pairs), "a key stands twice, and readers differ in which one they take")
    return dict(pairs)


def parse_changed(data: bytes) -> None:
    source = ByteSource(data)
    parse(changed_json(source, source.choose(_DOCUMENTS), source.choose(_DOCUMENTS)))


def decode(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    decoded = attempt(decode_base64url, text, "value", errors=FormatError)
    if decoded is not REFUSED:
        require(encode_base64url(decoded) == text, "base64url has two forms")
        require(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) == decoded, "base64url reads otherwise")


HARNESS = Harness(
    attacks=(parse, parse_changed, decode),
    seeds=(_DOCUMENTS, DECISIONS, (b"", b"AA", b"AAA", b"AAAA", b"_-8")),
    words=(b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"false", b"NaN", b"Infinity", b"-", b"e", b".",
           b"\\u", b"\\ud800", b'{"":', b"9" * 20, b"1e400", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"=", b"-_"),
)  # fmt: skip
