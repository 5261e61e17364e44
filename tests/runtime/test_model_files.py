"""Reading a locked model: every flipped bit of manifest and gate, samples of the rest, and the manifest's form."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_world import LockedModel, flip

from keylatch.errors import ArtifactError, DigestError, FormatError, KeylatchError, WrongModelError
from keylatch.keys import canonical_json, current_time
from keylatch.runtime import (
    FORMAT,
    GATE_NAME,
    GRAPH_NAME,
    MANIFEST_NAME,
    WEIGHTS_NAME,
    FileDigest,
    GateTensor,
    Manifest,
    _verified_files,
    _weights_file,
    model_id_of,
    parse_manifest,
    read_manifest,
    read_model_files,
)
from keylatch.runtime._manifest import Algorithm
from keylatch.runtime._opening import open_license


def test_the_files_read_are_the_files_on_disk(made: LockedModel) -> None:
    with read_model_files(made.path) as files:
        external = {name: data.tobytes() for name, data in files.external().items()}
        files.finish()
    assert files.graph == (made.path / GRAPH_NAME).read_bytes()
    assert external == {name: (made.path / name).read_bytes() for name in (GATE_NAME, WEIGHTS_NAME)}
    assert files.model_id == made.model_id == model_id_of((made.path / MANIFEST_NAME).read_bytes())


# --- every bit


def test_no_flipped_bit_of_the_manifest_opens(made: LockedModel) -> None:
    """Parsed strictly; what still parses has another model_id, and the license is for this one."""
    data = (made.path / MANIFEST_NAME).read_bytes()
    claims = made.opened().claims
    parsed = 0
    for bit in range(8 * len(data)):
        flipped = flip(data, bit)
        try:
            parse_manifest(flipped)
        except (ArtifactError, FormatError):
            continue
        parsed += 1
        assert model_id_of(flipped) != claims.model_id
    assert parsed > 100  # names and digits: the model_id is what refuses these


def test_flipped_bits_of_the_manifest_file_open_nothing(model: LockedModel) -> None:
    path = model.path / MANIFEST_NAME
    data = path.read_bytes()
    credentials = model.loaded()
    errors = set()
    for bit in range(3, 8 * len(data), 37):
        path.write_bytes(flip(data, bit))
        with pytest.raises(KeylatchError) as caught, read_model_files(model.path) as files:
            open_license(credentials, files.model_id, files.manifest.gate, now=current_time())
        errors.add(type(caught.value))
    assert errors == {ArtifactError, FormatError, DigestError, WrongModelError}


def _flip_in_place(path: Path, bits: Iterator[int]) -> Iterator[int]:
    """Flips one bit of a file at a time, and back."""
    with path.open("r+b", buffering=0) as file:
        for bit in bits:
            byte = os.pread(file.fileno(), 1, bit // 8)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 1 << bit % 8]), bit // 8)
            yield bit
            os.pwrite(file.fileno(), bytes([byte]), bit // 8)


def test_no_flipped_bit_of_the_gate_opens(model: LockedModel) -> None:
    path = model.path / GATE_NAME
    manifest, _ = read_manifest(model.path)
    with _verified_files.opened_directory(model.path) as folder:
        for _ in _flip_in_place(path, iter(range(8 * path.stat().st_size))):
            with pytest.raises(DigestError, match=GATE_NAME):
                _verified_files.read_verified(folder, GATE_NAME, manifest.files[GATE_NAME])
        _verified_files.read_verified(folder, GATE_NAME, manifest.files[GATE_NAME])


@pytest.mark.parametrize(("name", "step"), [(GATE_NAME, 293), (GRAPH_NAME, 3001), (WEIGHTS_NAME, 13_997)])
def test_flipped_bits_of_each_file_open_nothing(model: LockedModel, name: str, step: int) -> None:
    path = model.path / name
    for _ in _flip_in_place(path, iter(range(5, 8 * path.stat().st_size, step))):
        with pytest.raises(DigestError, match=name), read_model_files(model.path) as files:
            files.finish()
    with read_model_files(model.path) as files:
        files.finish()


@pytest.fixture(params=["mapped", "copied"])
def way(request: pytest.FixtureRequest, leased: LockedModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """How large weights reach onnxruntime: mapped under a lease, or copied where somebody has them open for writing."""
    monkeypatch.setattr(_weights_file, "_SMALL_BYTES", 1000)
    with ExitStack() as stack:
        if request.param == "copied":
            stack.enter_context((leased.path / WEIGHTS_NAME).open("r+b"))
        yield request.param


@pytest.mark.parametrize("algorithm", ["sha256", "blake3"])
def test_large_weights_come_in_parts_and_every_part_is_hashed(
    way: str, algorithm: str, leased: LockedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real weights take many parts; here the parts are made small instead."""
    monkeypatch.setattr(_verified_files, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(_weights_file, "_PIECE_BYTES", 1000)
    path = leased.path / WEIGHTS_NAME
    data = path.read_bytes()
    fields = leased.manifest()
    digest = {"sha256": hashlib.sha256, "blake3": blake3}[algorithm](data).hexdigest()
    fields["files"][WEIGHTS_NAME] = {"bytes": len(data), algorithm: digest}
    leased.write_manifest(canonical_json(fields))
    with read_model_files(leased.path) as files:
        weights = files.external()[WEIGHTS_NAME]
        assert weights.tobytes() == data
        assert weights.flags.writeable == (way == "copied")
        files.finish()
    middle = len(data) // 2 // 1000 * 1000
    for byte in (0, 999, 1000, middle - 1, middle, middle + 1, len(data) - 1):
        path.write_bytes(flip(data, 8 * byte))
        with pytest.raises(DigestError), read_model_files(leased.path) as files:
            files.finish()


def test_another_file_that_is_missing_is_refused_while_weights_are_hashed(way: str, leased: LockedModel) -> None:
    (leased.path / GATE_NAME).unlink()
    with pytest.raises(ArtifactError, match="missing"), read_model_files(leased.path):
        pytest.fail("opened")


def test_a_file_that_shrinks_while_it_is_read_is_refused(model: LockedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model.path / GATE_NAME
    real = os.preadv

    def shrinking(descriptor: int, *arguments: Any) -> int:
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            os.truncate(path, 0)
        return real(descriptor, *arguments)

    monkeypatch.setattr(os, "preadv", shrinking)
    with pytest.raises(DigestError, match="became shorter"), read_model_files(model.path):
        pytest.fail("opened")


def test_the_directory_itself_may_be_reached_by_a_link(model: LockedModel, tmp_path: Path) -> None:
    (tmp_path / "link.latch").symlink_to(model.path)
    assert read_manifest(tmp_path / "link.latch")[1] == model.model_id


def test_no_thread_and_no_descriptor_stays_behind(model: LockedModel) -> None:
    def open_now() -> tuple[int, set[str]]:
        return len(list(Path("/proc/self/fd").iterdir())), {thread.name for thread in threading.enumerate()}

    with read_model_files(model.path):
        pass
    before = open_now()
    path = model.path / WEIGHTS_NAME
    path.write_bytes(flip(path.read_bytes(), 0))
    with pytest.raises(DigestError), read_model_files(model.path) as files:
        files.finish()
    (model.path / GRAPH_NAME).unlink()
    with pytest.raises(ArtifactError), read_model_files(model.path):
        pass
    assert open_now() == before


# --- the manifest's form


def _fields(model: LockedModel, /, **changes: Any) -> bytes:
    return canonical_json({**model.manifest(), **changes})


NAMES = [
    "../gate.bin", "/etc/passwd", "a/gate.bin", "gate.bin/", "./gate.bin", "gate.bin\0", "..", ".", "", "GATE.BIN",
    "manifest.json", "extra.bin", "gate.bin ", "\\gate.bin", "model.onnx.data\n", "c:gate.bin", "ｇate.bin",
    "\u202egate",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_naming_any_other_file_is_refused(made: LockedModel, name: str) -> None:
    files = made.manifest()["files"]
    for changed in ({**files, name: files[GATE_NAME]}, {GRAPH_NAME: files[GRAPH_NAME], name: files[GATE_NAME]}):
        with pytest.raises(ArtifactError, match="names the file") as caught:
            parse_manifest(_fields(made, files=changed))
        assert caught.value.hint
        assert caught.value.message.isprintable()


def test_a_file_that_the_manifest_does_not_name_is_not_read(model: LockedModel) -> None:
    (model.path / "extra.bin").write_bytes(b"x")
    with read_model_files(model.path) as files:
        assert set(files.external()) == {GATE_NAME, WEIGHTS_NAME}


@pytest.mark.parametrize("name", [GRAPH_NAME, GATE_NAME])
def test_graph_and_gate_must_be_listed(made: LockedModel, name: str) -> None:
    files = made.manifest()["files"]
    del files[name]
    with pytest.raises(ArtifactError, match=f"does not list {name}"):
        parse_manifest(_fields(made, files=files))


def test_a_model_without_weights_file_is_complete(made: LockedModel) -> None:
    files = made.manifest()["files"]
    del files[WEIGHTS_NAME]
    assert set(parse_manifest(_fields(made, files=files)).files) == {GRAPH_NAME, GATE_NAME}


NOT_CANONICAL = {
    "a space": lambda data: data.replace(b":", b": ", 1),
    "a newline after": lambda data: data + b"\n",
    "a space before": lambda data: b" " + data,
    "another order": lambda data: json.dumps(dict(reversed(json.loads(data).items())), separators=(",", ":")).encode(),
    "an escape": lambda data: data.replace(b"batch", b"b\\u0061tch", 1),
    "a longer number": lambda data: data.replace(b"0.0", b"0.00", 1),
    "an exponent": lambda data: data.replace(b"1.0", b"1e0", 1),
    "UTF-8 in clear": lambda data: data.replace(b'"tiny"', '"tïny"'.encode(), 1),
    "an extra field": lambda data: data.replace(b"{", b'{"a":1,', 1),
}


@pytest.mark.parametrize("case", NOT_CANONICAL)
def test_only_canonical_json_is_a_manifest(made: LockedModel, case: str) -> None:
    data = (made.path / MANIFEST_NAME).read_bytes()
    changed = NOT_CANONICAL[case](data)
    assert changed != data
    with pytest.raises(ArtifactError, match="not in canonical form"):
        parse_manifest(changed)


NOT_STRICT = {
    "a repeated key": lambda data: data.replace(b'"format":', b'"format":"keylatch/2","format":', 1),
    "a repeated file": lambda data: data.replace(b'"gate.bin":', b'"gate.bin":{},"gate.bin":', 1),
    "a repeated size": lambda data: data.replace(b'"bytes":', b'"bytes":1,"bytes":', 1),
    "NaN": lambda data: data.replace(b"0.0", b"NaN", 1),
    "Infinity": lambda data: data.replace(b"0.0", b"Infinity", 1),
    "a number beyond floats": lambda data: data.replace(b"0.0", b"1e999", 1),
    "an integer of 5000 digits": lambda data: data.replace(b'"bytes":', b'"bytes":' + b"9" * 5000, 1),
    "a byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "deep nesting": lambda data: data.replace(b'"lock":{', b'"lock":{"a":' + b"[" * 50 + b"]" * 50 + b",", 1),
    "very deep nesting": lambda data: b"[" * 200_000,
    "a list": lambda data: b"[" + data + b"]",
    "nothing": lambda data: b"",
    "null": lambda data: b"null",
    "cut short": lambda data: data[:-1],
    "two objects": lambda data: data + data,
}


@pytest.mark.parametrize("case", NOT_STRICT)
def test_only_strict_json_is_a_manifest(made: LockedModel, case: str) -> None:
    data = (made.path / MANIFEST_NAME).read_bytes()
    with pytest.raises(FormatError, match=r"manifest\.json") as caught:
        parse_manifest(NOT_STRICT[case](data))
    assert caught.value.hint


@pytest.mark.parametrize("format", ["keylatch/2", "keylatch/1 ", "", None, 1, ["keylatch/1"], {"keylatch/1": 1}])
def test_another_format_version_is_refused(made: LockedModel, format: object) -> None:
    with pytest.raises(ArtifactError, match="expected 'keylatch/1'") as caught:
        parse_manifest(_fields(made, format=format))
    assert "update keylatch" in str(caught.value.hint)


def test_a_missing_field_is_refused(made: LockedModel) -> None:
    for name in made.manifest():
        fields = made.manifest()
        del fields[name]
        with pytest.raises(ArtifactError):
            parse_manifest(canonical_json(fields))


@pytest.mark.parametrize("value", [None, 1, "x", [], True, 1.5])
@pytest.mark.parametrize("field", ["model", "lock", "gate", "files"])
def test_a_field_of_another_type_is_refused(made: LockedModel, field: str, value: object) -> None:
    with pytest.raises(ArtifactError):
        parse_manifest(_fields(made, **{field: value}))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 1}, {"name": None}, {"dtype": "complex64"}, {"dtype": "bfloat16"}, {"dtype": 1}, {"dtype": "FLOAT32"},
        {"shape": 3}, {"shape": "3"}, {"shape": [1.0]}, {"shape": [True]}, {"shape": [0]}, {"shape": [-1]},
        {"shape": [2**31]}, {"shape": [2**62]}, {"shape": [None]}, {"shape": ["3"]}, {"shape": {}}, {"extra": 1},
    ],
)  # fmt: skip
def test_a_malformed_gate_tensor_is_refused(made: LockedModel, changes: dict[str, Any]) -> None:
    gate = made.manifest()["gate"]
    with pytest.raises(ArtifactError, match="malformed gate tensor"):
        parse_manifest(_fields(made, gate=[*gate[1:], {**gate[0], **changes}]))


