"""Weights that lie encrypted beside the model: the format, what it refuses, and a whole session."""

from __future__ import annotations

import re
import secrets
import shutil
from pathlib import Path

import numpy as np
import pytest

import networks
from keylatch.errors import ArtifactError, DigestError, IntegrityError, LicenseRequiredError
from keylatch.exporters import Exported, export
from keylatch.keys import FileDeviceKey, FileIssuerKey, current_time, issue_license, write_license
from keylatch.runtime import (
    KEY_NAME,
    MANIFEST_NAME,
    SEALED_NAME,
    WEIGHTS_NAME,
    InferenceSession,
    SealedWeights,
    model_id_of,
    parse_manifest,
    read_model_files,
    seal_weights,
    values_to_license,
)
from keylatch.runtime._sealed_weights import unseal_weights
from networks import PaddedConvs, settle

MODEL_ID = "ab" * 32
KEY = bytes(range(32))
CHUNK = 100
TAG = 16


def sealed_file(folder: Path, size: int, chunk: int = CHUNK) -> tuple[bytes, bytes, SealedWeights]:
    plain = np.random.default_rng(size).bytes(size)
    source, target = folder / "plain", folder / "sealed"
    source.write_bytes(plain)
    sealed = SealedWeights.of(size, chunk)
    seal_weights(source, target, KEY, MODEL_ID, sealed)
    return plain, target.read_bytes(), sealed


def unsealed(data: bytes, sealed: SealedWeights, key: bytes = KEY, model_id: str = MODEL_ID) -> bytes:
    def read(part: memoryview, offset: int) -> int:
        piece = data[offset : offset + min(len(part), 37)]  # reads may be short
        part[: len(piece)] = piece
        return len(piece)

    return unseal_weights(read, key, model_id, sealed).tobytes()


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 10 * CHUNK + 7])
def test_weights_come_back_whatever_their_size(tmp_path: Path, size: int) -> None:
    plain, data, sealed = sealed_file(tmp_path, size)
    assert len(data) == sealed.size_bytes == size + TAG * sealed.chunks
    assert sealed.plain_bytes == size
    assert unsealed(data, sealed) == plain


@pytest.mark.parametrize("position", [0, CHUNK - 1, CHUNK, CHUNK + TAG - 1, CHUNK + TAG, -TAG - 1, -1])
def test_any_flipped_bit_is_refused(tmp_path: Path, position: int) -> None:
    _, data, sealed = sealed_file(tmp_path, 3 * CHUNK)
    broken = bytearray(data)
    broken[position] ^= 1
    with pytest.raises(IntegrityError):
        unsealed(bytes(broken), sealed)


def chunks_of(data: bytes) -> list[bytes]:
    return [data[start : start + CHUNK + TAG] for start in range(0, len(data), CHUNK + TAG)]


REARRANGED = {
    "exchanged": lambda parts: [parts[1], parts[0], *parts[2:]],
    "repeated": lambda parts: [parts[0], parts[0], *parts[2:]],
    "last one left out": lambda parts: parts[:-1],
    "first one left out": lambda parts: parts[1:],
    "appended": lambda parts: [*parts, parts[-1]],
    "cut": lambda parts: [*parts[:-1], parts[-1][:-1]],
    "cut into the tag": lambda parts: [*parts[:-1], parts[-1][: TAG - 1]],
}


@pytest.mark.parametrize("change", REARRANGED)
def test_chunks_that_are_moved_left_out_or_cut_are_refused(tmp_path: Path, change: str) -> None:
    _, data, sealed = sealed_file(tmp_path, 4 * CHUNK)
    changed = b"".join(REARRANGED[change](chunks_of(data)))
    for claimed in (sealed, SealedWeights(len(changed), CHUNK)):  # whatever size a manifest claims
        if change == "appended" and claimed is sealed:
            continue  # nobody reads behind the claimed end; the file's size is checked before
        with pytest.raises(IntegrityError):
            unsealed(changed, claimed)


def test_another_key_or_model_does_not_open_it(tmp_path: Path) -> None:
    _, data, sealed = sealed_file(tmp_path, 2 * CHUNK)
    with pytest.raises(IntegrityError):
        unsealed(data, sealed, key=secrets.token_bytes(32))
    with pytest.raises(IntegrityError):
        unsealed(data, sealed, model_id="cd" * 32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Exported, networks.Locked]:
    locked = networks.lock(settle(PaddedConvs))
    folder = tmp_path_factory.mktemp("sealed")
    return export(locked.module, locked.secret, folder / "net.latch", report=locked.report, sealed_weights=True), locked


