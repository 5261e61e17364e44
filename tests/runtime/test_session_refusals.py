"""The refusal matrix: every substitution has its own error; no session is made and nothing is written."""

from __future__ import annotations

import hmac
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from runtime_world import DAY, LockedModel, flip, gate_layout, listing, run_calls, unpadded

from keylatch.errors import (
    ArtifactError,
    DeviceKeyError,
    DigestError,
    FormatError,
    IntegrityError,
    KeylatchError,
    LicenseExpiredError,
    LicenseNotYetValidError,
    LicensePartsError,
    PassphraseError,
    SignatureError,
    WrongDeviceError,
    WrongModelError,
)
from keylatch.keys import FileDeviceKey, License, SecretBytes, canonical_json, current_time, parse_license
from keylatch.runtime import InferenceSession, _known_answer, _session, _weights_file

FILES = ("manifest.json", "model.onnx", "model.onnx.data", "gate.bin")


@dataclass
class Scene:
    """A model in a folder of its own, watched."""

    model: LockedModel
    root: Path
    made: list[Any]

    def refused(self, error: type[KeylatchError], **changes: Any) -> KeylatchError:
        before = listing(self.root)
        with pytest.raises(KeylatchError) as caught:
            InferenceSession(self.model.path, **self.model.credentials(**changes))
        assert type(caught.value) is error, repr(caught.value)
        assert caught.value.hint
        assert "\n" not in caught.value.message
        assert listing(self.root) == before
        for instance in self.made:
            assert instance._sess is None
        return caught.value


