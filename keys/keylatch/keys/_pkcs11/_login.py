"""Logging in to a token, once for all its keys that are open in this process.

A login belongs to the process, not to a session: whoever logs out, logs everybody out (PKCS#11, C_Logout). So the keys
of one token share one session, and the last one to go closes it. Kept open, an ECDH costs 0.2 ms on SoftHSM; a login
each time would cost 0.7 ms more and a network HSM a round trip, and the PIN would have to stay in memory.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator

import pkcs11

from keylatch.errors import DeviceKeyError, KeylatchError, KeyStoreMissingError, PassphraseError
from keylatch.keys._passphrase import PassphraseCallback
from keylatch.keys._pkcs11._errors import check_token_flags, check_writable
from keylatch.keys._pkcs11._module import Login, Module, load_module
from keylatch.keys._pkcs11._uri import KeyUri, read_pin
from keylatch.keys._secret_bytes import Uncopyable


class TokenSession(Uncopyable):
    """One key's share of the login to its token; given back by `close`, when it is collected, or at exit."""

    __slots__ = ("__weakref__", "_module", "_name", "_release", "_session", "_token")

    def __init__(self, module: Module, token: pkcs11.Token, name: str, session: pkcs11.Session) -> None:
        self._module, self._token, self._name, self._session = module, token, name, session
        self._release = weakref.finalize(self, _give_back, module, token.slot.slot_id)

    @contextlib.contextmanager
    def calls(self) -> Iterator[pkcs11.Session]:
        """Lends the session, logged in, to one thread at a time.

        Raises:
            DeviceKeyError: The key was closed, this process was forked from the one that opened it, or the token
                failed.
        """
        with self._module.calls(self._name):
            if not self._release.alive:
                raise DeviceKeyError(f"the key on {self._name} was closed", hint="open the key again")
            yield self._session

    @contextlib.contextmanager
    def writes(self) -> Iterator[pkcs11.Session]:
        """Lends a second session, which can make and destroy objects on the token.

        Raises:
            OutputError: The token is write-protected.
            DeviceKeyError: As `calls`.
        """
        with self.calls():
            check_writable(self._token.flags, self._name)
            with self._token.open(rw=True) as session:
                yield session

    def close(self) -> None:
        """Gives the login back; the token's last key to do so logs out."""
        self._release()


@contextlib.contextmanager
def logged_in(uri: KeyUri, passphrase: PassphraseCallback | None) -> Iterator[TokenSession]:
    """Finds the URI's token and logs in to it; the login stays for the key that is opened inside, if it succeeds.

    While another key of that token is open in this process, the PIN is neither asked for nor checked: the login is
    the process's, and a token's login cannot be tested without logging out.

    Raises:
        PassphraseError: The PIN is missing, wrong or expired.
        KeyStoreLockedError: The token takes no PIN after too many wrong ones.
        KeyStoreMissingError: No such module or token.
        KeyStoreBusyError: The token has no session left.
        DeviceKeyError: Several tokens match, it is not initialised, or it failed.
    """
    module, name = load_module(uri.module_path), uri.token_name
    with module.calls(name):
        token = _find_token(module, uri)
        session = _join(module, token)
    if session is None:
        # Asked outside the lock: a user may take minutes to type.
        pin = read_pin(uri, passphrase)
        with module.calls(name):
            session = _join(module, token) or _start(module, token, pin, name)
    opened = TokenSession(module, token, name, session)
    try:
        yield opened
    except BaseException:
        # Not left to the collector: a traceback would keep the token logged in.
        opened.close()
        raise


def _find_token(module: Module, uri: KeyUri) -> pkcs11.Token:
    tokens = list(module.tokens())
    matching = [token for token in tokens if _matches(token, uri)]
    if not matching:
        present = ", ".join(repr(token.label) for token in tokens if token.flags & pkcs11.TokenFlag.TOKEN_INITIALIZED)
        hint = f"name one of the module's tokens: {present or 'it has none'}"
        raise KeyStoreMissingError(f"{uri.token_name} is not there", hint=hint)
    if len(matching) > 1:
        found = f"{len(matching)} tokens match {uri.token_name}, expected one"
        raise DeviceKeyError(found, hint="add serial= to the key's URI")
    check_token_flags(matching[0].flags, uri.token_name)
    return matching[0]


def _matches(token: pkcs11.Token, uri: KeyUri) -> bool:
    return (
        uri.token in (None, token.label)
        and uri.serial in (None, token.serial.decode("utf-8", "replace"))
        and uri.slot_id in (None, token.slot.slot_id)
    )


def _join(module: Module, token: pkcs11.Token) -> pkcs11.Session | None:
    login = module.logins.get(token.slot.slot_id)
    if login is None:
        return None
    login.keys += 1
    return login.session


def _start(module: Module, token: pkcs11.Token, pin: str, name: str) -> pkcs11.Session:
    # python-pkcs11 leaves the session open where the login fails, out of reach: a wrong PIN costs one session.
    try:
        session = token.open(user_pin=pin)
    except pkcs11.UserAlreadyLoggedIn:
        # Other code of this process is. A session without a PIN is logged in with it, and does not log out.
        session = token.open()
    except pkcs11.PinIncorrect:
        raise _wrong_pin(token.slot.get_token().flags, name) from None
    module.logins[token.slot.slot_id] = Login(session)
    return session


def _wrong_pin(flags: pkcs11.TokenFlag, name: str) -> PassphraseError:
    last = flags & pkcs11.TokenFlag.USER_PIN_FINAL_TRY
    warning = "the next wrong one locks the token" if last else "tokens lock after a few wrong ones"
    return PassphraseError(f"wrong PIN for {name}", hint=f"check the PIN; {warning}")


def _give_back(module: Module, slot_id: int) -> None:
    # Runs from the garbage collector and at exit too, where there is nobody to tell. A forked child is refused, and
    # leaves the parent logged in; a token that was pulled out has logged out by itself.
    with contextlib.suppress(KeylatchError), module.calls("token"):
        login = module.logins[slot_id]
        login.keys -= 1
        if not login.keys:
            del module.logins[slot_id]
            login.session.close()
