"""manifest.json: what is accepted is canonical, so that a model has one identity."""

from __future__ import annotations

from fuzz.attempts import REFUSED, attempt, require
from fuzz.byte_source import ByteSource
from fuzz.harnesses import DECISIONS, Harness
from fuzz.mutations import changed, changed_json
from fuzz.originals import original
from keylatch.errors import ArtifactError, FormatError
from keylatch.runtime import GATE_NAME, GRAPH_NAME, WEIGHTS_NAME, parse_manifest

_MANIFESTS = [original(name) for name in ("manifest.json", "manifest.other.json", "manifest.sealed.json")]
# An original that is refused would make every refusal worthless.
_PARSED = [parse_manifest(data) for data in _MANIFESTS]


def parse(data: bytes) -> None:
    manifest = attempt(parse_manifest, data, errors=(ArtifactError, FormatError))
    if manifest is not REFUSED:
        require(manifest.serialize() == data, "a manifest does not serialize to what it was parsed from")
        require(set(manifest.files) <= {GRAPH_NAME, GATE_NAME, WEIGHTS_NAME}, "a manifest names other files")
        require(manifest.sealed is None or manifest.sealed.plain_bytes >= 0, "sealed weights of a negative size")
        require(manifest.sealed is None or WEIGHTS_NAME not in manifest.files, "weights are both plain and sealed")


def parse_changed(data: bytes) -> None:
    source = ByteSource(data)
    edit = source.choose((changed, changed_json, changed_json))
    parse(edit(source, source.choose(_MANIFESTS), source.choose(_MANIFESTS)))


HARNESS = Harness(
    attacks=(parse, parse_changed),
    seeds=(tuple(_MANIFESTS), DECISIONS),
    words=(b'"gate"', b'"files"', b'"shape"', b'"dtype"', b'"bytes"', b'"sha256"', b'"blake3"',
           b'"chunk_bytes"', b'"weights.sealed"', b'"../gate.bin"', b'"gate.bin"',
           b"1e5", b"0.1", b"-0.0", b"1e999", b"9223372036854775808", b"\\ud800", b"{}", b"[]", b"true", b"null"),
)  # fmt: skip
