"""What an interposer on the bus between processor and TPM sees, and what it can alter without being noticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from tpm_bus import Alter, Bus, interposed
from tpm_world import (
    CREATE,
    CREATE_PRIMARY,
    ECDH_ZGEN,
    NV_INCREMENT,
    NV_READ,
    PCR_READ,
    SIGN,
    START_SESSION,
    Simulator,
    give,
    location,
    running,
)

from keylatch.errors import DeviceKeyError
from keylatch.keys._tpm import define_counter, generate_device_key, open_counter, open_device_key

PEER = generate_private_key(SECP256R1()).public_key()
INDEX = "nv=0x01800200"


def on(bus: Bus, backend: str, path: object) -> str:
    return f"{path}?tcti={bus.tcti}&backend={backend}"


def flip(wanted: int, position: int) -> Alter:
    """Flips one bit of the answers to one command."""

    def alter(code: int, command: bytes, response: bytes) -> bytes:
        if code != wanted:
            return response
        damaged = bytearray(response)
        damaged[position] ^= 1
        return bytes(damaged)

    return alter


@pytest.fixture
def disturbed(shared_tpm: Simulator) -> Iterator[Simulator]:
    """A TPM behind an interposer: after an altered answer the TSS sends no more, and the slots stay occupied."""
    yield shared_tpm
    for handle in shared_tpm.held():
        shared_tpm.flush(handle)


@pytest.fixture
def count_before(shared_tpm: Simulator, backend: str) -> Iterator[int]:
    """A fresh counter's value."""
    yield define_counter(location(shared_tpm, backend, INDEX)).read()
    shared_tpm.undefine(int(INDEX[3:], 16))


def test_neither_the_shared_secret_nor_the_peer_crosses_the_bus_in_clear(
    tpm: Simulator, backend: str, tmp_path: Path
) -> None:
    generate_device_key(location(tpm, backend, tmp_path / "device.tpm"), None)
    with interposed(tpm) as bus:
        key = open_device_key(on(bus, backend, tmp_path / "device.tpm"), None)
        secret = key.exchange(PEER).reveal()
        assert bus.codes.count(ECDH_ZGEN) == 1
        for hidden in (secret, secret[:8], secret[-8:], PEER.public_numbers().x.to_bytes(32, "big")):
            assert hidden not in bus.wire


def test_every_session_is_salted_to_the_storage_root_key(
    tpm: Simulator, backend: str, tmp_path: Path, count_before: int
) -> None:
    # The key of a session without salt follows from the nonces, which are seen on the bus.
    with interposed(tpm) as bus:
        key = generate_device_key(on(bus, backend, tmp_path / "device.tpm"), None)
        key.exchange(PEER)
        key.prove_possession(b"statement")
        assert open_counter(on(bus, backend, INDEX)).increment() == count_before + 1
        started = [command for command in bus.commands if command[6:10] == START_SESSION.to_bytes(4, "big")]
        roots = [
            response[10:14] for code, response in zip(bus.codes, bus.responses, strict=True) if code == CREATE_PRIMARY
        ]
        assert [command[10:14] for command in started] == roots and len(roots) == 5
        salts = [command[18 + 2 + command[19] :][2:] for command in started]
        assert all(len(salt) > 64 for salt in salts) and len(set(salts)) == 5


def test_a_pin_never_crosses_the_bus_in_clear(tpm: Simulator, backend: str, tmp_path: Path) -> None:
    with interposed(tpm) as bus:
        key = generate_device_key(on(bus, backend, tmp_path / "device.tpm"), give(b"swordfish"))
        key.exchange(PEER)
        assert bus.codes.count(CREATE) == 1
        assert b"swordfish" not in bus.wire


