"""Read what matters for safety out of an ONNX graph, without parsing the rest.

onnxruntime opens files that a graph names: external data of tensors, wherever they stand, and precompiled contexts.
This walks the protobuf wire format (https://protobuf.dev/programming-guides/encoding) along the messages that can
hold tensors, so that a graph which would make it open anything but the manifest's files is refused before it is
parsed. Field numbers are those of onnx.proto3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

from keylatch.errors import ArtifactError

_MAX_DEPTH = 64
_HINT = "get the locked model again from its issuer"

# Message kinds along which tensors can be reached: kind -> {field number: kind of the submessage}. An entry is a pair
# of strings, a name the operator's.
_CHILDREN = MappingProxyType(
    {
        "model": {7: "graph", 20: "training", 25: "function", 14: "entry"},
        "training": {1: "graph", 2: "graph"},
        "graph": {1: "node", 5: "tensor", 15: "sparse"},
        "function": {7: "node", 11: "attribute"},
        "node": {4: "name", 5: "attribute"},
        "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
        "sparse": {1: "tensor", 2: "tensor"},
        "tensor": {13: "entry"},
    }
)
_TENSOR_EXTERNAL_DATA = 13
_MODEL_METADATA = 14


@dataclass(slots=True)
class GraphFacts:
    """What a graph would make onnxruntime read, and what it says of itself.

    Attributes:
        locations: External files that its tensors name.
        metadata: The model's `metadata_props`.
        sparse_external: Whether a sparse tensor has external data.
        operators: Operator types in use.
    """

    locations: set[str] = field(default_factory=set)
    metadata: dict[str, str] = field(default_factory=dict)
    sparse_external: bool = False
    operators: set[str] = field(default_factory=set)


def scan_graph(data: bytes) -> GraphFacts:
    """Collect the facts of a serialized ONNX ModelProto.

    Raises:
        ArtifactError: If it is not well-formed protobuf, or nested too deeply.
    """
    facts = GraphFacts()
    try:
        _walk(data, 0, len(data), "model", facts, depth=0, sparse=False)
    except (IndexError, UnicodeDecodeError):
        raise ArtifactError("model.onnx is not a well-formed ONNX graph", hint=_HINT) from None
    return facts


def require_contained(facts: GraphFacts, names: set[str]) -> None:
    """Refuse a graph that would make onnxruntime open a file outside the manifest.

    Raises:
        ArtifactError: If it names other files, sparse tensors with external data, or precompiled contexts.
    """
    foreign = facts.locations - names
    if foreign:
        raise ArtifactError(
            f"model.onnx refers to the file {min(foreign)!r:.60}, which is not in the manifest", hint=_HINT
        )
    if facts.sparse_external:
        raise ArtifactError("model.onnx has a sparse tensor with external data, which is not supported", hint=_HINT)
    if "EPContext" in facts.operators:
        raise ArtifactError("model.onnx holds a precompiled context, which is not supported", hint=_HINT)


def _walk(data: bytes, start: int, end: int, kind: str, facts: GraphFacts, *, depth: int, sparse: bool) -> None:
    if depth > _MAX_DEPTH:
        raise ArtifactError("model.onnx is nested too deeply", hint=_HINT)
    children = _CHILDREN[kind]
    for number, first, last in _fields(data, start, end):
        child = children.get(number)
        if child == "name":
            facts.operators.add(data[first:last].decode())
        elif child == "entry":
            _note_entry(data, first, last, number, facts, sparse=sparse)
        elif child is not None:
            _walk(data, first, last, child, facts, depth=depth + 1, sparse=sparse or child == "sparse")


def _note_entry(data: bytes, start: int, end: int, number: int, facts: GraphFacts, *, sparse: bool) -> None:
    entry = {field: data[first:last].decode() for field, first, last in _fields(data, start, end)}
    key, value = entry.get(1, ""), entry.get(2, "")
    if number == _MODEL_METADATA:
        facts.metadata[key] = value
    elif number == _TENSOR_EXTERNAL_DATA:
        facts.sparse_external |= sparse
        if key == "location":
            facts.locations.add(value)


def _fields(data: bytes, position: int, end: int) -> list[tuple[int, int, int]]:
    """The length-delimited fields of a message, number and bounds; other wire types are skipped.

    Tags and lengths are nearly always of one byte, which is read in place: a call for each took as long again. What
    runs over the message's end is refused at the end.
    """
    found = []
    while position < end:
        tag = data[position]
        position += 1
        if tag >= 0x80:
            tag, position = _varint(data, position - 1)
            if tag >> 32:  # onnxruntime's parser drops the upper bits and would see another field than we do
                raise IndexError
        wire_type = tag & 7
        if wire_type == 2:
            size = data[position]
            position += 1
            if size >= 0x80:
                size, position = _varint(data, position - 1)
            if size > end - position:
                raise IndexError
            found.append((tag >> 3, position, position + size))
            position += size
        elif wire_type == 0:
            _, position = _varint(data, position)
        elif wire_type in (1, 5):
            position += 8 if wire_type == 1 else 4
        else:  # groups: not in ONNX
            raise IndexError
    if position != end:
        raise IndexError
    return found


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise IndexError
