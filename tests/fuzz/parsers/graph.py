"""The scan of an ONNX graph, beside protobuf's own parser: whatever that one finds, the scan has found too."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from google.protobuf.message import DecodeError, Message

from fuzz.attempts import REFUSED, attempt, require
from fuzz.byte_source import ByteSource
from fuzz.harnesses import DECISIONS, Harness
from fuzz.mutations import changed
from fuzz.originals import original
from keylatch.errors import ArtifactError
from keylatch.runtime import scan_graph

_GRAPHS = [original(name) for name in ("model.onnx", "model.other.onnx")]
# Field number and kind of each length-delimited field, of those that lead to tensors and some that do not.
_TAGS = (
    *(bytes([number << 3 | 2]) for number in (1, 2, 4, 5, 6, 7, 10, 11, 13, 14)),
    b"\xa2\x01", b"\xaa\x01", b"\xb2\x01", b"\xba\x01", b"\xca\x01",
    b"\x7a", b"\x0b", b"\x0c", b"\x08", b"\x09", b"\x0d",
)  # fmt: skip


def scan(data: bytes) -> None:
    facts = attempt(scan_graph, data, errors=ArtifactError)
    if facts is REFUSED:
        return
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        return
    for message in _messages(model):
        if isinstance(message, onnx.TensorProto):
            for entry in message.external_data:
                require(entry.key != "location" or entry.value in facts.locations, "a file was overlooked")
        elif isinstance(message, onnx.SparseTensorProto):
            outside = message.values.external_data or message.indices.external_data
            require(not outside or facts.sparse_external, "a sparse tensor outside was overlooked")
        elif isinstance(message, onnx.NodeProto):
            require(not message.op_type or message.op_type in facts.operators, "an operator was overlooked")


def scan_changed(data: bytes) -> None:
    source = ByteSource(data)
    scan(changed(source, source.choose(_GRAPHS), source.choose(_GRAPHS)))


def scan_made(data: bytes) -> None:
    """Well-formed messages in each other, some fields of them twice or of another kind."""
    source = ByteSource(data)
    message = b""
    for _ in range(1 + source.below(24)):
        tag, action = source.choose(_TAGS), source.below(8)
        if action == 0:
            piece = source.take(source.below(16))
        elif action == 1:
            piece = source.choose((b"\x0a\x08location\x12\x0d../escape.bin", b"\x0a\x08location", b"EPContext"))
        elif action == 2:
            message = message[: source.below(len(message) + 1)]
            continue
        else:
            piece, message = message, (message if action == 3 else b"")
        message += tag + _length(source, len(piece)) + piece
    scan(message)


def _length(source: ByteSource, value: int) -> bytes:
    """A varint; now and then longer than it need be, or wrong."""
    style = source.below(16)
    if style == 15:
        value += source.choose((1, -1, 2**31, 2**32, 2**63)) if value else 1
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    if style == 14:
        encoded[-1] |= 0x80
        encoded += b"\x80" * source.below(10) + b"\0"
    return bytes(encoded)


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for descriptor, value in message.ListFields():
        if descriptor.type == descriptor.TYPE_MESSAGE:
            for child in (value,) if isinstance(value, Message) else value:
                yield from _messages(child)


HARNESS = Harness(
    attacks=(scan, scan_changed, scan_made),
    seeds=(tuple(_GRAPHS), DECISIONS, DECISIONS),
    words=(b"\x0a\x08location", b"\x12\x08gate.bin", b"EPContext", b"\x3a", b"\x6a", b"\x72", b"\xa2\x01", b"\xff\x01",
           b"\x80\x80\x80\x80\x10", b"\xba\x01"),
)  # fmt: skip
