"""What each value of a small JSON document must be: rules, and one function that holds a document to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from keylatch.errors import FormatError
from keylatch.keys._clock import MAX_TIME

Rule: TypeAlias = tuple[Callable[[object], bool], str]
"""Whether a value will do, and what is expected, for the message."""


def whole_number(lowest: int, highest: int, what: str = "an integer") -> Rule:
    """Returns the rule for an integer in a range, both ends included."""

    def valid(value: object) -> bool:
        # type(), not isinstance(): a JSON true is an int to Python.
        return type(value) is int and lowest <= value <= highest

    return valid, f"{what}, {lowest} to {highest}"


def text(pattern: str, what: str) -> Rule:
    """Returns the rule for a string that matches a pattern from end to end."""
    compiled = re.compile(pattern)
    return (lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None), what


def optional(rule: Rule) -> Rule:
    """Returns the rule that also takes None, for a value that may be absent."""
    valid, expected = rule
    return (lambda value: value is None or valid(value)), expected


TIME = whole_number(0, MAX_TIME, "whole seconds since the epoch")
THUMBPRINT = text(r"[A-Za-z0-9_-]{43}", "an RFC 7638 thumbprint")
HEX_DIGEST = text(r"[0-9a-f]{64}", "64 lower-case hex digits")
NONCE = text(r"[A-Za-z0-9_-]{43}", "32 bytes in base64url")


def check_values(values: Mapping[str, object], rules: Mapping[str, Rule], what: str, *, hint: str) -> None:
    """Checks that a document has exactly the members that have rules, and that each meets its own.

    Raises:
        FormatError: A member is missing, unknown, or of another type or range.
    """
    if set(values) != set(rules):
        difference = ", ".join(ascii(name)[1:-1][:20] for name in sorted(set(values) ^ set(rules)))
        raise FormatError(f"{what} has missing or unknown members: {difference:.80}", hint=hint)
    for name, (valid, expected) in rules.items():
        if not valid(values[name]):
            raise FormatError(f"{what} has {name} {values[name]!a:.80}, expected {expected}", hint=hint)