def test_gate_tensors_are_listed_once_and_within_bounds(made: LockedModel) -> None:
    gate = made.manifest()["gate"]
    with pytest.raises(ArtifactError, match="twice"):
        parse_manifest(_fields(made, gate=[*gate, gate[0]]))
    for count in (0, 4097):
        entries = [{**gate[0], "name": str(index)} for index in range(count)]
        with pytest.raises(ArtifactError, match="no gate tensors"):
            parse_manifest(_fields(made, gate=entries))


@pytest.mark.parametrize("algorithm", ["blake3", "sha256"])
@pytest.mark.parametrize(
    "changes",
    [
        {"bytes": -1}, {"bytes": True}, {"bytes": 1.0}, {"bytes": "1"}, {"bytes": None}, {"bytes": 2**30 + 1},
        {"bytes": 2**62}, {"digest": "ab"}, {"digest": "AB" * 32}, {"digest": "ab" * 32 + "\n"},
        {"digest": "٣" * 64}, {"digest": None}, {"digest": 1}, {"extra": 1}, {"md5": "ab" * 32},
        {"sha256": "ab" * 32, "blake3": "ab" * 32},
    ],
)  # fmt: skip
def test_a_malformed_size_or_digest_is_refused(made: LockedModel, algorithm: str, changes: dict[str, Any]) -> None:
    files = made.manifest()["files"]
    entry = {"bytes": 100, "digest": "ab" * 32} | changes
    files[GATE_NAME] = {algorithm if key == "digest" else key: value for key, value in entry.items()}
    with pytest.raises(ArtifactError, match=r"malformed size or digest for gate\.bin"):
        parse_manifest(_fields(made, files=files))


