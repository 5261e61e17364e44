"""The file that a device remembers in, device.state: one line of canonical JSON, with a MAC that only the device makes.

    {"keylatch": "state/1", "device": thumbprint, "nonce": …, "high_water": seconds, "signed_floor": seconds,
     "list_seq": …, "seqs": {model_id: seq}, "counter": count or null, "mac": …}

The MAC is HMAC-SHA256 of the canonical JSON of the rest, under a secret of the device key, in base64url.
"""

from __future__ import annotations

import hmac
import os
from pathlib import Path

from keylatch.errors import DeviceKeyError, DeviceStateError, FormatError, StateEditedError, StateMissingError
from keylatch.keys._encoding import canonical_json, encode_base64url, parse_json_object
from keylatch.keys._files import read_private_file
from keylatch.keys._secret_bytes import SecretBytes
from keylatch.keys._state_record import StateRecord

STATE_VERSION = "state/1"
# HKDF's info, which keeps this secret of the device key apart from others.
MAC_KEY_INFO = b"keylatch/1 device state"
# 1024 models take 88 bytes each at most.
MAX_STATE_BYTES = 128 * 1024

_HINT = "put the newest copy of the file back, or ask the issuer what to do with this device"


def serialize_state(record: StateRecord, mac_key: SecretBytes) -> bytes:
    """Returns a state file's bytes; `parse_state` reads them back."""
    rest = {"keylatch": STATE_VERSION, **record.values()}
    return canonical_json({**rest, "mac": _mac(rest, mac_key)}) + b"\n"


def parse_state(data: bytes, mac_key: SecretBytes, device: str) -> StateRecord:
    """Returns what this device wrote.

    Args:
        data: The file's bytes.
        mac_key: The device's, derived with `MAC_KEY_INFO`.
        device: Thumbprint of the device key.

    Raises:
        StateEditedError: This device did not write these bytes.
    """
    try:
        value = parse_json_object(data, "device state")
    except FormatError as error:
        raise StateEditedError(error.message, hint=_HINT) from None
    if value.get("keylatch") != STATE_VERSION:
        found = f"device state has version {value.get('keylatch')!a:.20}, expected {STATE_VERSION}"
        raise StateEditedError(found, hint="upgrade keylatch, if a newer one wrote it; else " + _HINT)
    if value.get("device") != device:
        found = f"device state is of device {value.get('device')!a:.46}, expected {device}"
        raise StateEditedError(found, hint="give the state that this device key made")
    # One encoding for each value: with other white space or escapes the same MAC would fit other bytes.
    is_canonical = canonical_json(value) + b"\n" == data
    mac = value.pop("mac", None)
    if not is_canonical or not isinstance(mac, str) or not _is_equal(mac, _mac(value, mac_key)):
        raise StateEditedError("device state was altered since this device wrote it", hint=_HINT)
    del value["keylatch"]
    try:
        return StateRecord(**value)
    except (FormatError, TypeError):
        # Ours by its MAC: a version of Keylatch that wrote other members under the same name.
        raise StateEditedError("device state has members of another version", hint="upgrade keylatch") from None


def read_state_file(path: Path) -> bytes:
    """Reads a state file, if nobody else can read or replace it.

    Raises:
        StateMissingError: There is none.
        DeviceStateError: A link, not a regular file, another user's, open to others, or too large.
    """
    check_state_exists(path)
    try:
        return read_private_file(path, what="device state", max_bytes=MAX_STATE_BYTES)
    except DeviceKeyError as error:
        check_state_exists(path)  # gone just now
        raise DeviceStateError(error.message, hint=error.hint) from None


def check_state_exists(path: Path) -> None:
    """Tells a missing state from an unreadable one.

    Raises:
        StateMissingError: No file stands there.
    """
    if not os.path.lexists(path):
        hint = (
            "on a new device make it with `keylatch device init-state`; on one that has opened licenses, put the "
            "newest copy back, or ask the issuer: what the device remembered is lost"
        )
        raise StateMissingError(f"device state {path} does not exist", hint=hint)


def _mac(rest: dict[str, object], mac_key: SecretBytes) -> str:
    return encode_base64url(hmac.digest(mac_key.reveal(), canonical_json(rest), "sha256"))


def _is_equal(mac: str, expected: str) -> bool:
    # As text: two encodings of the same 32 bytes are not the same file. surrogatepass: JSON can hold half characters.
    return hmac.compare_digest(mac.encode("utf-8", "surrogatepass"), expected.encode("ascii"))
