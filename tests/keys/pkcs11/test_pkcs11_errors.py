"""What goes wrong with tokens, each with its own error and hint; `hsm_world` says what SoftHSM cannot play."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pkcs11
import pytest
from hsm_world import OFFICER_PIN, Asking, Hsm, give
from pkcs11 import Mechanism

from keylatch.errors import (
    DeviceKeyError,
    KeylatchError,
    KeyStoreBusyError,
    KeyStoreLockedError,
    KeyStoreMissingError,
    OutputError,
    PassphraseError,
)
from keylatch.keys import generate_device_key, generate_issuer_key, open_device_key, open_issuer_key
from keylatch.keys._pkcs11._errors import token_errors

WRONG_PIN = b"wrong 99887766"


def failure(uri: str, pin: Any = None, call: Any = open_device_key) -> KeylatchError:
    with pytest.raises(KeylatchError) as caught:
        call(uri, passphrase=pin or give())
    assert caught.value.hint
    assert WRONG_PIN.decode() not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("pin", [WRONG_PIN, b"1", b"x" * 300, b"correct horse 1234\n"])
def test_a_wrong_pin(hsm: Hsm, pin: bytes) -> None:
    raised = failure(hsm.uri("device", token="spare"), give(pin))
    assert type(raised) is PassphraseError
    assert raised.message == "wrong PIN for token spare"


def test_a_pin_from_a_file(hsm: Hsm, tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.touch(mode=0o600)
    pin.write_bytes(WRONG_PIN)
    location = hsm.uri("from file", token="spare", query=f"&pin-source=file:{pin}")
    assert type(failure(location, call=generate_device_key)) is PassphraseError
    pin.write_bytes(b"correct horse 1234\n")
    with pytest.raises(DeviceKeyError, match="does not exist"):
        open_device_key(location)


def test_the_last_try_is_announced(hsm: Hsm) -> None:
    assert "the next wrong one locks" in str(failure(hsm.uri("device", token="last-try"), give(WRONG_PIN)).hint)


def test_a_locked_token_is_not_even_asked(hsm: Hsm) -> None:
    asking = Asking()
    raised = failure(hsm.uri("device", token="locked"), asking)
    assert type(raised) is KeyStoreLockedError
    assert raised.message == "token locked is locked after too many wrong PINs"
    assert asking.asked == []


@pytest.mark.parametrize(("token", "asked"), [("no-pin", 0), ("no-pin-unsaid", 1)])
def test_a_token_without_a_user_pin(hsm: Hsm, token: str, asked: int) -> None:
    asking = Asking()
    raised = failure(hsm.uri("device", token=token), asking)
    assert type(raised) is DeviceKeyError
    assert raised.message == f"token {token} has no user PIN yet"
    assert len(asking.asked) == asked


def test_a_token_that_is_not_initialised(hsm: Hsm) -> None:
    slot = next(slot.slot_id for slot in hsm.library().get_slots() if not slot.get_token().label)
    raised = failure(f"pkcs11:slot-id={slot};object=device?module-path={hsm.module}")
    assert type(raised) is DeviceKeyError
    assert raised.message == f"token in slot {slot} is not initialised"


@pytest.mark.parametrize("call", [generate_device_key, generate_issuer_key])
def test_a_write_protected_token(hsm: Hsm, call: Any) -> None:
    raised = failure(hsm.uri("new", token="read-only"), call=call)
    assert type(raised) is OutputError
    assert raised.message == "token read-only is write-protected"


def test_no_such_token(hsm: Hsm) -> None:
    raised = failure(hsm.uri("device", token="elsewhere"))
    assert type(raised) is KeyStoreMissingError
    assert raised.message == "token elsewhere is not there"
    assert "'keys'" in str(raised.hint)
    for name in ("slot-id=4242424242", "serial=00", "token=keys;serial=00"):
        assert type(failure(f"pkcs11:{name};object=device?module-path={hsm.module}")) is KeyStoreMissingError


def test_several_tokens_of_one_name(hsm: Hsm) -> None:
    raised = failure(hsm.uri("device", token="twin"))
    assert type(raised) is DeviceKeyError
    assert raised.message == "2 tokens match token twin, expected one"
    serial = hsm.token("twin").serial.decode()
    assert "does not exist" in failure(hsm.uri("device", token="twin", more=f";serial={serial}")).message


@pytest.mark.parametrize("call", [open_device_key, open_issuer_key])
def test_no_such_key(hsm: Hsm, call: Any) -> None:
    raised = failure(hsm.uri("nobody"), call=call)
    assert type(raised) is DeviceKeyError
    assert raised.message == "key nobody on token keys does not exist"


def test_no_such_module(hsm: Hsm, tmp_path: Path) -> None:
    missing = failure(f"pkcs11:token=keys;object=device?module-path={tmp_path / 'missing.so'}")
    assert type(missing) is KeyStoreMissingError
    assert missing.message.endswith("missing.so does not exist")
    (tmp_path / "text.so").write_text("no library")
    for path in (tmp_path / "text.so", tmp_path):
        raised = failure(f"pkcs11:token=keys;object=device?module-path={path}")
        assert type(raised) is KeyStoreMissingError
        assert raised.message.endswith("is not a PKCS#11 module")


def test_a_library_that_is_no_module(hsm: Hsm) -> None:
    import _ctypes  # any shared library that is certainly there

    raised = failure(f"pkcs11:token=keys;object=device?module-path={_ctypes.__file__}")
    assert raised.message.endswith("is not a PKCS#11 module")


def test_a_token_in_use_by_its_security_officer(hsm: Hsm) -> None:
    # Not the spare token: the wrong PINs above left sessions open there, and the officer wants to be alone.
    twin = hsm.token("twin")
    with twin.open(rw=True, so_pin=OFFICER_PIN.decode()):
        raised = failure(hsm.uri("device", token="twin", more=f";serial={twin.serial.decode()}"))
    assert type(raised) is DeviceKeyError
    assert "in use by its security officer" in raised.message


def test_a_mechanism_that_the_token_does_not_have(hsm: Hsm, device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # SoftHSM answers CKR_MECHANISM_INVALID to this one, as a token without Ed25519 does to CKM_EC_EDWARDS_KEY_PAIR_GEN.
    class Without:
        EC_EDWARDS_KEY_PAIR_GEN = Mechanism.X9_42_DH_KEY_PAIR_GEN
        EC_KEY_PAIR_GEN = Mechanism.X9_42_DH_KEY_PAIR_GEN

    monkeypatch.setattr("keylatch.keys._pkcs11._objects.Mechanism", Without)
    for call in (generate_device_key, generate_issuer_key):
        raised = failure(hsm.uri("unsupported"), call=call)
        assert type(raised) is DeviceKeyError
        assert "does not support what the key needs" in raised.message
        assert "Ed25519" in str(raised.hint)


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (pkcs11.PinIncorrect, PassphraseError, "did not take the PIN"),
        (pkcs11.PinInvalid, PassphraseError, "did not take the PIN"),
        (pkcs11.PinLenRange, PassphraseError, "did not take the PIN"),
        (pkcs11.PinExpired, PassphraseError, "has an expired PIN"),
        (pkcs11.PinLocked, KeyStoreLockedError, "is locked after too many wrong PINs"),
        (pkcs11.UserPinNotInitialized, DeviceKeyError, "has no user PIN yet"),
        (pkcs11.SessionCount, KeyStoreBusyError, "has no free session"),
        (pkcs11.DeviceMemory, KeyStoreBusyError, "has no free session"),
        (pkcs11.TokenNotPresent, KeyStoreMissingError, "is not there"),
        (pkcs11.DeviceRemoved, KeyStoreMissingError, "is not there"),
        (pkcs11.DeviceError, KeyStoreMissingError, "does not answer"),
        (pkcs11.TokenWriteProtected, OutputError, "is write-protected"),
        (pkcs11.SessionReadOnly, OutputError, "is write-protected"),
        (pkcs11.UserNotLoggedIn, DeviceKeyError, "logged out or reset"),
        (pkcs11.SessionHandleInvalid, DeviceKeyError, "logged out or reset"),
        (pkcs11.MechanismInvalid, DeviceKeyError, "does not support"),
        (pkcs11.GeneralError, DeviceKeyError, "failed: GeneralError"),
        (lambda: pkcs11.PKCS11Error("Unmapped error code 0x68"), DeviceKeyError, "failed: Unmapped error code 0x68"),
    ],
)
def test_answers_that_softhsm_never_gives(answer: Any, error: type[KeylatchError], message: str) -> None:
    with pytest.raises(KeylatchError) as caught, token_errors("token keys"):
        raise answer()
    assert type(caught.value) is error
    assert caught.value.message.startswith("token keys ")
    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("answer", "error"), [(pkcs11.PinLocked, KeyStoreLockedError), (pkcs11.SessionCount, KeyStoreBusyError)]
)
def test_answers_to_a_login_come_out_as_errors(
    hsm: Hsm, monkeypatch: pytest.MonkeyPatch, answer: Any, error: type[KeylatchError]
) -> None:
    def start(*arguments: object) -> None:
        raise answer

    monkeypatch.setattr("keylatch.keys._pkcs11._login._start", start)
    assert type(failure(hsm.uri("device", token="spare"))) is error
