from __future__ import annotations

import copy
import pickle
import traceback
from pathlib import Path

import numpy as np
import pytest

from keylatch.keys import FileDeviceKey, FileIssuerKey, SecretBytes, Vault

SECRET = b"correct horse battery staple"


@pytest.mark.parametrize("show", [repr, str, format, "{:x}".format, "{!r:>40}".format, lambda s: f"{s}", "{0}".format])
def test_showing_a_secret_shows_nothing_of_it(show: object) -> None:
    assert show(SecretBytes(SECRET)).strip() == "SecretBytes(hidden)"


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy, hash, vars, iter, bytes])
def test_a_secret_cannot_be_taken_out_by_accident(take: object) -> None:
    with pytest.raises(TypeError):
        take(SecretBytes(SECRET))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle_protocol_takes_keys_or_vaults(protocol: int, tmp_path: Path) -> None:
    vault = Vault({"lock": {"seed": np.frombuffer(SECRET, np.uint8)}})
    for holder in (SecretBytes(SECRET), FileIssuerKey.generate(), FileDeviceKey.generate(tmp_path / "k"), vault):
        for take in (lambda h: pickle.dumps(h, protocol), copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="holds secrets"):
                take(holder)


def test_equality_is_by_content_and_never_with_plain_bytes() -> None:
    assert SecretBytes(SECRET) == SecretBytes(SECRET)
    assert SecretBytes(SECRET) != SecretBytes(SECRET[:-1] + b"!")
    assert SecretBytes(SECRET) != SECRET


def test_equality_uses_the_constant_time_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: calls.append((a, b)) or True)
    assert SecretBytes(b"a") == SecretBytes(b"b")
    assert calls == [(b"a", b"b")]


def test_reveal_returns_the_secret_and_length_its_bytes() -> None:
    assert SecretBytes(SECRET).reveal() == SECRET
    assert len(SecretBytes(SECRET)) == len(SECRET)


def test_a_secret_does_not_follow_the_buffer_it_was_made_from() -> None:
    buffer = bytearray(SECRET)
    secret = SecretBytes(buffer)
    buffer[:] = bytes(len(buffer))
    assert secret.reveal() == SECRET


def test_wipe_overwrites_the_buffer_and_reveal_raises() -> None:
    secret = SecretBytes(SECRET)
    buffer = secret._data
    secret.wipe()
    secret.wipe()
    assert buffer == bytes(len(SECRET))
    assert len(secret) == 0
    with pytest.raises(ValueError, match="wiped"):
        secret.reveal()


def test_a_traceback_through_code_that_holds_a_secret_shows_nothing_of_it() -> None:
    secret = SecretBytes(SECRET)
    try:
        raise ValueError(f"failed with {secret} and {secret!r}")
    except ValueError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert SECRET.decode() not in shown.replace("SECRET = b", "")
    assert SecretBytes(SECRET).reveal().hex() not in shown
