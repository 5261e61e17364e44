"""What a token answers, as errors that say what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import pkcs11

from keylatch.errors import (
    DeviceKeyError,
    KeylatchError,
    KeyStoreBusyError,
    KeyStoreLockedError,
    KeyStoreMissingError,
    OutputError,
    PassphraseError,
)


class _Answer(NamedTuple):
    error: type[KeylatchError]
    found: str
    hint: str


_WRONG_PIN = _Answer(PassphraseError, "did not take the PIN", "check the PIN; tokens lock after a few wrong ones")
_LOCKED = _Answer(
    KeyStoreLockedError,
    "is locked after too many wrong PINs",
    "unlock it with its own tool and the security officer's PIN",
)
_NO_PIN = _Answer(DeviceKeyError, "has no user PIN yet", "set one with the token's own tool")
_READ_ONLY = _Answer(OutputError, "is write-protected", "remove the protection, or name another token")
_BUSY = _Answer(KeyStoreBusyError, "has no free session or memory", "close other programs that use it, and try again")
_GONE = _Answer(KeyStoreMissingError, "is not there or does not answer", "check that it is plugged in and reachable")
_STALE = _Answer(
    DeviceKeyError,
    "was logged out or reset behind this key's back",
    "open the key again; let nothing else in this process log out of the token",
)
_UNSUPPORTED = _Answer(
    DeviceKeyError, "does not support what the key needs", "use a token with P-256 ECDH (devices) or Ed25519 (issuers)"
)
_OFFICER = _Answer(DeviceKeyError, "is in use by its security officer", "log the security officer out first")

_ANSWERS: dict[type[pkcs11.PKCS11Error], _Answer] = {
    pkcs11.PinIncorrect: _WRONG_PIN,
    pkcs11.PinInvalid: _WRONG_PIN,
    pkcs11.PinLenRange: _WRONG_PIN,
    pkcs11.PinExpired: _Answer(PassphraseError, "has an expired PIN", "set a new one with the token's own tool"),
    pkcs11.PinLocked: _LOCKED,
    pkcs11.UserPinNotInitialized: _NO_PIN,
    pkcs11.TokenWriteProtected: _READ_ONLY,
    pkcs11.SessionReadOnly: _READ_ONLY,
    pkcs11.SessionCount: _BUSY,
    pkcs11.DeviceMemory: _BUSY,
    pkcs11.TokenNotPresent: _GONE,
    pkcs11.TokenNotRecognised: _GONE,
    pkcs11.DeviceRemoved: _GONE,
    pkcs11.DeviceError: _GONE,
    pkcs11.SlotIDInvalid: _GONE,
    pkcs11.UserNotLoggedIn: _STALE,
    pkcs11.SessionClosed: _STALE,
    pkcs11.SessionHandleInvalid: _STALE,
    pkcs11.KeyHandleInvalid: _STALE,
    pkcs11.ObjectHandleInvalid: _STALE,
    pkcs11.MechanismInvalid: _UNSUPPORTED,
    pkcs11.FunctionNotSupported: _UNSUPPORTED,
    pkcs11.DomainParamsInvalid: _UNSUPPORTED,
    pkcs11.AnotherUserAlreadyLoggedIn: _OFFICER,
    pkcs11.SessionReadWriteSOExists: _OFFICER,
}


@contextlib.contextmanager
def token_errors(name: str) -> Iterator[None]:
    """Turns what python-pkcs11 raises inside into a `DeviceKeyError` or `OutputError`; `name` is the token's.

    Raises:
        KeyStoreLockedError: The token takes no PIN any more.
        PassphraseError: The PIN is wrong or expired.
        KeyStoreMissingError: The token is not there.
        KeyStoreBusyError: It has no free session, or no room.
        OutputError: It cannot be written.
        DeviceKeyError: Anything else that it answered.
    """
    try:
        yield
    except pkcs11.PKCS11Error as error:
        raise _token_error(error, name) from None


def check_token_flags(flags: pkcs11.TokenFlag, name: str) -> None:
    """Refuses a token that no PIN can open, before a try is spent on it.

    Raises:
        KeyStoreLockedError: It is locked.
        DeviceKeyError: It is not initialised, or has no user PIN.
    """
    if not flags & pkcs11.TokenFlag.TOKEN_INITIALIZED:
        hint = "initialise it with its own tool, such as softhsm2-util --init-token"
        raise DeviceKeyError(f"{name} is not initialised", hint=hint)
    if flags & pkcs11.TokenFlag.USER_PIN_LOCKED:
        raise _LOCKED.error(f"{name} {_LOCKED.found}", hint=_LOCKED.hint)
    if not flags & pkcs11.TokenFlag.USER_PIN_INITIALIZED:
        raise _NO_PIN.error(f"{name} {_NO_PIN.found}", hint=_NO_PIN.hint)


def check_writable(flags: pkcs11.TokenFlag, name: str) -> None:
    """Refuses a token on which no key can be made.

    Raises:
        OutputError: It is write-protected.
    """
    if flags & pkcs11.TokenFlag.WRITE_PROTECTED:
        raise _READ_ONLY.error(f"{name} {_READ_ONLY.found}", hint=_READ_ONLY.hint)


def answer_name(error: pkcs11.PKCS11Error) -> str:
    """Names an answer: by its class, one for each CKR_ value, or by the text where python-pkcs11 has no class."""
    return type(error).__name__ if type(error) is not pkcs11.PKCS11Error else f"{error!s:.100}"


def _token_error(error: pkcs11.PKCS11Error, name: str) -> KeylatchError:
    answer = _ANSWERS.get(type(error))
    if answer is not None:
        return answer.error(f"{name} {answer.found}", hint=answer.hint)
    return DeviceKeyError(f"{name} failed: {answer_name(error)}", hint="see the token's own log")
