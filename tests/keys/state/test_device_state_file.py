from __future__ import annotations

import copy
import json
import pickle
import resource
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from license_world import World
from state_world import NOW, FileCounter, StateWorld, make_state

from keylatch.errors import (
    DeviceStateError,
    OutputError,
    StateEditedError,
    StateMissingError,
    StateRolledBackError,
)
from keylatch.keys import HybridDeviceKey
from keylatch.keys._device_secret import derive_device_secret
from keylatch.keys._device_state import DeviceState
from keylatch.keys._encoding import canonical_json
from keylatch.keys._state_file import MAC_KEY_INFO, MAX_STATE_BYTES, parse_state


@pytest.fixture(scope="session")
def written(world: World, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    device = make_state(world, tmp_path_factory.mktemp("written"))
    device.state.remember(device.claims(), device.list(), now=NOW)
    return device.path.read_bytes()


def parse(world: World, data: bytes) -> Any:
    return parse_state(data, derive_device_secret(world.device, MAC_KEY_INFO), world.device.public.thumbprint)


def test_a_state_is_one_line_of_canonical_json_closed_to_others(device: StateWorld) -> None:
    data = device.path.read_bytes()
    assert data == canonical_json(json.loads(data)) + b"\n"
    assert sorted(json.loads(data)) == [
        "counter", "device", "high_water", "keylatch", "list_seq", "mac", "nonce", "seqs", "signed_floor",
    ]  # fmt: skip
    assert stat.S_IMODE(device.path.stat().st_mode) == 0o600
    device.state.remember(device.claims(), None, now=NOW)
    assert stat.S_IMODE(device.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(device.path.with_name("device.state.lock").stat().st_mode) == 0o600


def test_creating_never_replaces(device: StateWorld) -> None:
    device.state.remember(device.claims(), None, now=NOW)
    before = device.path.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        DeviceState.create(device.path, device.world.device, now=NOW)
    assert device.path.read_bytes() == before


def test_creating_where_nothing_can_be_written_is_an_output_error(world: World, tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "device.state", tmp_path / "null\0byte"):
        with pytest.raises(OutputError):
            DeviceState.create(path, world.device, now=NOW)


def test_opening_never_creates_and_leaves_nothing_behind(world: World, tmp_path: Path) -> None:
    for path in (tmp_path / "device.state", tmp_path / "missing" / "device.state", tmp_path / "null\0byte"):
        with pytest.raises(StateMissingError):
            DeviceState.open(path, world.device)
    assert not list(tmp_path.iterdir())


def test_every_use_of_a_state_that_is_gone_says_so(device: StateWorld) -> None:
    device.path.unlink()
    uses = [
        lambda: device.state.check(device.claims(), None, now=NOW),
        lambda: device.state.remember(device.claims(), None, now=NOW),
        lambda: device.state.remember_list(device.list(), now=NOW),
        lambda: device.state.advance(NOW),
        lambda: device.state.time_request(),
        lambda: device.state.apply_time_token(b"", device.trust, now=NOW),
    ]
    for use in uses:
        with pytest.raises(StateMissingError):
            use()


def test_another_device_s_state_is_refused_by_name(device: StateWorld) -> None:
    foreign = device.world.foreign_device
    with pytest.raises(StateEditedError, match=f"expected {foreign.public.thumbprint}"):
        device.open(key=foreign)


def test_renaming_the_device_in_another_one_s_state_does_not_help(device: StateWorld) -> None:
    foreign = device.world.foreign_device
    content = {**device.content(), "device": foreign.public.thumbprint}
    device.path.write_bytes(canonical_json(content) + b"\n")
    with pytest.raises(StateEditedError, match="was altered"):
        device.open(key=foreign)


def test_a_hybrid_device_key_keeps_a_state_too(world: World, tmp_path: Path) -> None:
    key = HybridDeviceKey.generate(tmp_path / "hybrid.key")
    DeviceState.create(tmp_path / "device.state", key, now=NOW)
    assert DeviceState.open(str(tmp_path / "device.state"), key).time_request().device == key.public.thumbprint
    with pytest.raises(StateEditedError):
        DeviceState.open(tmp_path / "device.state", world.device)


def test_each_write_has_a_nonce_of_its_own(device: StateWorld) -> None:
    seen = {device.content()["nonce"]}
    for hour in range(1, 5):
        device.state.advance(NOW + hour * 3600)
        seen.add(device.content()["nonce"])
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda path: path.chmod(0o640), "open to other users"),
        (lambda path: path.chmod(0o602), "open to other users"),
        (lambda path: path.symlink_to(path.rename(path.with_suffix(".real"))), "is a link"),
        (lambda path: (path.unlink(), path.mkdir(mode=0o700)), "is a directory"),
        (lambda path: path.write_bytes(b" " * (MAX_STATE_BYTES + 1)), "expected at most"),
    ],
)  # fmt: skip
def test_a_state_that_others_could_change_is_refused(device: StateWorld, prepare: Any, reason: str) -> None:
    prepare(device.path)
    with pytest.raises(DeviceStateError, match=reason) as caught:
        device.open()
    assert caught.value.hint
    with pytest.raises(DeviceStateError, match=reason):
        device.state.check(device.claims(), None, now=NOW)


