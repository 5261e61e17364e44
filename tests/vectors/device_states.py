"""Device states: what only the device itself can have written."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDH
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keylatch.keys import HybridDeviceKey, canonical_json
from vectors.base_originals import MODEL_ID, NOW, OTHER_MODEL_ID
from vectors.named_keys import any_device, private_keys, seed
from vectors.signing import decode, encode, flip
from vectors.vector_file import Vector

KIND, EDITED, ROLLED_BACK = "device state", "StateEditedError", "StateRolledBackError"
DEVICE = ("device", "device")


def vectors() -> Iterator[Vector]:
    yield from _accepted()
    yield from _edits()
    yield from _spellings()
    yield from _others()
    yield from _counters()


def _members(name: str = "device", **changes: Any) -> dict[str, Any]:
    return {
        "keylatch": "state/1",
        "device": any_device(name).public.thumbprint,
        "nonce": encode(seed("state nonce")).decode(),
        "high_water": NOW,
        "signed_floor": NOW - 60,
        "list_seq": 6,
        "seqs": {MODEL_ID: 42},
        "counter": None,
        **changes,
    }


def _mac_key(name: str) -> bytes:
    key = any_device(name)
    first, *more = private_keys(key)
    if isinstance(key, HybridDeviceKey):
        secret = first.private_bytes_raw() + more[0].private_bytes_raw()
    else:
        secret = first.exchange(ECDH(), first.public_key())
    return HKDF(SHA256(), length=32, salt=None, info=b"keylatch/1 device state").derive(secret)


def _mac(members: dict[str, Any], name: str = "device") -> str:
    return encode(hmac.digest(_mac_key(name), canonical_json(members), "sha256")).decode()


def _state(members: dict[str, Any], name: str = "device") -> bytes:
    return canonical_json({**members, "mac": _mac(members, name)}) + b"\n"


def _vector(name: str, expect: str, comment: str, data: bytes, *headers: tuple[str, str]) -> Vector:
    return Vector(f"device-state/{name}", expect, KIND, comment, headers or (DEVICE,), data)


def _accepted() -> Iterator[Vector]:
    def accepted(name: str, comment: str, *headers: tuple[str, str], **changes: Any) -> Vector:
        members = _members(dict([DEVICE, *headers])["device"], **changes)
        shown = canonical_json({name: value for name, value in members.items() if name != "keylatch"}).decode()
        data = _state(members, dict([DEVICE, *headers])["device"])
        return _vector(name, "success", comment, data, *(headers or (DEVICE,)), ("record", shown))

    yield accepted("p256", "of a P-256 device")
    yield accepted("hybrid", "of a hybrid device", ("device", "hybrid"))
    yield accepted("new", "of a device that has seen nothing", signed_floor=0, list_seq=0, seqs={})
    yield accepted("two-models", "two models were opened", seqs={MODEL_ID: 2**53 - 1, OTHER_MODEL_ID: 1})
    yield accepted("counter", "with a counter that stands where the state says", DEVICE, ("counter", "3"), counter=3)
    comment = "with a counter one less: a write was cut short before it was raised"
    yield accepted("counter-cut-short", comment, DEVICE, ("counter", "3"), counter=4)


def _edits() -> Iterator[Vector]:
    members = _members()
    mac = _mac(members)
    edits: dict[str, Any] = {
        "nonce": encode(seed("earlier state nonce")).decode(),
        "high_water": NOW - 1,
        "signed_floor": 0,
        "list_seq": 5,
        "seqs": {MODEL_ID: 41},
        "counter": 1,
    }
    for member, value in edits.items():
        data = canonical_json({**members, member: value, "mac": mac}) + b"\n"
        yield _vector(f"{member}-edited", EDITED, f"{member} was changed", data)
    for member in members:
        rest = {name: value for name, value in members.items() if name != member}
        yield _vector(
            f"{member}-removed", EDITED, f"{member} was removed", canonical_json({**rest, "mac": mac}) + b"\n"
        )
    added = canonical_json({**members, "note": 1, "mac": mac}) + b"\n"
    yield _vector("member-added", EDITED, "a member note was added", added)
    macs: dict[str, tuple[object, str]] = {
        "flipped": (encode(flip(decode(mac.encode()))).decode(), "the MAC's last bit is flipped"),
        "stray-bits": (mac[:-1] + chr(ord(mac[-1]) + 1), "the MAC has a stray bit in its last character"),
        "padded": (mac + "=", "the MAC is padded"),
        "short": (mac[:-1], "the MAC is cut short"),
        "empty": ("", "the MAC is empty"),
        "null": (None, "the MAC is null"),
        "number": (0, "the MAC is a number"),
        "surrogate": ("\ud800", "the MAC is half a character"),
        "all-zero": (encode(bytes(32)).decode(), "the MAC is all zeros"),
        "without-key": (encode(hmac.digest(b"", canonical_json(members), "sha256")).decode(), "the MAC's key is empty"),
    }
    for name, (wrong, comment) in macs.items():
        yield _vector(f"mac-{name}", EDITED, comment, canonical_json({**members, "mac": wrong}) + b"\n")
    yield _vector("mac-missing", EDITED, "there is no MAC", canonical_json(members) + b"\n")


def _spellings() -> Iterator[Vector]:
    """The same members under the same MAC, written in another way."""
    data = _state(_members())
    first, _, seqs = data[1:-2].partition(b',"seqs":')
    spellings = {
        "without-newline": (data[:-1], "the last newline is gone"),
        "second-newline": (data + b"\n", "there is a second newline"),
        "spaced": (data.replace(b",", b", "), "spaces follow the commas"),
        "reordered": (b'{"seqs":%s,%s}\n' % (seqs, first), "the members stand in another order"),
        "escaped": (data.replace(b"state/1", b"state\\/1"), "the slash is escaped"),
        "list_seq-twice": (data.replace(b'"list_seq":6', b'"list_seq":9,"list_seq":6'), "list_seq stands twice"),
        "truncated": (data[:-20], "the file is cut short"),
        "empty": (b"", "the file is empty"),
        "list": (b"[" + data + b"]", "it is a list"),
        "not-utf8": (data.replace(b"state/1", b"state\xff1"), "it is not UTF-8"),
    }  # fmt: skip
    for name, (changed, comment) in spellings.items():
        yield _vector(name, EDITED, comment, changed)


def _others() -> Iterator[Vector]:
    other = _members("foreign-device")
    yield _vector("device-other", EDITED, "another device wrote it", _state(other, "foreign-device"))
    named = _members("foreign-device")
    yield _vector("device-renamed", EDITED, "it names another device, under our MAC", _state(named))
    forged = _state(_members(high_water=0), "foreign-device")
    yield _vector("mac-foreign", EDITED, "it names this device, under another device's MAC", forged)
    for version in ("state/2", "trust/1", 1):
        data = _state(_members(keylatch=version))
        yield _vector(
            f"version-{str(version).replace('/', '-')}", EDITED, f"the version is {version}, under our MAC", data
        )
    for member in ("nonce", "high_water", "signed_floor", "list_seq", "seqs", "counter"):
        rest = {name: value for name, value in _members().items() if name != member}
        yield _vector(f"{member}-missing", EDITED, f"there is no {member}, under our MAC", _state(rest))
    foreign: dict[str, tuple[dict[str, Any], str]] = {
        "member-unknown": ({"note": 1}, "there is an unknown member"),
        "high_water-negative": ({"high_water": -1}, "high_water is negative"),
        "high_water-true": ({"high_water": True}, "high_water is true"),
        "list_seq-2-53": ({"list_seq": 2**53}, "list_seq is 2^53"),
        "seqs-0": ({"seqs": {MODEL_ID: 0}}, "a model's seq is 0"),
        "seqs-name": ({"seqs": {"model": 1}}, "a model's id is no digest"),
        "seqs-list": ({"seqs": [MODEL_ID]}, "seqs is a list"),
        "counter-negative": ({"counter": -1}, "counter is negative"),
        "nonce-short": ({"nonce": "A" * 42}, "nonce has 42 characters"),
    }
    for name, (changes, comment) in foreign.items():
        yield _vector(name, EDITED, f"{comment}, under our MAC", _state(_members(**changes)))


def _counters() -> Iterator[Vector]:
    at_nine = (DEVICE, ("counter", "9"), ("way", "file"))
    old = _state(_members(counter=8))
    yield _vector("counter-one-behind", ROLLED_BACK, "the counter stands at 9, the state at 8", old, *at_nine)
    ahead = _state(_members(counter=11))
    yield _vector("counter-ahead", ROLLED_BACK, "the counter stands at 9, the state at 11", ahead, *at_nine)
    without = _state(_members(list_seq=0))
    comment = "the counter stands at 9, and the state was made without one"
    yield _vector("counter-not-stated", ROLLED_BACK, comment, without, *at_nine)
    comment = "the state was made with a counter, and none is given"
    alone = (DEVICE, ("way", "file"))
    yield _vector("counter-not-given", "DeviceStateError", comment, _state(_members(counter=5)), *alone)
    yield _vector("too-large", "DeviceStateError", "the file has 128 KiB and a byte", b" " * (128 * 1024 + 1), *alone)