@pytest.mark.parametrize("algorithm", ["blake3", "sha256"])
def test_both_digests_are_read(made: LockedModel, algorithm: Algorithm) -> None:
    files = made.manifest()["files"] | {GATE_NAME: {"bytes": 100, algorithm: "ab" * 32}}
    assert parse_manifest(_fields(made, files=files)).files[GATE_NAME] == FileDigest(100, "ab" * 32, algorithm)


def test_a_huge_size_is_refused_before_memory_is_taken(model: LockedModel) -> None:
    fields = model.manifest()
    fields["files"][WEIGHTS_NAME]["bytes"] = 2**40
    huge = model.write_manifest(canonical_json(fields))
    with pytest.raises(DigestError, match="expected 1099511627776"), read_model_files(huge.path) as files:
        files.external()


def test_a_manifest_larger_than_its_bound_is_not_parsed(model: LockedModel) -> None:
    path = model.path / MANIFEST_NAME
    with path.open("r+b") as file:
        file.truncate(4 * 2**20 + 1)
    with pytest.raises(ArtifactError, match="expected at most 4194304"):
        read_manifest(model.path)


def test_a_manifest_round_trips(made: LockedModel) -> None:
    manifest, _ = read_manifest(made.path)
    assert parse_manifest(manifest.serialize()) == manifest
    renamed = replace(manifest, model={**manifest.model, "name": "other"})
    assert model_id_of(renamed.serialize()) != made.model_id