@pytest.fixture
def scene(model: LockedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    work, scratch = tmp_path / "work", tmp_path / "scratch"
    work.mkdir()
    scratch.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    made: list[Any] = []
    plain = onnxruntime.InferenceSession.__init__

    def spy(self: Any, *arguments: Any, **options: Any) -> None:
        made.append(self)
        plain(self, *arguments, **options)

    monkeypatch.setattr(onnxruntime.InferenceSession, "__init__", spy)
    return Scene(model, tmp_path, made)


# --- the license


def _swapped(model: LockedModel) -> list[License]:
    one, two = model.license(), model.license()
    return [replace(one, jwe=two.jwe), replace(one, blob=two.blob), replace(one, jwe=two.jwe, blob=two.blob)]


@pytest.mark.parametrize("which", [0, 1, 2], ids=["jwe", "blob", "both"])
def test_parts_of_another_license_are_refused(scene: Scene, which: int) -> None:
    scene.refused(LicensePartsError, license=_swapped(scene.model)[which])
    assert not scene.made


def test_a_truncated_license_is_refused_at_every_length(scene: Scene) -> None:
    data = scene.model.license().serialize()
    lengths = {*range(24), len(data) - 1, *range(0, len(data), max(1, len(data) // 23))}
    for length in lengths:
        scene.refused(FormatError, license=data[:length])
    scene.refused(FormatError, license=data + b"\0")
    assert not scene.made


def test_flipped_bits_of_a_license_are_refused(made: LockedModel) -> None:
    data = made.license().serialize()
    draws = np.random.default_rng(7)
    seen = set()
    bits = {*range(21 * 8), *(8 * byte + int(draws.integers(8)) for byte in range(21, len(data), 3))}
    for bit in sorted(bits):
        with pytest.raises(KeylatchError) as caught:
            made.opened(flip(data, bit))
        seen.add(type(caught.value))
    assert seen == {FormatError, SignatureError, LicensePartsError}


def test_the_unflipped_license_passes_the_same_steps(made: LockedModel) -> None:
    values = made.opened(made.license().serialize()).values
    assert {name: (v.dtype.name, v.shape) for name, v in values.items()} == gate_layout(made)


def test_a_flipped_byte_in_each_part_makes_no_session(scene: Scene) -> None:
    license = scene.model.license()
    middle = len(license.jwt) // 2
    scene.refused(FormatError, license=flip(license.serialize(), 3))
    scene.refused(SignatureError, license=replace(license, jwt=flip(license.jwt, 8 * middle)))
    scene.refused(LicensePartsError, license=replace(license, jwe=flip(license.jwe, 800)))
    scene.refused(LicensePartsError, license=replace(license, blob=flip(license.blob, 800)))
    assert not scene.made


def _at(**offsets: int) -> Callable[[LockedModel], dict[str, Any]]:
    def changes(model: LockedModel) -> dict[str, Any]:
        times = {name: current_time() + seconds for name, seconds in offsets.items()}
        return {"license": model.license(issued_at=current_time() - 20 * DAY, **times)}

    return changes


def _unsigned(model: LockedModel) -> dict[str, Any]:
    license = model.license()
    return {"license": replace(license, jwt=license.jwt.rpartition(b".")[0] + b".")}


def _header(**changes: Any) -> Callable[[LockedModel], dict[str, Any]]:
    def forged(model: LockedModel) -> dict[str, Any]:
        license = model.license()
        return {"license": replace(license, jwt=model.sign({**model.header(), **changes}, model.payload(license)))}

    return forged


def _hmac(model: LockedModel) -> dict[str, Any]:
    license = model.license()
    header = unpadded(json.dumps({**model.header(), "alg": "HS256"}).encode())
    signed = header + b"." + unpadded(json.dumps(model.payload(license)).encode())
    mac = hmac.digest(model.issuer.public.key.public_bytes_raw(), signed, "sha256")
    return {"license": replace(license, jwt=signed + b"." + unpadded(mac))}


def _foreign_claims(**claims: Any) -> Callable[[LockedModel], dict[str, Any]]:
    """Altered claims under somebody else's signature, in the trusted issuer's name."""

    def forged(model: LockedModel) -> dict[str, Any]:
        license = model.license()
        impostor = replace(model, issuer=model.foreign_issuer)
        payload = {**model.payload(license), **claims}
        return {"license": replace(license, jwt=impostor.sign(model.header(), payload))}

    return forged


REFUSED_LICENSES: dict[str, tuple[Callable[[LockedModel], dict[str, Any]], type[KeylatchError], str]] = {
    "expired": (_at(not_before=-9 * DAY, expires_at=-1), LicenseExpiredError, "license expired"),
    "expired this second": (_at(not_before=-9 * DAY, expires_at=0), LicenseExpiredError, "license expired"),
    "not yet valid": (_at(not_before=60, expires_at=DAY), LicenseNotYetValidError, "license is valid from"),
    "unsigned": (_unsigned, SignatureError, "not signed"),
    "alg none": (_header(alg="none"), SignatureError, "has alg 'none', expected Ed25519"),
    "alg HS256 with the public key": (_hmac, SignatureError, "has alg 'HS256', expected Ed25519"),
    "alg EdDSA": (_header(alg="EdDSA"), SignatureError, "has alg"),
    "another type": (_header(typ="JWT"), SignatureError, "has typ"),
    "a key in the header": (_header(jwk={}), SignatureError, "header has fields"),
    "a later end, forged": (_foreign_claims(exp=9_999_999_999), SignatureError, "does not verify"),
    "nothing changed, forged": (_foreign_claims(), SignatureError, "does not verify"),
    "a foreign issuer": (
        lambda m: {"license": m.license(issuer=m.foreign_issuer)}, SignatureError, "is signed by issuer",
    ),
    "trust in another issuer": (lambda m: {"trust": m.foreign_issuer.public}, SignatureError, "is signed by issuer"),
    "another model": (lambda m: {"license": m.license(model_id="ab" * 32)}, WrongModelError, "for model abababab…"),
    "a foreign device": (lambda m: {"key": m.foreign_device}, WrongDeviceError, "license was issued to"),
    "issued to a foreign device": (
        lambda m: {"license": m.license(devices=[m.foreign_device.public])}, WrongDeviceError, "license was issued to",
    ),
    "no license file": (lambda m: {"license": m.path / "none.license"}, FormatError, "does not exist"),
    "the model as license": (lambda m: {"license": m.path / "gate.bin"}, FormatError, "not a license"),
    "no issuer file": (lambda m: {"trust": m.path / "none.pub"}, FormatError, "does not exist"),
    "no key file": (lambda m: {"key": "file:none.key"}, DeviceKeyError, "does not exist"),
    "an unknown key store": (lambda m: {"key": "floppy:device"}, DeviceKeyError, "not supported"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_LICENSES)
def test_the_license_is_refused(scene: Scene, case: str) -> None:
    changes, error, message = REFUSED_LICENSES[case]
    assert message in scene.refused(error, **changes(scene.model)).message
    assert not scene.made


def test_a_foreign_device_that_takes_our_name_is_refused(scene: Scene) -> None:
    model = scene.model

    class Impostor:
        public = model.device.public
        exchange = model.foreign_device.exchange

    scene.refused(IntegrityError, key=Impostor())
    assert not scene.made


# --- the key


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o644, 0o620])
def test_a_key_file_that_others_can_open_is_refused(scene: Scene, mode: int) -> None:
    path = scene.root / "device.key"
    device = FileDeviceKey.generate(path)
    path.chmod(mode)
    error = scene.refused(DeviceKeyError, license=scene.model.license(devices=[device.public]), key=path)
    assert f"mode {mode:04o}" in error.message
    assert not scene.made


@pytest.mark.parametrize("answer", [b"wrong", None])
def test_a_wrong_or_missing_passphrase_is_refused(scene: Scene, answer: bytes | None) -> None:
    path = scene.root / "device.key"
    device = FileDeviceKey.generate(path, lambda _: SecretBytes(b"correct horse"))
    license = scene.model.license(devices=[device.public])
    callback = None if answer is None else (lambda _: SecretBytes(answer))
    scene.refused(PassphraseError, license=license, key=path, passphrase=callback)
    assert not scene.made


# --- the model's files


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "link", "directory", "fifo", "hard to open"])
def test_a_file_that_is_no_regular_file_is_refused(scene: Scene, name: str, damage: str) -> None:
    path = scene.model.path / name
    elsewhere = scene.root / "elsewhere"
    path.rename(elsewhere)
    if damage == "link":
        path.symlink_to(elsewhere)
    elif damage == "directory":
        path.mkdir()
    elif damage == "fifo":
        os.mkfifo(path)
    elif damage == "hard to open":
        path.symlink_to(path.name)
    error = scene.refused(ArtifactError)
    assert name in error.message
    assert not scene.made


@pytest.mark.parametrize("name", [name for name in FILES if name != "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "extended", "first bit", "middle bit", "last bit"])
@pytest.mark.parametrize("small_bytes", [1000, 2**22])
def test_an_edited_file_is_refused(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, name: str, damage: str, small_bytes: int
) -> None:
    monkeypatch.setattr(_weights_file, "_SMALL_BYTES", small_bytes)
    path = scene.model.path / name
    data = path.read_bytes()
    damages = {
        "truncated": data[:-1], "empty": b"", "extended": data + b"\0",
        "first bit": flip(data, 0), "middle bit": flip(data, 4 * len(data)), "last bit": flip(data, 8 * len(data) - 1),
    }  # fmt: skip
    path.write_bytes(damages[damage])
    error = scene.refused(DigestError)
    assert name in error.message
    # Only large weights are hashed beside the making of the session, which is then discarded.
    beside = name == "model.onnx.data" and damage.endswith("bit") and small_bytes == 1000
    assert bool(scene.made) == beside


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "gate.bin"])
def test_a_locked_session_is_no_way_around_the_digests(scene: Scene, name: str) -> None:
    path = scene.model.path / name
    path.write_bytes(flip(path.read_bytes(), 77))
    with pytest.raises(DigestError, match=name):
        InferenceSession.locked(scene.model.path)
    assert all(instance._sess is None for instance in scene.made)


def test_files_of_another_model_are_refused(scene: Scene) -> None:
    fields = scene.model.manifest()
    fields["model"]["name"] = "another"
    other = scene.model.write_manifest(canonical_json(fields))
    assert f"does not fit this model, {other.model_id[:8]}…" in scene.refused(WrongModelError).message


def test_every_edited_field_of_the_manifest_is_refused(scene: Scene) -> None:
    model, original = scene.model, scene.model.manifest()
    leaves = list(_leaves(original))
    assert len(leaves) > 40
    errors = set()
    for edit in leaves:
        fields = json.loads(json.dumps(original))
        edit(fields)
        model.write_manifest(canonical_json(fields))
        with pytest.raises(KeylatchError) as caught:
            model.open()
        assert caught.value.hint
        errors.add(type(caught.value))
    assert errors == {ArtifactError, DigestError, WrongModelError}
    assert not scene.made


def _leaves(node: Any, route: tuple[Any, ...] = ()) -> Iterator[Callable[[Any], None]]:
    """One edit for each value in a JSON document."""
    for key in node if isinstance(node, dict) else range(len(node)):
        child = node[key]
        if isinstance(child, (dict, list)):
            yield from _leaves(child, (*route, key))
        else:
            yield lambda fields, route=(*route, key): _edit(fields, route)


def _edit(fields: Any, route: tuple[Any, ...]) -> None:
    for key in route[:-1]:
        fields = fields[key]
    value = fields[route[-1]]
    fields[route[-1]] = (
        value + 1 if isinstance(value, (int, float)) else value[:-1] + ("x" if value[-1] != "x" else "y")
    )


@pytest.mark.parametrize("path", ["absent.latch", "gate.bin", "nul\0.latch"])
def test_what_is_no_directory_is_refused(scene: Scene, path: str) -> None:
    (scene.root / "gate.bin").write_bytes(b"")
    before = listing(scene.root)
    with pytest.raises(ArtifactError) as caught:
        InferenceSession(scene.root / path, **scene.model.credentials())
    assert caught.value.hint
    assert listing(scene.root) == before


# --- the secret values of an otherwise valid license


def _cast(values: dict[str, Any]) -> None:
    values["gate.patch"] = values["gate.patch"].astype(np.float64)


def _reshape(values: dict[str, Any]) -> None:
    values["gate.patch"] = values["gate.patch"].reshape(3, 1, 8, 8)


def _squeeze(values: dict[str, Any]) -> None:
    values["gate.patch"] = values["gate.patch"].reshape(3, 8, 8)


def _same_size(values: dict[str, Any]) -> None:
    values["gate.patch"] = values["gate.patch"].view(np.int32)


def _rename(values: dict[str, Any]) -> None:
    values["gate.PATCH"] = values.pop("gate.patch")


def _extra(values: dict[str, Any]) -> None:
    values["another"] = np.zeros(3, np.float32)


def _of_the_body(values: dict[str, Any]) -> None:
    values["body.5.weight"] = np.zeros(3, np.float32)


def _fewer(values: dict[str, Any]) -> None:
    del values["gate.mask"]


def _nothing(values: dict[str, Any]) -> None:
    for name in [name for name in values if not name.startswith("known_answer.")]:
        del values[name]


@pytest.mark.parametrize(
    "edit", [_cast, _reshape, _squeeze, _same_size, _rename, _extra, _of_the_body, _fewer, _nothing]
)
def test_secret_values_that_are_not_the_manifest_s_are_refused(scene: Scene, edit: Callable[[Any], None]) -> None:
    values = scene.model.values()
    edit(values)
    scene.refused(IntegrityError, license=scene.model.license(secret_values=values))
    assert not scene.made


def _set(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda values: values.update({name: value})


KA = _known_answer
MALFORMED_ANSWERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{f"no {name}": (lambda values, name=name: values.pop(name)) for name in (KA.SEED, KA.IMAGES, KA.KEY, KA.TAG)},
    "no pairs": lambda values: values.pop(KA.PAIRS),
    "an unknown part": _set("known_answer.other", np.zeros(1, np.uint8)),
    "the answer in clear": _set(KA.BITS, np.zeros(128, np.bool_)),
    "no pair": _set(KA.PAIRS, np.zeros((0, 2), np.int64)),
    "triples": _set(KA.PAIRS, np.zeros((4, 3), np.int64)),
    "flat pairs": _set(KA.PAIRS, np.zeros(8, np.int64)),
    "a scalar": _set(KA.PAIRS, np.zeros((), np.int64)),
    "fractional pairs": _set(KA.PAIRS, np.zeros((4, 2), np.float32)),
    "negative pairs": _set(KA.PAIRS, np.full((4, 2), -1, np.int64)),
    "no images": _set(KA.IMAGES, np.array([0], np.int64)),
    "fewer than no images": _set(KA.IMAGES, np.array([-1], np.int64)),
    "too many images": _set(KA.IMAGES, np.array([2**40], np.int64)),
    "images as a scalar": _set(KA.IMAGES, np.array(1, np.int64)),
    "no image count": _set(KA.IMAGES, np.zeros(0, np.int64)),
    "a short seed": _set(KA.SEED, np.zeros(31, np.uint8)),
    "a short tag": _set(KA.TAG, np.zeros(31, np.uint8)),
    "an empty key": _set(KA.KEY, np.zeros(0, np.uint8)),
}


@pytest.mark.parametrize("case", MALFORMED_ANSWERS)
def test_a_license_with_a_malformed_known_answer_is_refused(scene: Scene, case: str) -> None:
    values = scene.model.values()
    MALFORMED_ANSWERS[case](values)
    scene.refused(IntegrityError, license=scene.model.license(secret_values=values))
    assert not scene.made


# --- a license that opens the model to something else: refused at the first run, whichever it is


def _locked_defaults(values: dict[str, Any], model: LockedModel) -> None:
    values.update({name: np.array(value) for name, value in model.defaults.items()})


def _other_patch(values: dict[str, Any], model: LockedModel) -> None:
    values["gate.patch"] = 1 - values["gate.patch"]


def _no_mask(values: dict[str, Any], model: LockedModel) -> None:
    values["gate.mask"] = np.zeros_like(values["gate.mask"])


def _nan(values: dict[str, Any], model: LockedModel) -> None:
    values["gate.patch"] = np.full_like(values["gate.patch"], np.nan)


def _other_tag(values: dict[str, Any], model: LockedModel) -> None:
    values[KA.TAG] = values[KA.TAG] ^ np.uint8(1)


def _other_key(values: dict[str, Any], model: LockedModel) -> None:
    values[KA.KEY] = values[KA.KEY] ^ np.uint8(128)


def _other_seed(values: dict[str, Any], model: LockedModel) -> None:
    values[KA.SEED] = values[KA.SEED] ^ np.uint8(255)


def _outside(values: dict[str, Any], model: LockedModel) -> None:
    pairs = values[KA.PAIRS].copy()
    pairs[-1, 1] = 10**6
    values[KA.PAIRS] = pairs


@pytest.mark.parametrize(
    "edit", [_locked_defaults, _other_patch, _no_mask, _nan, _other_tag, _other_key, _other_seed, _outside]
)
def test_a_model_that_is_not_really_open_answers_nothing_ever(
    made: LockedModel, edit: Callable[[dict[str, Any], LockedModel], None]
) -> None:
    values = made.values()
    edit(values, made)
    session = made.open(license=made.license(secret_values=values))
    for _ in range(2):
        for call in run_calls(session, made.feed()).values():
            with pytest.raises(IntegrityError) as caught:
                call()
            assert caught.value.hint


def test_every_way_to_run_is_checked_first(made: LockedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    class CheckedFirstError(Exception):
        pass

    def check(*_: Any) -> None:
        raise CheckedFirstError

    monkeypatch.setattr(_session._known_answer, "verify_known_answer", check)
    calls = run_calls(made.open(), made.feed())
    assert set(calls) == {name for name in dir(onnxruntime.InferenceSession) if name.startswith("run")}
    for call in calls.values():
        with pytest.raises(CheckedFirstError):
            call()


def test_an_override_that_onnxruntime_ignores_is_noticed(made: LockedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    put = _session.put_in_place
    monkeypatch.setattr(_session, "put_in_place", lambda options, external, values: put(options, external, {}))
    session = made.open()
    with pytest.raises(IntegrityError):
        session.run(None, made.feed())


@pytest.mark.parametrize("small_bytes", [1000, 2**22])
def test_after_a_refused_opening_the_object_is_dead(
    model: LockedModel, monkeypatch: pytest.MonkeyPatch, small_bytes: int
) -> None:
    monkeypatch.setattr(_weights_file, "_SMALL_BYTES", small_bytes)  # small ones are verified before it is made
    path = model.path / "model.onnx.data"
    path.write_bytes(flip(path.read_bytes(), 100))
    session = InferenceSession.__new__(InferenceSession)
    with pytest.raises(DigestError):
        session.__init__(model.path, **model.credentials())  # type: ignore[misc]
    assert session._sess is None
    with pytest.raises(AttributeError):
        session.run(None, model.feed())


def test_damaged_copies_are_told_from_undamaged_ones_only_by_their_bytes(scene: Scene) -> None:
    """The control of this file: the same steps with nothing changed open the model."""
    data = scene.model.license().serialize()
    assert parse_license(data).serialize() == data
    session = InferenceSession(scene.model.path, **scene.model.credentials(license=data))
    assert len(scene.made) == 1
    assert session.run(None, scene.model.feed())[0].shape == scene.model.keyed.shape
