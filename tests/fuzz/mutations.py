"""Valid originals, changed on purpose. Every change is drawn from a `ByteSource`; none may be the original again,
which is why harnesses compare before they complain."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fuzz.byte_source import ByteSource

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_MAX_INSERTED_BYTES = 64
_MAX_DEPTH = 12


class Raw(str):
    """JSON text that goes out as it is: numbers that Python cannot hold, and what is no JSON."""

    __slots__ = ()


class Members(list[list[Any]]):
    """A JSON object as [name, value] pairs, so that names can stand twice."""


ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, 2**64, "", "\0", "\ud800", "\u202e", "\n", " ", "A", "AA",
    "None", "none", "EdDSA", "HS256", "Ed25519", "ES256", "A256GCM", "ECDH-ES", "P-384", "X25519", "a" * 43, "0" * 64,
    "9" * 300,
    Raw("1.0"), Raw("-0"), Raw("1e0"), Raw("1e400"), Raw("NaN"), Raw("-Infinity"), Raw("01"), Raw("9" * 5000),
    Raw("[" * 2000), Raw('{"a":' * 2000), Raw('"\\ud800"'), Raw("[]"), Raw("{}"), Raw(""), Raw("\ufeff{}"),
)  # fmt: skip
ODD_NAMES = ("", "alg", "kid", "crit", "jwk", "jku", "x5c", "b64", "zip", "d", "p2c", "__class__", "\ud800", "\0", "é")


def changed(source: ByteSource, original: bytes, other: bytes) -> bytes:
    """One to four edits of bytes; `other` lends its own."""
    data = original
    for _ in range(1 + source.below(4)):
        data = source.choose(_BYTE_EDITS)(source, data, other)
    return data


def _flip(source: ByteSource, data: bytes, _other: bytes) -> bytes:
    position = source.below(8 * len(data))
    byte = (data[position // 8 :] or b"\0")[0] ^ (1 << position % 8)
    return data[: position // 8] + bytes([byte]) + data[position // 8 + 1 :]


def _overwrite(source: ByteSource, data: bytes, _other: bytes) -> bytes:
    position = source.below(len(data))
    piece = source.take(1 + source.below(8))
    return data[:position] + piece + data[position + len(piece) :]


def _insert(source: ByteSource, data: bytes, _other: bytes) -> bytes:
    position = source.below(len(data) + 1)
    return data[:position] + source.take(1 + source.below(_MAX_INSERTED_BYTES)) + data[position:]


def _delete(source: ByteSource, data: bytes, _other: bytes) -> bytes:
    start = source.below(len(data))
    return data[:start] + data[start + 1 + source.below(_MAX_INSERTED_BYTES) :]


def _truncate(source: ByteSource, data: bytes, _other: bytes) -> bytes:
    return data[: source.below(len(data))]


def _append(source: ByteSource, data: bytes, other: bytes) -> bytes:
    return data + (source.take(1 + source.below(16)) or other)


def _splice(source: ByteSource, data: bytes, other: bytes) -> bytes:
    return data[: source.below(len(data) + 1)] + other[source.below(len(other) + 1) :]


def _graft(source: ByteSource, data: bytes, other: bytes) -> bytes:
    start = source.below(min(len(data), len(other)))
    end = start + 1 + source.below(256)
    return data[:start] + other[start:end] + data[end:]


def _repeat(source: ByteSource, data: bytes, _other: bytes) -> bytes:
    start = source.below(len(data))
    end = start + 1 + source.below(256)
    return data[:end] + data[start:end] + data[end:]


def _swap(source: ByteSource, data: bytes, _other: bytes) -> bytes:
    first, second = sorted((source.below(len(data)), source.below(len(data))))
    size = min(1 + source.below(64), second - first)
    left, right = data[first : first + size], data[second : second + size]
    return data[:first] + right + data[first + size : second] + left + data[second + size :]


def _count(source: ByteSource, data: bytes, _other: bytes) -> bytes:
    """Add to an integer of 32 bits, as lengths are."""
    position, width = source.below(len(data)), source.choose((1, 2, 4, 4))
    order = source.choose(("little", "big"))
    value = int.from_bytes(data[position : position + width], order) + source.choose((1, -1, 2, 256, -256, 2**31, 4))
    return data[:position] + (value % (1 << 8 * width)).to_bytes(width, order) + data[position + width :]


_ByteEdit = Callable[[ByteSource, bytes, bytes], bytes]
_BYTE_EDITS: tuple[_ByteEdit, ...] = (
    _flip, _flip, _overwrite, _insert, _delete, _truncate, _append, _splice, _graft, _repeat, _swap, _count
)  # fmt: skip


def loosened(source: ByteSource, text: str) -> str:
    """Base64url that a lenient decoder takes for the same: other trailing bits, padding, white space, alphabets."""
    kind, position = source.below(6), source.below(len(text) + 1)
    if kind == 0 and text and text[-1] in _ALPHABET:
        return text[:-1] + _ALPHABET[_ALPHABET.index(text[-1]) ^ (1 + source.below(15))]
    if kind == 1:
        return text + "=" * (1 + source.below(3))
    if kind == 2:
        return text.replace("-", "+").replace("_", "/")
    if kind == 3:
        return text + "A" * (1 + source.below(4))
    return text[:position] + source.choose(("\n", " ", "\r", "\t", "=", "\0", "%", "é")) + text[position:]


def changed_json(source: ByteSource, original: bytes, other: bytes) -> bytes:
    """JSON with its members edited and encoded again; what is no JSON has its bytes changed."""
    try:
        tree = json.loads(original, object_pairs_hook=_members)
    except (ValueError, RecursionError):
        return changed(source, original, other)
    for _ in range(source.below(4)):
        slots = list(_slots(tree))
        if not slots:
            break
        container, index = source.choose(slots)
        source.choose(_JSON_EDITS)(source, container, index, other)
    return _styled(source, tree)


def changed_tensors(source: ByteSource, original: bytes, other: bytes) -> bytes:
    """Safetensors with its header's JSON edited and the length made right, or with its bytes changed."""
    if source.below(3) == 0:
        return changed(source, original, other)
    end = 8 + int.from_bytes(original[:8], "little")
    header = changed_json(source, original[8:end], other[8 : 8 + int.from_bytes(other[:8], "little")])
    return len(header).to_bytes(8, "little") + header + original[end:]


