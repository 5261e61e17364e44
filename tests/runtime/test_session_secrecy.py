"""Secrets stay in memory: not in files, not in errors, not in what is printed, pickled or copied."""

from __future__ import annotations

import copy
import gc
import pickle
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from runtime_world import LockedModel, flip, same

from keylatch.errors import DigestError, IntegrityError, KeylatchError
from keylatch.keys import FileDeviceKey, write_license
from keylatch.runtime import InferenceSession, _known_answer, _opening, _session, _weights_file

PIECE_BYTES = 16


def pieces(values: Mapping[str, np.ndarray]) -> set[bytes]:
    """16-byte pieces of the secret values, four numbers each; those that could stand anywhere (0, 1) are left out."""
    found = set()
    for value in values.values():
        if value.dtype == np.float32:
            data = value.tobytes()
            cut = {data[at : at + PIECE_BYTES] for at in range(0, len(data) - PIECE_BYTES + 1, PIECE_BYTES)}
            found |= {piece for piece in cut if len(set(np.frombuffer(piece, np.float32).tolist()) - {0.0, 1.0}) >= 2}
    return found


def files_with_secrets(model: LockedModel, *folders: Path) -> list[Path]:
    secret = pieces(model.section)
    assert len(secret) > 50
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path for path in paths if any(piece in path.read_bytes() for piece in secret)]


