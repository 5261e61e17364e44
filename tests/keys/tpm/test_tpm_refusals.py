"""Each way in which a TPM can refuse, provoked in a real one, and the error that it becomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from tpm_world import Simulator, give, location, running

from keylatch.errors import (
    DeviceKeyError,
    FormatError,
    KeyStoreBusyError,
    KeyStoreLockedError,
    KeyStoreMissingError,
    PassphraseError,
    PlatformChangedError,
)
from keylatch.keys._encoding import canonical_json
from keylatch.keys._tpm import define_counter, generate_device_key, open_device_key
from keylatch.keys._tpm._key_file import TpmKeyFile

PEER = generate_private_key(SECP256R1()).public_key()


def test_a_changed_pcr_refuses_every_use_and_its_old_value_allows_it_again(
    own_tpm: Simulator, backend: str, tmp_path: Path
) -> None:
    key = generate_device_key(location(own_tpm, backend, tmp_path / "device.tpm", pcrs="sha256:0,7"), None)
    own_tpm.extend_pcr(8)
    key.exchange(PEER)
    own_tpm.extend_pcr(7)
    for use in (lambda: key.exchange(PEER), lambda: key.prove_possession(b"x")):
        with pytest.raises(PlatformChangedError) as caught:
            use()
        assert caught.value.hint and own_tpm.held() == []
    own_tpm.stop()
    own_tpm.start()
    open_device_key(location(own_tpm, backend, tmp_path / "device.tpm"), None).exchange(PEER)


def test_another_pcr_bank_holds_too(own_tpm: Simulator, backend: str, tmp_path: Path) -> None:
    key = generate_device_key(
        location(own_tpm, backend, tmp_path / "device.tpm", pcrs="sha384:1,2,3,4,5,6,7,8,9"), None
    )
    key.exchange(PEER)


def test_a_bank_that_is_switched_off_is_named(own_tpm: Simulator, backend: str, tmp_path: Path) -> None:
    # TPM2_PCR_Allocate of no PCR at all, in force from the next start on.
    own_tpm.authorized(0x12B, [0x4000000C], b"\0\0\0\1\0\x0c\3\0\0\0")
    own_tpm.stop()
    own_tpm.start()
    with pytest.raises(DeviceKeyError, match="keeps no PCR sha384:7") as caught:
        generate_device_key(location(own_tpm, backend, tmp_path / "device.tpm", pcrs="sha384:7"), None)
    assert caught.value.hint


def test_pcrs_that_anybody_resets_are_refused(tpm: Simulator, backend: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceKeyError, match="16 and 23 can be reset"):
        generate_device_key(location(tpm, backend, tmp_path / "device.tpm", pcrs="sha256:7,16"), None)


def test_a_uri_cannot_say_other_pcrs_than_the_file(tpm: Simulator, backend: str, tmp_path: Path) -> None:
    path = tmp_path / "device.tpm"
    generate_device_key(location(tpm, backend, path), None)
    open_device_key(location(tpm, backend, path, pcrs="sha256:7"), None)
    with pytest.raises(DeviceKeyError, match="bound to PCRs sha256:7, but the URI says sha256:0"):
        open_device_key(location(tpm, backend, path, pcrs="sha256:0"), None)


def test_wrong_pins_are_told_from_a_lockout_and_then_lock(own_tpm: Simulator, backend: str, tmp_path: Path) -> None:
    path = tmp_path / "device.tpm"
    own_tpm.set_lockout(tries=3, seconds=1000)
    right = generate_device_key(location(own_tpm, backend, path), give(b"4711"))
    wrong = open_device_key(location(own_tpm, backend, path), give(b"4712"))
    for _ in range(3):
        with pytest.raises(PassphraseError, match="wrong PIN") as caught:
            wrong.exchange(PEER)
        assert caught.value.hint and b"4712".decode() not in str(caught.value)
        assert own_tpm.held() == []
    for key in (wrong, right):
        with pytest.raises(KeyStoreLockedError) as locked:
            key.exchange(PEER)
        assert locked.value.hint
    without = generate_device_key(location(own_tpm, backend, tmp_path / "no-pin.tpm"), None)
    without.exchange(PEER)  # others' guesses do not lock a key that has no PIN
    own_tpm.end_lockout()
    right.exchange(PEER)


def test_a_changed_pcr_costs_no_pin(own_tpm: Simulator, backend: str, tmp_path: Path) -> None:
    own_tpm.set_lockout(tries=1, seconds=1000)
    key = generate_device_key(location(own_tpm, backend, tmp_path / "device.tpm"), give(b"4711"))
    own_tpm.extend_pcr(7)
    wrong = open_device_key(location(own_tpm, backend, tmp_path / "device.tpm"), give(b"4712"))
    for either in (key, wrong, wrong):
        with pytest.raises(PlatformChangedError):
            either.exchange(PEER)


@pytest.mark.parametrize("fill", [Simulator.create_primary, Simulator.start_session])
def test_a_tpm_without_a_free_slot_is_busy_and_then_serves(
    tpm: Simulator, backend: str, tmp_path: Path, fill: Any
) -> None:
    key = generate_device_key(location(tpm, backend, tmp_path / "device.tpm"), None)
    held = [fill(tpm) for _ in range(3)]
    try:
        with pytest.raises(KeyStoreBusyError, match="no free slot") as caught:
            key.exchange(PEER)
        assert caught.value.hint
        tpm.flush(held.pop())
        if fill is Simulator.create_primary:
            with pytest.raises(KeyStoreBusyError):
                key.exchange(PEER)  # one slot for the storage root key, none for the key
            assert sorted(tpm.held()) == sorted(held)
            tpm.flush(held.pop())
        key.exchange(PEER)
    finally:
        for handle in held:
            tpm.flush(handle)


def test_a_tpm_that_is_gone_does_not_answer(own_tpm: Simulator, backend: str, tmp_path: Path) -> None:
    path = tmp_path / "device.tpm"
    key = generate_device_key(location(own_tpm, backend, path), None)
    own_tpm.stop()
    for use in (
        lambda: key.exchange(PEER),
        lambda: open_device_key(location(own_tpm, backend, path), None),
        lambda: generate_device_key(location(own_tpm, backend, tmp_path / "new.tpm"), None),
        lambda: define_counter(location(own_tpm, backend, "nv=0x01800100")),
    ):
        with pytest.raises(KeyStoreMissingError, match="no TPM answers") as caught:
            use()
        assert caught.value.hint


def test_a_key_of_another_tpm_is_refused(tpm: Simulator, backend: str, tmp_path: Path) -> None:
    path = tmp_path / "device.tpm"
    with running(tmp_path / "other") as other:
        generate_device_key(location(other, backend, path), None)
        # Even one that claims to be of this TPM.
        generate_device_key(location(tpm, backend, tmp_path / "own.tpm"), None)
    with pytest.raises(DeviceKeyError, match="another TPM") as caught:
        open_device_key(location(tpm, backend, path), None)
    assert caught.value.hint
    theirs, ours = (json.loads(file.read_bytes()) for file in (path, tmp_path / "own.tpm"))
    (tmp_path / "claim.tpm").write_bytes(canonical_json({**theirs, "parent": ours["parent"]}) + b"\n")
    with pytest.raises(DeviceKeyError, match="is damaged"):
        open_device_key(location(tpm, backend, tmp_path / "claim.tpm"), None)


def test_an_owner_password_is_named(own_tpm: Simulator, backend: str, tmp_path: Path) -> None:
    own_tpm.set_owner_password(b"owner")
    with pytest.raises(DeviceKeyError, match="owner has set an authorization") as caught:
        generate_device_key(location(own_tpm, backend, tmp_path / "device.tpm"), None)
    assert caught.value.hint and list(tmp_path.glob("device.tpm")) == []


def test_other_refusals_carry_the_tpm_s_code(own_tpm: Simulator, backend: str, tmp_path: Path) -> None:
    key = generate_device_key(location(own_tpm, backend, tmp_path / "device.tpm"), None)
    own_tpm.authorized(0x121, [0x4000000C], b"\x40\x00\x00\x01\x00")  # TPM2_HierarchyControl: owner hierarchy off
    with pytest.raises(DeviceKeyError, match=r"hierarchy is not enabled.* \(0x00000185\)") as caught:
        key.exchange(PEER)
    assert type(caught.value) is DeviceKeyError


def test_every_bit_of_a_key_file_is_refused_here_or_by_the_tpm(
    key_file: bytes, tpm: Simulator, backend: str, tmp_path: Path
) -> None:
    path, passed = tmp_path / "device.tpm", []
    for position in range(8 * len(key_file)):
        damaged = bytearray(key_file)
        damaged[position // 8] ^= 1 << position % 8
        try:
            TpmKeyFile.parse(bytes(damaged), "it")
        except FormatError:
            continue
        passed.append(bytes(damaged))
    # Only what the TPM has wrapped itself, and its name, are left to it: one in nine of those, for time's sake.
    assert 0 < len(passed) < 8 * 300
    for damaged in passed[::9]:
        path.write_bytes(damaged)
        with pytest.raises(DeviceKeyError) as caught:
            open_device_key(location(tpm, backend, path), None)
        assert caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        {"format": "keylatch-device-key"}, {"version": 2}, {"version": True}, {"pin": True}, {"pin": 0}, {"pin": None},
        {"pcrs": "sha256:0"}, {"pcrs": "sha256:16"}, {"pcrs": 7}, {"pcrs": "sha384:7"}, {"public": ""}, {"public": 1},
        {"private": ""}, {"private": "AAA"}, {"parent": ""}, {"pcr_digest": ""}, {"pcr_digest": "A" * 43}, {"more": 1},
        {"public": "A" * 160}, {"private": "/" * 40}, {"version": "1"}, {"parent": "A" * 43},
    ],
)  # fmt: skip
def test_every_member_of_a_key_file_counts(key_file: bytes, change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "device.tpm"
    path.write_bytes(canonical_json({**json.loads(key_file), **change}) + b"\n")
    with pytest.raises(DeviceKeyError) as caught:
        TpmKeyFile.load(path)
    assert type(caught.value) is DeviceKeyError and caught.value.hint


def test_a_key_file_has_one_spelling(key_file: bytes) -> None:
    members = json.loads(key_file)
    swapped = json.dumps(dict(reversed(members.items())), separators=(",", ":")).encode()
    for other in (key_file.rstrip(), key_file + b"\n", b" " + key_file, json.dumps(members).encode(), swapped + b"\n"):
        with pytest.raises(FormatError, match="canonical form"):
            TpmKeyFile.parse(other, "it")


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", b"x" * 5000, b'{"format":"keylatch-tpm-key","version":1}']
)
def test_what_is_no_key_file_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "device.tpm").write_bytes(data)
    with pytest.raises(DeviceKeyError) as caught:
        open_device_key(str(tmp_path / "device.tpm"), None)
    assert caught.value.hint


def test_a_missing_key_file_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(DeviceKeyError, match="does not exist"):
        open_device_key(str(tmp_path / "device.tpm"), None)


def test_the_other_half_of_the_same_point_is_refused(
    key_file: bytes, tpm: Simulator, backend: str, tmp_path: Path
) -> None:
    # (x, -y) is on the curve and passes every check but the TPM's own: its wrapping covers the public area's name.
    file = TpmKeyFile.parse(key_file, "it")
    prime = 2**256 - 2**224 + 2**192 + 2**96 - 1
    y = prime - int.from_bytes(file.public[-32:], "big")
    altered = TpmKeyFile(
        file.public[:-32] + y.to_bytes(32, "big"), file.private, file.parent, file.pcrs, file.pcr_digest, file.pin
    )
    altered.save(tmp_path / "device.tpm")
    with pytest.raises(DeviceKeyError, match="is damaged"):
        open_device_key(location(tpm, backend, tmp_path / "device.tpm"), None)