def _members(pairs: list[tuple[str, Any]]) -> Members:
    return Members(list(pair) for pair in pairs)


def _slots(tree: Any, depth: int = 0) -> list[tuple[Any, int]]:
    """Every (container, index) of a tree."""
    if not isinstance(tree, list) or depth > _MAX_DEPTH:
        return []
    own = [(tree, index) for index in range(len(tree))]
    children = (item[1] if isinstance(tree, Members) else item for item in tree)
    return own + [slot for child in children for slot in _slots(child, depth + 1)]


def _value(container: Any, index: int) -> Any:
    return container[index][1] if isinstance(container, Members) else container[index]


def _put(container: Any, index: int, value: Any) -> None:
    if isinstance(container, Members):
        container[index] = [container[index][0], value]
    else:
        container[index] = value


def _put_odd(source: ByteSource, container: Any, index: int, _other: bytes) -> None:
    _put(container, index, source.choose(ODD_VALUES))


def _put_text(source: ByteSource, container: Any, index: int, _other: bytes) -> None:
    _put(container, index, source.take(source.below(64)).decode("latin-1"))


def _put_number(source: ByteSource, container: Any, index: int, _other: bytes) -> None:
    value = _value(container, index)
    number = value if type(value) is int else 0
    _put(container, index, number + source.choose((1, -1, 86_400, -86_400, 10**9, -(10**9), 10**15)))


def _edit_text(source: ByteSource, container: Any, index: int, other: bytes) -> None:
    value = _value(container, index)
    if isinstance(value, str):
        encoded = value.encode("utf-8", "surrogatepass")
        _put(container, index, Raw(json.dumps(changed(source, encoded, other).decode("utf-8", "replace"))))


def _loosen_text(source: ByteSource, container: Any, index: int, _other: bytes) -> None:
    value = _value(container, index)
    if isinstance(value, str) and not isinstance(value, Raw):
        _put(container, index, loosened(source, value))


def _remove(_source: ByteSource, container: Any, index: int, _other: bytes) -> None:
    del container[index]


def _double(source: ByteSource, container: Any, index: int, _other: bytes) -> None:
    container.insert(source.below(len(container) + 1), container[index])
    if source.below(2):
        _put(container, -1, source.choose(ODD_VALUES))


def _rename(source: ByteSource, container: Any, index: int, _other: bytes) -> None:
    if isinstance(container, Members):
        container[index] = [source.choose(ODD_NAMES), container[index][1]]


def _add(source: ByteSource, container: Any, index: int, _other: bytes) -> None:
    value = source.choose(ODD_VALUES)
    container.insert(index, [source.choose(ODD_NAMES), value] if isinstance(container, Members) else value)


def _wrap(source: ByteSource, container: Any, index: int, _other: bytes) -> None:
    value = _value(container, index)
    for _ in range(1 + source.below(10)):
        value = source.choose(([value], Members([["a", value]])))
    _put(container, index, value)


def _exchange(source: ByteSource, container: Any, index: int, _other: bytes) -> None:
    second = source.below(len(container))
    first_value, second_value = _value(container, index), _value(container, second)
    _put(container, index, second_value)
    _put(container, second, first_value)


def _reorder(_source: ByteSource, container: Any, _index: int, _other: bytes) -> None:
    container.reverse()


def _take_from(source: ByteSource, container: Any, index: int, other: bytes) -> None:
    """The value of another valid document."""
    try:
        slots = _slots(json.loads(other, object_pairs_hook=_members))
    except (ValueError, RecursionError):
        return
    if slots:
        _put(container, index, _value(*source.choose(slots)))


_JsonEdit = Callable[[ByteSource, Any, int, bytes], None]
_JSON_EDITS: tuple[_JsonEdit, ...] = (
    _put_odd, _put_text, _put_number, _edit_text, _loosen_text, _remove, _double, _rename, _add, _wrap, _exchange,
    _reorder, _take_from, _take_from,
)  # fmt: skip


def _styled(source: ByteSource, tree: Any) -> bytes:
    style = source.below(8)
    comma, colon = (", ", ": ") if style == 1 else (",", ":")
    text = _dumped(tree, comma, colon, ascii_only=style != 2)
    if style == 3:
        text = source.choose((" ", "\n", "\t", "\ufeff", "\0")) + text
    if style == 4:
        text += source.choose((" ", "\n", "\0", "}", "{}", ","))
    encoded = text.encode("utf-8", "surrogatepass")
    return changed(source, encoded, b"") if style == 5 else encoded


def _dumped(tree: Any, comma: str, colon: str, *, ascii_only: bool) -> str:
    if isinstance(tree, Raw):
        return str(tree)
    if isinstance(tree, Members):
        items = (
            f"{_dumped(name, comma, colon, ascii_only=ascii_only)}{colon}"
            f"{_dumped(value, comma, colon, ascii_only=ascii_only)}"
            for name, value in tree
        )
        return "{" + comma.join(items) + "}"
    if isinstance(tree, list):
        return "[" + comma.join(_dumped(value, comma, colon, ascii_only=ascii_only) for value in tree) + "]"
    return json.dumps(tree, ensure_ascii=ascii_only)
