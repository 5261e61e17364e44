"""Writes the vectors: `python tests/vectors/generate.py`; with `--check` only names those that differ, and exits 1.

With `--new-base` the licenses in base/ are issued anew, with new random keys: every vector of a license changes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vectors import (
    device_public_keys,
    device_states,
    enrollment_requests,
    license_blobs,
    license_claims,
    license_cosignatures,
    license_frames,
    license_jwes,
    license_openings,
    license_recipients,
    license_tokens,
    private_key_files,
    revocation_lists,
    time_tokens,
    trust_files,
    vaults,
)
from vectors.base_originals import BASE, make_base
from vectors.named_keys import KEYS, key_files
from vectors.vector_file import FOLDER, SUFFIX, Vector, by_name, parse_vector

MAKERS: tuple[Callable[[], Iterator[Vector]], ...] = (
    license_frames.vectors,
    license_tokens.vectors,
    license_claims.vectors,
    license_cosignatures.vectors,
    license_jwes.vectors,
    license_recipients.vectors,
    license_blobs.vectors,
    license_openings.vectors,
    revocation_lists.vectors,
    time_tokens.vectors,
    enrollment_requests.vectors,
    device_public_keys.vectors,
    trust_files.vectors,
    device_states.vectors,
    vaults.vectors,
    private_key_files.vectors,
)


def make_all() -> dict[str, Vector]:
    """Returns every vector by its name."""
    return by_name(vector for make in MAKERS for vector in make())


def main(arguments: list[str]) -> int:
    unknown = set(arguments) - {"--check", "--new-base"}
    if unknown or len(arguments) > 1:
        print(__doc__, file=sys.stderr)
        return 2
    if arguments == ["--new-base"]:
        for name, data in make_base().items():
            _write(BASE / name, data)
    vectors = make_all()
    differing = differences(vectors)
    if arguments == ["--check"]:
        for line in differing:
            print(line)
        return 1 if differing else 0
    for vector in vectors.values():
        if not _stands(vector):
            _write(vector.path, vector.serialize().encode())
    for name, data in key_files().items():
        _write(KEYS / name, data)
    for path in _left_over(vectors):
        path.unlink()
    print(f"{len(vectors)} vectors, {len(differing)} of them or of the keys changed")
    return 0


def differences(vectors: dict[str, Vector]) -> list[str]:
    """Returns a line for every file that is missing, differs, or is left over."""
    missing = [f"missing: {vector.name}" for vector in vectors.values() if not vector.path.exists()]
    differing = [f"differs: {v.name}" for v in vectors.values() if v.path.exists() and not _stands(v)]
    keys = [f"differs: keys/{name}" for name, data in key_files().items() if _read(KEYS / name) != data]
    left_over = [f"left over: {path.relative_to(FOLDER)}" for path in _left_over(vectors)]
    return sorted(missing + differing + keys + left_over)


def _stands(vector: Vector) -> bool:
    found = _read(vector.path)
    if found is None or found == vector.serialize().encode():
        return found is not None
    # Another zlib compresses the same body to other bytes.
    return b"\ncompressed: zlib\n" in found and parse_vector(vector.name, found.decode()) == vector


def _left_over(vectors: dict[str, Vector]) -> list[Path]:
    known = {vector.path for vector in vectors.values()} | {KEYS / name for name in key_files()}
    return [path for path in sorted([*FOLDER.rglob(f"*{SUFFIX}"), *KEYS.glob("*")]) if path not in known]


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