@pytest.mark.parametrize("position", [14, 30, -1])
def test_an_altered_shared_secret_is_noticed(disturbed: Simulator, backend: str, tmp_path: Path, position: int) -> None:
    generate_device_key(location(disturbed, backend, tmp_path / "device.tpm"), None)
    with interposed(disturbed, flip(ECDH_ZGEN, position)) as bus:
        key = open_device_key(on(bus, backend, tmp_path / "device.tpm"), None)
        with pytest.raises(DeviceKeyError):
            key.exchange(PEER)


def test_an_altered_signature_is_noticed(disturbed: Simulator, backend: str, tmp_path: Path) -> None:
    generate_device_key(location(disturbed, backend, tmp_path / "device.tpm"), None)
    with interposed(disturbed, flip(SIGN, 30)) as bus:
        key = open_device_key(on(bus, backend, tmp_path / "device.tpm"), None)
        with pytest.raises(DeviceKeyError):
            key.prove_possession(b"statement")


def test_altered_pcr_values_are_noticed_when_a_key_is_bound_to_them(
    disturbed: Simulator, backend: str, tmp_path: Path
) -> None:
    with interposed(disturbed, flip(PCR_READ, 45)) as bus, pytest.raises(DeviceKeyError):
        generate_device_key(on(bus, backend, tmp_path / "device.tpm"), None)
    assert list(tmp_path.iterdir()) == []


def test_an_interposer_cannot_put_another_storage_root_key_in_place(
    disturbed: Simulator, backend: str, tmp_path: Path
) -> None:
    generate_device_key(location(disturbed, backend, tmp_path / "device.tpm"), None)
    with running(tmp_path / "mallory") as mallory:

        def substitute(code: int, command: bytes, response: bytes) -> bytes:
            return mallory.transmit(command) if code == CREATE_PRIMARY else response

        with interposed(disturbed, substitute) as bus, pytest.raises(DeviceKeyError, match="another TPM"):
            open_device_key(on(bus, backend, tmp_path / "device.tpm"), None)
        # Noticed before the salt, from which the session's keys follow, was encrypted to it.
        assert CREATE_PRIMARY in bus.codes and ECDH_ZGEN not in bus.codes


def test_a_counter_that_names_a_key_file_is_not_read_through_another_storage_root_key(
    tpm: Simulator, backend: str, tmp_path: Path, count_before: int
) -> None:
    generate_device_key(location(tpm, backend, tmp_path / "device.tpm"), None)
    with running(tmp_path / "mallory") as mallory:
        define_counter(location(mallory, backend, INDEX))
        assert open_counter(location(mallory, backend, INDEX)).read() == 1
        with pytest.raises(DeviceKeyError, match="another TPM"):
            open_counter(location(mallory, backend, INDEX, key=tmp_path / "device.tpm"))
    assert open_counter(location(tpm, backend, INDEX, key=tmp_path / "device.tpm")).read() == count_before


@pytest.mark.parametrize(("code", "position"), [(NV_READ, 23), (NV_READ, -1), (NV_INCREMENT, -1)])
def test_an_altered_count_is_noticed(
    disturbed: Simulator, backend: str, count_before: int, code: int, position: int
) -> None:
    with interposed(disturbed, flip(code, position)) as bus, pytest.raises(DeviceKeyError) as caught:
        open_counter(on(bus, backend, INDEX)).increment()
    assert type(caught.value) is DeviceKeyError and code in bus.codes


def test_an_answer_of_yesterday_is_no_answer_of_today(disturbed: Simulator, backend: str, count_before: int) -> None:
    with interposed(disturbed) as bus:
        counter = open_counter(on(bus, backend, INDEX))
        old = next(answer for code, answer in zip(bus.codes, bus.responses, strict=True) if code == NV_READ)
        assert counter.increment() == count_before + 1

    def replay(code: int, command: bytes, response: bytes) -> bytes:
        return old if code == NV_READ else response

    with interposed(disturbed, replay) as bus, pytest.raises(DeviceKeyError):
        open_counter(on(bus, backend, INDEX))