def test_no_file_holds_secret_bytes_after_opening_and_running(
    model: LockedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, scratch = tmp_path / "work", tmp_path / "scratch"
    for folder in (work, scratch):
        folder.mkdir()
    monkeypatch.chdir(work)
    for name in ("TMPDIR", "TEMP", "TMP", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    write_license(tmp_path / "acme.license", model.license())
    session = model.open(license=tmp_path / "acme.license")
    assert same(session.run(None, model.feed())[0], model.keyed)
    InferenceSession.locked(model.path).run(None, model.feed())
    session.end_profiling()
    assert files_with_secrets(model, tmp_path) == []
    del session
    gc.collect()
    assert files_with_secrets(model, tmp_path) == []
    assert list(work.iterdir()) == list(scratch.iterdir()) == []


def test_the_scan_finds_secret_bytes_where_they_are(model: LockedModel, tmp_path: Path) -> None:
    """The control of the test above."""
    planted = tmp_path / "a" / "dump.bin"
    planted.parent.mkdir()
    planted.write_bytes(b"x" * 37 + min(pieces(model.section)) + b"x")
    assert files_with_secrets(model, tmp_path) == [planted]


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deepcopy", "pickle"])
def test_a_session_is_not_copied(made: LockedModel, way: Callable[[Any], Any]) -> None:
    for session in (made.open(), InferenceSession.locked(made.path)):
        with pytest.raises(TypeError, match="not pickled or copied"):
            way(session)
        with pytest.raises(TypeError, match="not pickled or copied"):
            way([session]) if way is not copy.copy else way(session)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle_protocol_takes_a_session(made: LockedModel, protocol: int) -> None:
    with pytest.raises(TypeError, match="not pickled or copied"):
        pickle.dumps(made.open(), protocol)


def test_the_repr_names_model_and_customer_and_no_secret(made: LockedModel) -> None:
    session, locked = made.open(), InferenceSession.locked(made.path)
    assert repr(session) == f"<keylatch InferenceSession, model {made.model_id[:8]}…, licensed to ACME Vision>"
    assert repr(locked) == f"<keylatch InferenceSession, model {made.model_id[:8]}…, locked>"
    assert f"{session}" == str(session) == repr(session)


@pytest.mark.parametrize("small_bytes", [1000, 2**22])
def test_a_refused_session_can_still_be_printed(
    model: LockedModel, monkeypatch: pytest.MonkeyPatch, small_bytes: int
) -> None:
    """Debuggers and crash reports print what stands in a traceback's frames."""
    monkeypatch.setattr(_weights_file, "_SMALL_BYTES", small_bytes)  # small weights are verified before anything else
    path = model.path / "model.onnx.data"
    path.write_bytes(flip(path.read_bytes(), 9))
    session = InferenceSession.__new__(InferenceSession)
    with pytest.raises(DigestError):
        session.__init__(model.path, **model.credentials())  # type: ignore[misc]
    assert (model.model_id[:8] if small_bytes == 1000 else "unknown") in repr(session)


def _attributes(session: Any) -> list[np.ndarray]:
    """Every array within reach of a session's attributes."""
    found, seen, level = [], set(), [session.__dict__]
    while level:
        node = level.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, np.ndarray):
            found.append(node)
        elif isinstance(node, dict):
            level.extend(node.values())
        elif isinstance(node, (list, tuple, set)):
            level.extend(node)
    return found


def test_no_attribute_of_a_session_holds_secret_values(made: LockedModel) -> None:
    session = made.open()
    secret = pieces(made.section)
    for _ in range(2):
        arrays = [array.tobytes() for array in _attributes(session)]
        assert arrays
        assert not any(piece in data for piece in secret for data in arrays)
        session.run(None, made.feed())
    assert session._admission._unchecked_answer is None  # nor, once it was checked, what the check needs


def test_our_arrays_of_secret_values_are_wiped_and_the_session_lives_on(
    made: LockedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, np.ndarray] = {}
    put = _session.put_in_place

    def keeping(options: Any, external: Any, values: Mapping[str, np.ndarray]) -> None:
        kept.update(values)
        assert all(np.array_equal(values[name], made.section[name]) for name in values)
        put(options, external, values)

    monkeypatch.setattr(_session, "put_in_place", keeping)
    session = made.open()
    assert set(kept) == set(made.defaults)
    assert all(not value.any() for value in kept.values())
    kept.clear()
    gc.collect()
    churn = [np.full(2**16, 7, np.uint8) for _ in range(64)]
    for _ in range(3):
        assert same(session.run(None, made.feed())[0], made.keyed)
    assert len(churn) == 64


def test_the_arrays_that_decryption_returned_are_wiped_too(made: LockedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, np.ndarray] = {}
    decrypt = _opening.decrypt_license

    def keeping(*arguments: Any) -> dict[str, np.ndarray]:
        # Writable, as some versions of safetensors make them.
        kept.update({name: np.array(value) for name, value in decrypt(*arguments).items()})
        return dict(kept)

    monkeypatch.setattr(_opening, "decrypt_license", keeping)
    session = made.open()
    assert all(not kept[name].any() for name in made.defaults)
    assert same(session.run(None, made.feed())[0], made.keyed)


def test_the_arrays_are_wiped_when_the_opening_fails_too(model: LockedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, np.ndarray] = {}
    put = _session.put_in_place
    monkeypatch.setattr(_session, "put_in_place", lambda o, e, values: (kept.update(values), put(o, e, values)))
    monkeypatch.setattr(_weights_file, "_SMALL_BYTES", 1000)  # large weights fail after the session is made
    path = model.path / "model.onnx.data"
    path.write_bytes(flip(path.read_bytes(), 9))
    with pytest.raises(DigestError):
        model.open()
    assert set(kept) == set(model.defaults)
    assert all(not value.any() for value in kept.values())


def test_a_session_holds_the_memory_that_its_weights_lie_in(model: LockedModel) -> None:
    """Weights are used where they lie; the files, and whoever opened them, may go."""
    session = model.open()
    for path in model.path.iterdir():
        path.unlink()
    gc.collect()
    churn = [np.full(2**18, 255, np.uint8) for _ in range(16)]
    assert same(session.run(None, model.feed())[0], model.keyed)
    assert len(churn) == 16


def _wrong_shape(model: LockedModel) -> dict[str, Any]:
    values = model.values()
    values["gate.patch"] = values["gate.patch"].reshape(-1)
    return values


def _wrong_name(model: LockedModel) -> dict[str, Any]:
    values = model.values()
    values["gate.other"] = values.pop("gate.patch")
    return values


def _no_answer(model: LockedModel) -> dict[str, Any]:
    values = model.values()
    del values[_known_answer.TAG]
    return values


def _wrong_answer(model: LockedModel) -> dict[str, Any]:
    values = model.values()
    values[_known_answer.TAG] = values[_known_answer.TAG] ^ np.uint8(1)
    return values


@pytest.mark.parametrize("values", [_wrong_shape, _wrong_name, _no_answer, _wrong_answer])
def test_an_integrity_error_tells_nothing(made: LockedModel, values: Callable[[LockedModel], dict[str, Any]]) -> None:
    license = made.license(secret_values=values(made))
    with pytest.raises(IntegrityError) as caught:
        made.open(license=license).run(None, made.feed())
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    text = "".join(traceback.format_exception(error)) + repr(error) + str(error)
    _assert_no_secret(made, text)
    assert str(error) == str(IntegrityError())
    assert error.args == (error.message,)


def _assert_no_secret(model: LockedModel, text: str) -> None:
    shown = text.encode("utf-8", "surrogateescape")
    for piece in pieces(model.section):
        assert piece not in shown
        assert piece.hex() not in text
        assert repr(piece)[2:-1] not in text
        assert not any(repr(number) in text for number in np.frombuffer(piece, np.float32).tolist() if number % 1)


def test_a_damaged_license_tells_nothing(made: LockedModel) -> None:
    license, texts = made.license(), []
    for device in (FileDeviceKey(made.foreign_device._key), made.device):
        for bit in (0, 1000, 4001):
            with pytest.raises(KeylatchError) as caught:
                made.open(license=flip(license.serialize(), 8 * 1000 + bit), key=device)
            texts.append("".join(traceback.format_exception(caught.value)))
    for text in texts:
        _assert_no_secret(made, text)


def test_nothing_is_printed(made: LockedModel, capfd: pytest.CaptureFixture[str]) -> None:
    session = made.open()
    session.run(None, made.feed())
    InferenceSession.locked(made.path).run(None, made.feed())
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        session.run(["nothing"], made.feed())
    assert capfd.readouterr() == ("", "")