def test_a_lock_that_is_a_link_is_refused(device: StateWorld, tmp_path: Path) -> None:
    lock = tmp_path / "device.state.lock"
    lock.unlink()
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="cannot be made"):
        device.state.check(device.claims(), None, now=NOW)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: b"",
        lambda data: b"{}\n",
        lambda data: b"[]\n",
        lambda data: data[:-1],
        lambda data: data + b"\n",
        lambda data: b" " + data,
        lambda data: data.replace(b":", b": ", 1),
        lambda data: data.replace(b'"counter"', b'"\\u0063ounter"', 1),
        lambda data: data.replace(b'{"counter":null', b'{"counter":null,"counter":null', 1),
        lambda data: json.dumps(dict(reversed(json.loads(data).items())), separators=(",", ":")).encode() + b"\n",
        lambda data: b"\xff" + data,
        lambda data: b"[" * 5000,
        lambda data: b'{"keylatch":' * 100,
        lambda data: data + data,
    ],
)
def test_another_encoding_is_an_edit(world: World, written: bytes, edit: Any) -> None:
    assert parse(world, written).list_seq == 3
    assert edit(written) != written
    with pytest.raises(StateEditedError) as caught:
        parse(world, edit(written))
    assert caught.value.hint
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("member", ["counter", "device", "high_water", "keylatch", "list_seq", "mac", "nonce", "seqs"])
def test_a_member_left_out_is_an_edit(world: World, written: bytes, member: str) -> None:
    content = {name: value for name, value in json.loads(written).items() if name != member}
    with pytest.raises(StateEditedError):
        parse(world, canonical_json(content) + b"\n")


def test_a_newer_version_s_state_says_so(world: World, written: bytes) -> None:
    from keylatch.keys._state_file import _mac

    rest = {**json.loads(written), "keylatch": "state/2"}
    del rest["mac"]
    data = canonical_json({**rest, "mac": _mac(rest, derive_device_secret(world.device, MAC_KEY_INFO))}) + b"\n"
    with pytest.raises(StateEditedError, match="has version 'state/2', expected state/1") as caught:
        parse(world, data)
    assert (caught.value.hint or "").startswith("upgrade keylatch")


def test_members_of_another_version_are_refused_even_with_a_good_mac(world: World, written: bytes) -> None:
    from keylatch.keys._state_file import _mac

    key = derive_device_secret(world.device, MAC_KEY_INFO)
    content = json.loads(written)
    del content["mac"]
    changes: list[dict[str, Any]] = [{"color": "red"}, {"high_water": -1}, {"seqs": {"x": 1}}, {"list_seq": None}]
    for change in changes:
        rest = {**content, **change}
        with pytest.raises(StateEditedError, match="another version"):
            parse(world, canonical_json({**rest, "mac": _mac(rest, key)}) + b"\n")


@given(st.data())
def test_a_state_with_any_byte_changed_is_an_edit(world: World, written: bytes, data: st.DataObject) -> None:
    edited = bytearray(written)
    edited[data.draw(st.integers(0, len(edited) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StateEditedError):
        parse(world, bytes(edited))


@given(st.data())
def test_a_state_cut_short_or_spliced_is_an_edit(world: World, written: bytes, data: st.DataObject) -> None:
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(written))] * 2)))
    edited = written[:start] + data.draw(st.binary(max_size=30)) + written[end:]
    if edited != written:
        with pytest.raises(StateEditedError):
            parse(world, edited)


def test_a_counter_cannot_be_left_out_or_brought_in(counted: StateWorld, tmp_path: Path) -> None:
    with pytest.raises(DeviceStateError, match="goes with a counter, and none was given") as caught:
        counted.open(counter=None)
    assert caught.value.hint
    other = tmp_path / "plain.state"
    DeviceState.create(other, counted.world.device, now=NOW)
    with pytest.raises(StateRolledBackError, match="was made without a counter"):
        counted.open(path=other)


def test_it_holds_secrets_and_so_cannot_be_copied_or_printed(device: StateWorld) -> None:
    assert repr(device.state) == f"DeviceState(thumbprint={device.world.device.public.thumbprint!r})"
    secret = derive_device_secret(device.world.device, MAC_KEY_INFO).reveal()
    assert secret not in device.path.read_bytes()
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds secrets"):
            duplicate(device.state)


def test_a_disk_that_is_full_leaves_what_was_remembered(counted: StateWorld) -> None:
    counted.state.remember(counted.claims(), None, now=NOW)
    before, names = counted.path.read_bytes(), sorted(path.name for path in counted.path.parent.iterdir())
    claims = counted.claims(seq=8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # Python ignores SIGXFSZ: write() fails, as on a full disk
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            counted.state.remember(claims, None, now=NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert counted.path.read_bytes() == before
    assert sorted(path.name for path in counted.path.parent.iterdir()) == names
    assert counted.open().check(counted.claims(), None, now=NOW) == NOW
    counted.state.remember(claims, None, now=NOW)
    assert list(counted.content()["seqs"].values()) == [8]


def test_counters_of_two_states_must_be_two(world: World, tmp_path: Path) -> None:
    counter = FileCounter(tmp_path / "counter")
    DeviceState.create(tmp_path / "first.state", world.device, counter, now=NOW)
    DeviceState.create(tmp_path / "second.state", world.device, counter, now=NOW)
    with pytest.raises(StateRolledBackError):
        DeviceState.open(tmp_path / "first.state", world.device, counter)
