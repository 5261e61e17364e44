from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keylatch.errors import FormatError
from keylatch.keys._encoding import (
    MAX_INTEGER_DIGITS,
    MAX_JSON_DEPTH,
    canonical_json,
    decode_base64url,
    encode_base64url,
    parse_json_object,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.binary())
def test_base64url_round_trips(data: bytes) -> None:
    assert decode_base64url(encode_base64url(data), "it") == data


@given(st.text(max_size=12))
def test_base64url_accepts_one_text_for_each_value(text: str) -> None:
    try:
        data = decode_base64url(text, "it")
    except FormatError:
        return
    assert encode_base64url(data) == text


@pytest.mark.parametrize(
    "text", ["QQ==", "QR", "Q", "QUI\n", " QUI", "Q+I", "Q/I", "QUI.", "QÜI", "ＱＱ", "\ud800", 7, None]
)
def test_base64url_refuses_whatever_is_not_canonical(text: object) -> None:
    with pytest.raises(FormatError, match="it is not canonical base64url") as caught:
        decode_base64url(text, "it")
    assert caught.value.hint


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_canonical_json_round_trips(value: dict[str, object]) -> None:
    assert parse_json_object(canonical_json(value), "it") == value
    assert canonical_json(parse_json_object(canonical_json(value), "it")) == canonical_json(value)


def test_canonical_json_is_sorted_and_has_no_whitespace() -> None:
    assert canonical_json({"b": 1, "a": ["é", None]}) == b'{"a":["\\u00e9",null],"b":1}'


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b'{"a":1,"a":1}', "a key is repeated"),
        (b'{"a":{"b":1,"b":2}}', "a key is repeated"),
        (b'{"a":1,"\\u0061":1}', "a key is repeated"),
        (b'{"a":NaN}', "not an integer"),
        (b'{"a":-Infinity}', "not an integer"),
        (b'{"a":1.0}', "not an integer"),
        (b'{"a":1e3}', "not an integer"),
        (b'{"a":' + b"9" * (MAX_INTEGER_DIGITS + 1) + b"}", "digits"),
        (b'{"a":' + b"9" * 100_000 + b"}", "digits"),
        (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nesting"),
        (b'{"a":' * MAX_JSON_DEPTH + b"1" + b"}" * (MAX_JSON_DEPTH + 1), "not strict JSON"),
        (b"[" * 9 + b"]" * 9, "nesting"),
        (b'{"a":"\xff"}', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not strict JSON"),
        (b"{} {}", "not strict JSON"),
        (b"", "not strict JSON"),
        (b"[]", "is a JSON list"),
        (b"null", "is a JSON NoneType"),
    ],
)
def test_json_that_is_not_strict_is_refused(document: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason) as caught:
        parse_json_object(document, "it")
    assert caught.value.hint


def test_nesting_is_accepted_up_to_the_limit_and_no_further() -> None:
    def nested(depth: int) -> bytes:
        return b'{"a":' * depth + b"1" + b"}" * depth

    assert json.loads(nested(MAX_JSON_DEPTH)) == parse_json_object(nested(MAX_JSON_DEPTH), "it")
    with pytest.raises(FormatError, match="nesting"):
        parse_json_object(nested(MAX_JSON_DEPTH + 1), "it")


@given(st.binary(max_size=64))
def test_any_bytes_are_an_object_or_a_format_error(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert isinstance(parse_json_object(data, "it"), dict)
