"""The frame of a license: magic, version, three lengths, three parts."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from vectors.base_originals import VALUES, base
from vectors.signing import license_vector
from vectors.value_headers import value_headers
from vectors.vector_file import Vector

PARTS = ("token", "jwe", "blob")
LIMITS = (96 * 1024, 2 * 1024 * 1024, 256 * 1024 * 1024)


def vectors() -> Iterator[Vector]:
    yield license_vector("p256", "success", "one P-256 device", base("p256"), *value_headers(VALUES))
    yield from _starts()
    for index in range(3):
        yield from _lengths(index)
    yield from _ends()


def _parts() -> list[bytes]:
    license = base("p256")
    return [license.jwt, license.jwe, license.blob]


def _frame(*, magic: bytes = b"KEYLATCH", version: int = 1, lengths: list[int] | None = None) -> bytes:
    parts = _parts()
    return struct.pack("<8sB3I", magic, version, *(lengths or map(len, parts))) + b"".join(parts)


def _refused(name: str, comment: str, data: bytes, expect: str = "FormatError") -> Vector:
    return license_vector(f"frame-{name}", expect, comment, data)


def _starts() -> Iterator[Vector]:
    whole = _frame()
    yield _refused("empty", "the file is empty", b"")
    yield _refused("magic-flipped", "one bit of the magic is flipped", _frame(magic=b"KEYLATCI"))
    yield _refused("magic-lower-case", "the magic is in lower case", _frame(magic=b"keylatch"))
    yield _refused("magic-missing", "the file starts with the version", whole[8:])
    yield _refused("byte-order-mark", "a byte order mark stands before the magic", b"\xef\xbb\xbf" + whole)
    yield _refused("version-0", "version 0 does not exist", _frame(version=0))
    yield _refused("version-2", "version 2 does not exist yet", _frame(version=2))
    yield _refused("version-255", "version 255 does not exist", _frame(version=255))
    yield _refused("version-sealed", "version 0x81 is that of a sealed file", _frame(version=0x81))
    yield _refused("magic-alone", "the file ends after the magic", whole[:8])
    yield _refused("version-alone", "the file ends after the version", whole[:9])
    yield _refused("lengths-truncated", "the file ends within the lengths", whole[:20])
    yield _refused("lengths-alone", "the file ends after the lengths", whole[:21])
    big_endian = struct.pack(">8sB3I", b"KEYLATCH", 1, *map(len, _parts())) + whole[21:]
    yield _refused("lengths-big-endian", "the lengths are big-endian", big_endian)


def _lengths(index: int) -> Iterator[Vector]:
    part, limit = PARTS[index], LIMITS[index]

    def changed(length: int) -> bytes:
        lengths = list(map(len, _parts()))
        lengths[index] = length
        return _frame(lengths=lengths)

    actual = len(_parts()[index])
    yield _refused(f"{part}-length-0", f"the {part}'s length is 0", changed(0))
    parts = [b"" if number == index else data for number, data in enumerate(_parts())]
    absent = struct.pack("<8sB3I", b"KEYLATCH", 1, *map(len, parts)) + b"".join(parts)
    yield _refused(f"{part}-absent", f"there is no {part}, and its length says so", absent)
    yield _refused(f"{part}-length-less", f"the {part}'s length is one byte too small", changed(actual - 1))
    yield _refused(f"{part}-length-more", f"the {part}'s length is one byte too large", changed(actual + 1))
    yield _refused(
        f"{part}-length-over-limit", f"the {part} is to have {limit + 1} bytes, one too many", changed(limit + 1)
    )
    yield _refused(f"{part}-length-largest", f"the {part} is to have 4 GiB", changed(2**32 - 1))
    end = 21 + sum(map(len, _parts()[: index + 1]))
    yield _refused(f"{part}-truncated", f"the file ends within the {part}", _frame()[: end - 5])
    if index < 2:
        yield _refused(f"{part}-last", f"the file ends after the {part}", _frame()[:end])


def _ends() -> Iterator[Vector]:
    whole, (token, jwe, blob) = _frame(), _parts()
    yield _refused("trailing-byte", "a byte stands after the blob", whole + b"\0")
    yield _refused("trailing-newline", "a newline stands after the blob", whole + b"\n")
    yield _refused("twice", "the license stands twice in the file", whole + whole)
    moved = _frame(lengths=[len(token) + 1, len(jwe) - 1, len(blob)])
    yield _refused("boundary-moved", "the token's last byte is the JWE's first", moved, "SignatureError")
    moved = _frame(lengths=[len(token), len(jwe) + 1, len(blob) - 1])
    yield _refused("second-boundary-moved", "the JWE's last byte is the blob's first", moved, "LicensePartsError")
    swapped = struct.pack("<8sB3I", b"KEYLATCH", 1, len(jwe), len(token), len(blob)) + jwe + token + blob
    yield _refused("parts-swapped", "the JWE stands before the token", swapped, "SignatureError")
