"""The form of a vector: header lines, an empty line, the body in base64.

    expect: SignatureError
    kind: license
    comment: the last bit of the signature is flipped
    now: 4102444800

    S0VZTEFUQ0gB…

A header may stand several times. With ``compressed: zlib`` the base64 is of the compressed body.
"""

from __future__ import annotations

import base64
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
SUFFIX = ".vector"

_LINE_CHARACTERS = 100
_COMPRESS_FROM_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True)
class Vector:
    """One input of a reader, and what must come of it.

    Args:
        name: Path below this folder without the suffix, e.g. ``license/frame-version-0``.
        expect: ``success``, or the exact class of the error.
        kind: What the reader takes it for.
        comment: One sentence: what is wrong, or what is right.
        headers: What else the reader is given, and on success what it returns; name and value.
        body: The bytes to read.
    """

    name: str
    expect: str
    kind: str
    comment: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def path(self) -> Path:
        """Where it stands."""
        return FOLDER / f"{self.name}{SUFFIX}"

    def all(self, header: str) -> list[str]:
        """Returns every value of a header, in order."""
        return [value for name, value in self.headers if name == header]

    def one(self, header: str) -> str:
        """Returns the value of a header that stands once."""
        (value,) = self.all(header)
        return value

    def number(self, header: str, default: int) -> int:
        """Returns an integer header, or the default where it does not stand."""
        return int(self.one(header)) if self.all(header) else default

    def serialize(self) -> str:
        """Returns the file's text."""
        compressed = len(self.body) >= _COMPRESS_FROM_BYTES
        fixed = [("expect", self.expect), ("kind", self.kind), ("comment", self.comment)]
        lines = [*fixed, *self.headers, *([("compressed", "zlib")] if compressed else [])]
        data = zlib.compress(self.body, 9) if compressed else self.body
        head = "".join(f"{name}: {value}\n" for name, value in lines)
        return f"{head}\n{_wrap(base64.b64encode(data).decode('ascii'))}"


def parse_vector(name: str, text: str) -> Vector:
    """Reads a vector's text."""
    head, _, encoded = text.partition("\n\n")
    lines = [_header(line) for line in head.splitlines()]
    (_, expect), (_, kind), (_, comment), *headers = lines
    assert [found for found, _ in lines[:3]] == ["expect", "kind", "comment"], name
    data = base64.b64decode("".join(encoded.split()), validate=True)
    if ("compressed", "zlib") in headers:
        headers.remove(("compressed", "zlib"))
        data = zlib.decompress(data)
    return Vector(name, expect, kind, comment, tuple(headers), data)


def read_vectors(folder: Path = FOLDER) -> list[Vector]:
    """Reads every vector that stands in a folder."""
    paths = sorted(folder.rglob(f"*{SUFFIX}"))
    return [
        parse_vector(str(path.relative_to(folder).with_suffix("")), path.read_text(encoding="utf-8")) for path in paths
    ]


def by_name(vectors: Iterable[Vector]) -> dict[str, Vector]:
    """Returns vectors by their names, which are all different."""
    listed = list(vectors)
    found = {vector.name: vector for vector in listed}
    twice = [name for name, count in Counter(vector.name for vector in listed).items() if count > 1]
    assert not twice, f"two vectors have the same name: {twice}"
    return found


def _header(line: str) -> tuple[str, str]:
    name, separator, value = line.partition(": ")
    assert separator, line
    return name, value


def _wrap(encoded: str) -> str:
    starts = range(0, len(encoded), _LINE_CHARACTERS)
    return "".join(f"{encoded[start : start + _LINE_CHARACTERS]}\n" for start in starts)