@pytest.fixture(scope="module")
def credentials(made: tuple[Exported, networks.Locked], tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return license_for(made[0], tmp_path_factory.mktemp("license"), {})


def license_for(exported: Exported, folder: Path, changed: dict[str, object]) -> dict[str, object]:
    issuer, device = FileIssuerKey.generate(), FileDeviceKey.generate(folder / "device.key")
    issuer.public.save(folder / "issuer.pub")
    values = {**values_to_license(exported.secret_values), **changed}
    license = issue_license(
        issuer=issuer, devices=[device.public], model_id=exported.model_id, customer="acme",
        secret_values={name: value for name, value in values.items() if value is not None},  # type: ignore[misc]
        not_before=current_time(), expires_at=current_time() + 1000,
    )  # fmt: skip
    write_license(folder / "acme.license", license)
    return {"license": folder / "acme.license", "key": f"file:{folder / 'device.key'}", "trust": folder / "issuer.pub"}


def test_a_sealed_model_answers_as_its_network_does(
    made: tuple[Exported, networks.Locked], credentials: dict[str, object]
) -> None:
    exported, locked = made
    session = InferenceSession(exported.path, **credentials)  # type: ignore[arg-type]
    images = networks.prepare(networks.pixels(3), networks.SPEC)
    with locked.module.opened(locked.secret):
        expected = locked.module(images).detach().numpy()
    assert np.allclose(session.run(None, {"image": images.numpy()})[0], expected, atol=1e-4)


def test_no_file_of_it_holds_plain_weights(made: tuple[Exported, networks.Locked]) -> None:
    exported, locked = made
    assert sorted(file.name for file in exported.path.iterdir()) == [
        "gate.bin",
        MANIFEST_NAME,
        "model.onnx",
        SEALED_NAME,
    ]
    files = b"".join(file.read_bytes() for file in exported.path.iterdir())
    weights = [value for name, value in locked.module.body.named_parameters() if value.numel() > 256]
    assert weights
    assert not any(value.detach().numpy().tobytes()[:64] in files for value in weights)
    assert exported.secret_values[KEY_NAME].tobytes() not in files


def test_it_does_not_run_locked(made: tuple[Exported, networks.Locked]) -> None:
    with pytest.raises(LicenseRequiredError, match="sealed") as caught:
        InferenceSession.locked(made[0].path)
    assert caught.value.hint


@pytest.mark.parametrize("key", [None, np.zeros(32, np.uint8), np.zeros(31, np.uint8), np.zeros(32, np.int8)])
def test_a_license_without_the_right_key_does_not_open_it(
    made: tuple[Exported, networks.Locked], tmp_path: Path, key: object
) -> None:
    wrong = license_for(made[0], tmp_path, {KEY_NAME: key})
    with pytest.raises(IntegrityError):
        InferenceSession(made[0].path, **wrong)  # type: ignore[arg-type]


def test_a_changed_or_shortened_file_does_not_open(
    made: tuple[Exported, networks.Locked], credentials: dict[str, object], tmp_path: Path
) -> None:
    folder = tmp_path / "net.latch"
    shutil.copytree(made[0].path, folder)
    path = folder / SEALED_NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(IntegrityError):
        InferenceSession(folder, **credentials)  # type: ignore[arg-type]
    path.write_bytes(whole[:-1])
    with pytest.raises(DigestError, match=f"{SEALED_NAME} has"):
        InferenceSession(folder, **credentials)  # type: ignore[arg-type]
    path.unlink()
    with pytest.raises(ArtifactError, match=f"{SEALED_NAME} is missing"):
        InferenceSession(folder, **credentials)  # type: ignore[arg-type]


MANIFESTS = {
    "plain weights beside it": lambda files: files | {WEIGHTS_NAME: {"bytes": 1, "sha256": "0" * 64}},
    "no chunk size": lambda files: files | {SEALED_NAME: {"bytes": 100}},
    "chunks of nothing": lambda files: files | {SEALED_NAME: {"bytes": 100, "chunk_bytes": 0}},
    "huge chunks": lambda files: files | {SEALED_NAME: {"bytes": 100, "chunk_bytes": 2**40}},
    "no room for a tag": lambda files: files | {SEALED_NAME: {"bytes": 15, "chunk_bytes": 100}},
    "a last chunk of a tag alone": lambda files: files | {SEALED_NAME: {"bytes": 132, "chunk_bytes": 100}},
    "a truth value": lambda files: files | {SEALED_NAME: {"bytes": 100, "chunk_bytes": True}},
    "a digest": lambda files: files | {SEALED_NAME: {"bytes": 100, "chunk_bytes": 100, "sha256": "0" * 64}},
}


@pytest.mark.parametrize("change", MANIFESTS)
def test_manifests_with_other_sizes_are_refused(made: tuple[Exported, networks.Locked], change: str) -> None:
    from keylatch.keys import canonical_json, parse_json_object

    fields = parse_json_object((made[0].path / MANIFEST_NAME).read_bytes(), "manifest", fractions=True)
    fields["files"] = MANIFESTS[change](fields["files"])
    with pytest.raises(ArtifactError, match=re.escape(SEALED_NAME)):
        parse_manifest(canonical_json(fields))


def test_the_manifest_says_how_it_is_sealed(made: tuple[Exported, networks.Locked]) -> None:
    data = (made[0].path / MANIFEST_NAME).read_bytes()
    manifest = parse_manifest(data)
    assert manifest.serialize() == data
    assert model_id_of(data) == made[0].model_id
    assert manifest.sealed is not None
    assert manifest.sealed.size_bytes == (made[0].path / SEALED_NAME).stat().st_size
    assert [tensor.name for tensor in manifest.secrets][-1] == KEY_NAME
    with read_model_files(made[0].path) as files:
        assert files.external(made[0].secret_values[KEY_NAME].tobytes())[WEIGHTS_NAME].nbytes
