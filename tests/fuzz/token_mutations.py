"""Signed tokens, changed segment by segment."""

from __future__ import annotations

import base64
from collections.abc import Callable

from fuzz.byte_source import ByteSource
from fuzz.mutations import changed, changed_json, loosened


def unpadded(data: bytes) -> bytes:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def decoded(segment: bytes) -> bytes:
    """Base64url to bytes, leniently."""
    try:
        return base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except ValueError:
        return segment


def changed_token(source: ByteSource, token: bytes, other: bytes) -> bytes:
    """A compact JWS with its header, payload or signature changed, swapped, dropped or encoded otherwise."""
    segments, others = token.split(b"."), other.split(b".")
    if source.below(8) == 0:
        return changed(source, token, other)
    for _ in range(1 + source.below(2)):
        index = source.below(len(segments))
        source.choose(_SEGMENT_EDITS)(source, segments, index, others[index % len(others)])
    return b".".join(segments)


def _edit_json(source: ByteSource, segments: list[bytes], index: int, other: bytes) -> None:
    segments[index] = unpadded(changed_json(source, decoded(segments[index]), decoded(other)))


def _edit_decoded(source: ByteSource, segments: list[bytes], index: int, other: bytes) -> None:
    segments[index] = unpadded(changed(source, decoded(segments[index]), decoded(other)))


def _edit_encoded(source: ByteSource, segments: list[bytes], index: int, other: bytes) -> None:
    segments[index] = changed(source, segments[index], other)


def _loosen(source: ByteSource, segments: list[bytes], index: int, _other: bytes) -> None:
    segments[index] = loosened(source, segments[index].decode("latin-1")).encode("utf-8")


def _exchange(_source: ByteSource, segments: list[bytes], index: int, other: bytes) -> None:
    segments[index] = other


def _empty(_source: ByteSource, segments: list[bytes], index: int, _other: bytes) -> None:
    segments[index] = b""


def _move(source: ByteSource, segments: list[bytes], index: int, _other: bytes) -> None:
    segment = segments[index]
    del segments[index]
    segments.insert(source.below(len(segments) + 1), segment)


def _repeat(_source: ByteSource, segments: list[bytes], index: int, _other: bytes) -> None:
    segments.insert(index, segments[index])


_SegmentEdit = Callable[[ByteSource, list[bytes], int, bytes], None]
_SEGMENT_EDITS: tuple[_SegmentEdit, ...] = (
    _edit_json, _edit_json, _edit_json, _edit_decoded, _edit_encoded, _loosen, _exchange, _empty, _move, _repeat
)  # fmt: skip
