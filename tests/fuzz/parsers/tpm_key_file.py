"""Key files of TPMs: one spelling, and a public area that is the one its members lead to."""

from __future__ import annotations

from dataclasses import replace

from fuzz.attempts import REFUSED, attempt, require
from fuzz.byte_source import ByteSource
from fuzz.harnesses import DECISIONS, Harness
from fuzz.mutations import changed, changed_json
from fuzz.originals import original
from keylatch.errors import FormatError
from keylatch.keys._tpm._key_file import TpmKeyFile
from keylatch.keys._tpm._structures import padded_coordinate, sized, take_sized

_FILES = [original(name) for name in ("tpm.key", "tpm.other.key")]


def parse(data: bytes) -> None:
    file = attempt(TpmKeyFile.parse, data, "key file", errors=FormatError)
    if file is not REFUSED:
        require(file.to_bytes() == data, "a key file has two spellings")
        require(len(file.device_public.thumbprint) == 43, "a key without a name")


def parse_changed(data: bytes) -> None:
    source = ByteSource(data)
    edit = source.choose((changed, changed_json, changed_json))
    parse(edit(source, source.choose(_FILES), source.choose(_FILES)))


def parse_public(data: bytes) -> None:
    """The public area's bytes changed, the file around them sound."""
    source = ByteSource(data)
    file = TpmKeyFile.parse(source.choose(_FILES), "key file")
    public = _shortened(file.public) if source.below(4) == 0 else changed(source, file.public, file.private)
    read = attempt(TpmKeyFile.parse, replace(file, public=public).to_bytes(), "key file", errors=FormatError)
    if read is not REFUSED and public != file.public:
        require(read.device_public.thumbprint != file.device_public.thumbprint, "a public area has two forms")


def _shortened(public: bytes) -> bytes:
    """The originals' second coordinate starts with a zero: here it has 31 bytes, and one more follows."""
    return public[:-34] + sized(public[-31:]) + b"!"


def parse_structures(data: bytes) -> None:
    split = attempt(take_sized, data, errors=FormatError)
    if split is not REFUSED:
        content, rest = split
        require(len(content).to_bytes(2, "big") + content + rest == data, "a sized structure gets lost")
        padded = attempt(padded_coordinate, content, errors=FormatError)
        require(padded is REFUSED or len(padded) == 32, "a coordinate of another length")


HARNESS = Harness(
    attacks=(parse, parse_changed, parse_public, parse_structures),
    seeds=(tuple(_FILES), DECISIONS, DECISIONS, (b"\x00\x02ab", b"\x00\x20" + bytes(34))),
    words=(b'"pcrs"', b'"pin"', b'"public"', b'"private"', b'"parent"', b'"sha256:0,7"', b"true", b"false", b"\n"),
)
