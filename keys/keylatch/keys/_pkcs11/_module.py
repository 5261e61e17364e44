"""A PKCS#11 module, the vendor's library: loaded once a process, and called by one thread at a time."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pkcs11

from keylatch.errors import DeviceKeyError, KeyStoreMissingError
from keylatch.keys._pkcs11._errors import answer_name, token_errors

if TYPE_CHECKING:
    from pkcs11._pkcs11 import lib as Library


@dataclass(slots=True)
class Login:
    """A session on a token that its user is logged in to, and how many open keys share it."""

    session: pkcs11.Session
    keys: int = 1


class Module:
    """A loaded module.

    Attributes:
        logins: Slot to login, for the tokens with open keys; only touched inside `calls`.
    """

    def __init__(self, path: Path) -> None:
        self.logins: dict[int, Login] = {}
        self._path = path
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._library = _load_library(path)

    @contextlib.contextmanager
    def calls(self, name: str) -> Iterator[None]:
        """Stands around every call into the module: one thread at a time, and errors that speak of token `name`.

        python-pkcs11 initialises modules for one thread (C_Initialize without CK_C_INITIALIZE_ARGS) and then drops
        Python's lock during calls; SoftHSM switches its own locks off when asked so. Hence a lock for all sessions.

        A forked child has the parent's sessions in memory, but PKCS#11 does not let it use them (version 2.20, section
        6.6.1): with a module that does not notice, both would talk over one connection. It is told before it waits for
        the lock, which a thread of the parent may have held.

        Raises:
            DeviceKeyError: This process was forked from the one that loaded the module, or the token failed.
        """
        if os.getpid() != self._process:
            hint = "open PKCS#11 keys after the fork, in the process that uses them, or start it by spawn"
            raise DeviceKeyError(f"PKCS#11 module {self._path} was loaded before this process was forked", hint=hint)
        with self._lock, token_errors(name):
            yield

    def tokens(self) -> Iterator[pkcs11.Token]:
        """Yields the tokens that are there, initialised or not; only inside `calls`."""
        for slot in self._library.get_slots(token_present=True):
            # A token may be pulled out between the two calls.
            with contextlib.suppress(pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised):
                yield slot.get_token()


def load_module(path: Path) -> Module:
    """Returns the module at an absolute path, loading it if it is not.

    Raises:
        KeyStoreMissingError: No such file, or it is no PKCS#11 module.
        DeviceKeyError: It does not start.
    """
    try:
        # One library under two names would be initialised twice, which it refuses.
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise _missing(path, "does not exist") from None
    module = _modules.get(real)
    if module is None:
        with _loading:
            module = _modules.get(real) or _modules.setdefault(real, Module(real))
    return module


_modules: dict[Path, Module] = {}
_loading = threading.Lock()


def _load_library(path: Path) -> Library:
    try:
        return pkcs11.lib(str(path))
    except pkcs11.PKCS11Error as error:
        # The library has one class for all of this, and no code: only its text tells the cases apart.
        if "exception while loading" in str(error):
            raise _missing(path, "is not a PKCS#11 module") from None
        hint = "check its configuration; let nothing else in this process start it"
        raise DeviceKeyError(f"PKCS#11 module {path} does not start: {answer_name(error)}", hint=hint) from None


def _missing(path: Path, found: str) -> KeyStoreMissingError:
    return KeyStoreMissingError(f"PKCS#11 module {path} {found}", hint="check module-path in the key's URI")
