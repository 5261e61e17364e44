"""PKCS#11 URIs (RFC 7512), the part of them that names one key: strict, and without secrets inside."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from keylatch.errors import DeviceKeyError, PassphraseError
from keylatch.keys._file_device_key import file_location
from keylatch.keys._files import read_private_file
from keylatch.keys._passphrase import MAX_PASSPHRASE_BYTES, PassphraseCallback, ask_passphrase

PATH_ATTRIBUTES = frozenset({"token", "serial", "slot-id", "object", "id"})
QUERY_ATTRIBUTES = frozenset({"module-path", "pin-source"})

# RFC 7512 section 2.3, pk11-pchar and pk11-qchar: anything else must be percent-encoded.
_PATH_VALUE = re.compile(r"(?:[A-Za-z0-9._~:\[\]@!$'()*+,=&-]|%[0-9A-Fa-f]{2})+")
_QUERY_VALUE = re.compile(r"(?:[A-Za-z0-9._~:\[\]@!$'()*+,=/?|-]|%[0-9A-Fa-f]{2})+")

# CK_SLOT_ID is an unsigned long of 32 or 64 bits.
_SLOT_ID = re.compile(r"[0-9]{1,20}")

_EXAMPLE = "write pkcs11:token=NAME;object=NAME?module-path=/usr/lib/softhsm/libsofthsm2.so"


@dataclass(frozen=True, slots=True)
class KeyUri:
    """One key on one token.

    Attributes:
        module_path: The vendor's library, an absolute path.
        token: The token's label.
        serial: Its serial number.
        slot_id: The slot it is in.
        label: The key's label, ``object`` in the URI.
        key_id: The key's CKA_ID, ``id`` in the URI.
        pin_source: A file that holds the user PIN.
    """

    module_path: Path
    token: str | None = None
    serial: str | None = None
    slot_id: int | None = None
    label: str | None = None
    key_id: bytes | None = None
    pin_source: Path | None = None

    @property
    def token_name(self) -> str:
        """What errors call the token."""
        if self.token is not None:
            return f"token {self.token}"
        return f"token in slot {self.slot_id}" if self.serial is None else f"token with serial {self.serial}"

    @property
    def key_name(self) -> str:
        """What errors call the key."""
        named = f"with id {self.key_id.hex()}" if self.key_id is not None and self.label is None else self.label
        return f"key {named} on {self.token_name}"


def parse_key_uri(location: str) -> KeyUri:
    """Reads a PKCS#11 URI, without its scheme.

    Args:
        location: ``token=…;object=…?module-path=…``: what follows ``pkcs11:``.

    Raises:
        DeviceKeyError: An unknown or repeated attribute, a PIN inside, no module, or no token or key named.
    """
    path, _, query = location.partition("?")
    values = _read_attributes(path, ";", PATH_ATTRIBUTES, _PATH_VALUE)
    values |= _read_attributes(query, "&", QUERY_ATTRIBUTES, _QUERY_VALUE)
    _check_named(values)
    return KeyUri(
        module_path=_absolute(_text(values, "module-path")),
        token=_optional_text(values, "token"),
        serial=_optional_text(values, "serial"),
        slot_id=_slot_id(values),
        label=_optional_text(values, "object"),
        key_id=values.get("id"),
        pin_source=_pin_file(values),
    )


def read_pin(uri: KeyUri, passphrase: PassphraseCallback | None) -> str:
    """Returns the user PIN, from the URI's file or else from the callback.

    It is a string, which cannot be wiped, because that is what python-pkcs11 takes.

    Raises:
        PassphraseError: There is none, or it is no UTF-8 (as PKCS#11 wants PINs).
        DeviceKeyError: The file is missing, a link, another user's or open to others.
    """
    name = f"PIN of {uri.token_name}"
    if uri.pin_source is not None:
        data = read_private_file(uri.pin_source, what="PIN file", max_bytes=MAX_PASSPHRASE_BYTES)
        pin = data.removesuffix(b"\n").removesuffix(b"\r")
    elif passphrase is not None:
        pin = ask_passphrase(passphrase, name).reveal()
    else:
        hint = "give a passphrase callback, or add pin-source=file:PATH to the key's URI"
        raise PassphraseError(f"{name} is needed and was not given", hint=hint)
    try:
        return pin.decode("utf-8")
    except UnicodeDecodeError:
        raise PassphraseError(f"{name} is not UTF-8", hint="give the PIN as UTF-8 text") from None


def _read_attributes(part: str, separator: str, known: frozenset[str], allowed: re.Pattern[str]) -> dict[str, bytes]:
    values: dict[str, bytes] = {}
    for name, value in _split(part, separator):
        _check_name(name, known)
        if name in values:
            raise DeviceKeyError(f"pkcs11: URI repeats {name}", hint=f"give {name} once")
        if not allowed.fullmatch(value):
            hint = "percent-encode what is not a letter, digit or one of -._~ (RFC 7512 section 2.3)"
            raise DeviceKeyError(f"pkcs11: URI has an empty or unencoded {name}", hint=hint)
        values[name] = unquote_to_bytes(value)
    return values


def _split(part: str, separator: str) -> Iterator[tuple[str, str]]:
    for attribute in part.split(separator) if part else ():
        name, _, value = attribute.partition("=")
        yield name, value


def _check_name(name: str, known: frozenset[str]) -> None:
    # Errors name attributes and never quote values: one of them may be a PIN.
    if name == "pin-value":
        hint = "put the PIN into a file with mode 0600 and write pin-source=file:PATH, or leave it out to be asked"
        raise DeviceKeyError("pkcs11: URI holds a PIN, which command lines, logs and process lists show", hint=hint)
    if name == "module-name":
        hint = "write module-path= with the library's absolute path"
        raise DeviceKeyError("pkcs11: URI has module-name, which depends on the system's search path", hint=hint)
    if name not in known:
        supported = ", ".join(sorted(known))
        found = f"pkcs11: URI has unknown attribute {name!a:.40}, expected {supported}"
        raise DeviceKeyError(found, hint=_EXAMPLE)


def _check_named(values: Mapping[str, bytes]) -> None:
    # RFC 7512 lets an absent attribute match anything; a key must not depend on what else is plugged in.
    for what, names in (
        ("module", ("module-path",)),
        ("token", ("token", "serial", "slot-id")),
        ("key", ("object", "id")),
    ):
        if values.keys().isdisjoint(names):
            raise DeviceKeyError(f"pkcs11: URI names no {what}, expected {' or '.join(names)}", hint=_EXAMPLE)


def _text(values: Mapping[str, bytes], name: str) -> str:
    try:
        text = values[name].decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    # Control characters have no place in a name, and would forge lines in a log.
    if not text.isprintable() or not text:
        raise DeviceKeyError(f"pkcs11: URI has a {name} that is not printable UTF-8", hint=_EXAMPLE)
    return text


def _optional_text(values: Mapping[str, bytes], name: str) -> str | None:
    return _text(values, name) if name in values else None


def _slot_id(values: Mapping[str, bytes]) -> int | None:
    text = _optional_text(values, "slot-id")
    if text is not None and not _SLOT_ID.fullmatch(text):
        raise DeviceKeyError("pkcs11: URI has a slot-id that is no decimal number", hint=_EXAMPLE)
    return None if text is None else int(text)


def _absolute(path: str) -> Path:
    # Without a slash the dynamic linker would search LD_LIBRARY_PATH: the environment must not choose code.
    if not path.startswith("/"):
        hint = "write the library's absolute path, such as /usr/lib/softhsm/libsofthsm2.so"
        raise DeviceKeyError(f"PKCS#11 module {path} is not an absolute path", hint=hint)
    return Path(path)


def _pin_file(values: Mapping[str, bytes]) -> Path | None:
    source = _optional_text(values, "pin-source")
    if source is None:
        return None
    # RFC 7512 section 2.4 also allows "|program": no URI gets to run one.
    if not source.startswith("file:"):
        raise DeviceKeyError("pkcs11: URI has a pin-source that is no file:", hint="write pin-source=file:PATH")
    return Path(file_location(source.removeprefix("file:")))
