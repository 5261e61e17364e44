"""Strict JSON and base64url: for each value exactly one accepted encoding, so that no bit of a file is slack.

Lenient decoders are how signed formats break: of two equal keys one library takes the first and another the last,
and ignored trailing bits let a signed file be altered without notice (RFC 4648 section 3.5, RFC 8725 section 3.2).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from typing import Any, NoReturn

from keylatch.errors import FormatError

# Longest integer read from JSON, in digits: 2**63 has nineteen. Far under the length where int() itself refuses.
MAX_INTEGER_DIGITS = 19
# Objects and lists inside each other. The deepest format here, recipients inside a JWE, needs five.
MAX_JSON_DEPTH = 8

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")


def encode_base64url(data: bytes) -> str:
    """Returns base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_base64url(text: object, what: str) -> bytes:
    """Decodes canonical base64url without padding.

    Args:
        text: A string, often fresh from JSON and therefore of any type.
        what: Names the value in the error.

    Raises:
        FormatError: No string, padding, whitespace, foreign characters, an impossible length, or trailing bits set.
    """
    try:
        if isinstance(text, str) and _BASE64URL.fullmatch(text):
            data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            # The last character carries up to four bits that decoders ignore: two texts, one value.
            if encode_base64url(data) == text:
                return data
    except binascii.Error:
        pass
    raise FormatError(f"{what} is not canonical base64url", hint="get an undamaged copy of the file")


def canonical_json(value: object) -> bytes:
    """Returns the one JSON encoding used here: sorted keys, no whitespace, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def parse_json_object(data: bytes, what: str, *, fractions: bool = False) -> dict[str, Any]:
    """Parses one JSON object; strings, integers, lists, objects, true, false and null only.

    Args:
        data: UTF-8 JSON.
        what: Names the document in the error.
        fractions: Also take numbers with a fraction or exponent; signed formats have none, descriptions do.

    Raises:
        FormatError: Not UTF-8, not JSON, not an object, a repeated key, an unwanted fraction, NaN, an integer of
            more than `MAX_INTEGER_DIGITS` digits, or nesting deeper than `MAX_JSON_DEPTH`.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique_pairs,
            parse_int=_short_integer,
            parse_float=_finite_number if fractions else _refuse_number,
            parse_constant=_refuse_number,
        )
        _check_depth(value)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not strict JSON: {_reason(error)}", hint=_HINT) from None
    if not isinstance(value, dict):
        raise FormatError(f"{what} is a JSON {type(value).__name__}, expected an object", hint=_HINT)
    return value


_HINT = "get an undamaged copy of the file"


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is repeated")
    return value


def _short_integer(digits: str) -> int:
    if len(digits) > MAX_INTEGER_DIGITS and len(digits.lstrip("-")) > MAX_INTEGER_DIGITS:
        raise ValueError(f"an integer has more than {MAX_INTEGER_DIGITS} digits")
    return int(digits)


def _finite_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _refuse_number(_text: str) -> NoReturn:
    raise ValueError("a number is not an integer")


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise ValueError(f"nesting is deeper than {MAX_JSON_DEPTH}")


def _children(node: object) -> list[object]:
    values = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [value for value in values if isinstance(value, (dict, list))]


def _reason(error: ValueError | RecursionError) -> str:
    # The decoder's own messages quote nothing of the document beyond a position; a codec's would quote bytes.
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, RecursionError):
        return f"nesting is deeper than {MAX_JSON_DEPTH}"
    return str(error)