_names = st.sampled_from(sorted({"bool", "uint8", "float16", "float32", "int64"}))
_gates = st.lists(
    st.builds(GateTensor, st.text(max_size=20), _names, st.lists(st.integers(1, 2**31 - 1), max_size=4).map(tuple)),
    min_size=1,
    max_size=5,
    unique_by=lambda tensor: tensor.name,
).map(tuple)


@settings(deadline=None)
@given(_gates, st.integers(0, 2**30), st.binary(min_size=32, max_size=32))
def test_every_well_formed_manifest_round_trips(gate: tuple[GateTensor, ...], size: int, digest: bytes) -> None:
    files = dict.fromkeys((GRAPH_NAME, GATE_NAME), FileDigest(size, digest.hex()))
    manifest = Manifest({"name": "m"}, {}, gate, files)
    assert parse_manifest(manifest.serialize()) == manifest
    assert json.loads(manifest.serialize())["format"] == FORMAT


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode) | st.builds(canonical_json, st.dictionaries(
    st.sampled_from(["format", "model", "lock", "gate", "files", "x"]),
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(FORMAT),
                 lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)),
)))  # fmt: skip
def test_nothing_else_parses_and_nothing_crashes(data: bytes) -> None:
    with pytest.raises((ArtifactError, FormatError)):
        parse_manifest(data)


def test_bits_are_flipped_where_they_should_be() -> None:
    assert flip(b"\x00\x00", 9) == b"\x00\x02"
    assert np.unpackbits(np.frombuffer(flip(bytes(4), 31), np.uint8)).sum() == 1
