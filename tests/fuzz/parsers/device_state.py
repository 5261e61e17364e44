"""The file that a device remembers in: nothing but what it wrote itself is believed."""

from __future__ import annotations

import json

from fuzz.attempts import REFUSED, attempt, must_refuse, require
from fuzz.byte_source import ByteSource
from fuzz.harnesses import DECISIONS, Harness
from fuzz.mutations import changed, changed_json
from fuzz.originals import DEVICE, FOREIGN_DEVICE, original
from keylatch.errors import StateEditedError
from keylatch.keys import canonical_json
from keylatch.keys._device_secret import derive_device_secret
from keylatch.keys._state_file import MAC_KEY_INFO, _mac, parse_state, serialize_state

_FILES = [original(name) for name in ("device.state", "device.other.state")]
_DEVICE, _MAC_KEY = DEVICE.public.thumbprint, derive_device_secret(DEVICE, MAC_KEY_INFO)
# An original that is refused would make every refusal worthless.
_RECORDS = [parse_state(data, _MAC_KEY, _DEVICE) for data in _FILES]
_FOREIGN_KEY = derive_device_secret(FOREIGN_DEVICE, MAC_KEY_INFO)


def parse(data: bytes) -> None:
    record = attempt(parse_state, data, _MAC_KEY, _DEVICE, errors=StateEditedError)
    must_refuse(record, data, _FILES)
    if record is not REFUSED:
        require(serialize_state(record, _MAC_KEY) == data, "a state does not serialize to what it was parsed from")
    # Even the right file is nothing to another device, whatever name it goes by.
    for name in (_DEVICE, FOREIGN_DEVICE.public.thumbprint):
        foreign = attempt(parse_state, data, _FOREIGN_KEY, name, errors=StateEditedError)
        require(foreign is REFUSED, "another device believed a state")


def parse_changed(data: bytes) -> None:
    source = ByteSource(data)
    edit = source.choose((changed, changed_json, changed_json))
    parse(edit(source, source.choose(_FILES), source.choose(_FILES)))


def parse_signed(data: bytes) -> None:
    """Changed, and then with the device's own MAC."""
    source = ByteSource(data)
    edited = changed_json(source, source.choose(_FILES), source.choose(_FILES))
    try:
        rest = json.loads(edited)
        rest.pop("mac", None)
        file = canonical_json({**rest, "mac": _mac(rest, _MAC_KEY)}) + b"\n"
    except (ValueError, RecursionError, AttributeError, TypeError):
        return
    record = attempt(parse_state, file, _MAC_KEY, _DEVICE, errors=StateEditedError)
    if record is not REFUSED:
        require(serialize_state(record, _MAC_KEY) == file, "a state does not serialize to what it was parsed from")


HARNESS = Harness(
    attacks=(parse, parse_changed, parse_signed),
    seeds=(tuple(_FILES), DECISIONS, DECISIONS),
    words=(b'"mac"', b'"seqs"', b'"high_water"', b'"signed_floor"', b'"list_seq"', b'"counter"', b'"nonce"', b"null",
           b'"state/1"', b"}\n", b'"device"'),
)  # fmt: skip
