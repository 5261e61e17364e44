"""A state against the counter of a TPM 2.0 simulator: the same promises, kept by hardware's rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from license_world import World
from state_world import NOW, YEAR, StateWorld, make_claims, model

from keylatch.errors import KeyStoreMissingError, StateRolledBackError
from keylatch.keys import define_counter, open_counter
from keylatch.keys._device_state import DeviceState
from tools import require_module, require_programs

INDEX = 0x01800100


@pytest.fixture
def simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    require_module("tpm2_pytss", extra="tpm")
    require_programs("swtpm", package="swtpm")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "tpm"))
    from tpm_world import running

    with running(tmp_path / "tpm") as started:
        yield started


def uri(simulator: Any) -> str:
    return f"tpm:nv=0x{INDEX:08x}?tcti={simulator.tcti}"


def test_a_tpm_s_counter_refuses_a_state_put_back_and_a_counter_made_again(
    world: World, tmp_path: Path, simulator: Any
) -> None:
    path = tmp_path / "device.state"
    state = DeviceState.create(path, world.device, define_counter(uri(simulator)), now=NOW)
    first = path.read_bytes()
    claims = make_claims(world)
    state.remember(claims, None, now=NOW)
    newest = path.read_bytes()

    # The machine restarts, and the counter stands where it stood.
    simulator.stop()
    simulator.start()
    counter = open_counter(uri(simulator))
    assert DeviceState.open(path, world.device, counter).check(claims, None, now=NOW) == NOW

    # An earlier copy.
    path.write_bytes(first)
    with pytest.raises(StateRolledBackError):
        DeviceState.open(path, world.device, counter)

    # A crash between file and counter.
    path.write_bytes(newest)
    crashed = StateWorld(world, path, DeviceState.open(path, world.device, counter), None)
    monotonic = counter.read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(counter), "increment", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            crashed.state.remember(make_claims(world, model_id=model(1)), None, now=NOW)
    assert (counter.read(), crashed.content()["counter"]) == (monotonic, monotonic + 1)
    state = DeviceState.open(path, world.device, counter)
    assert counter.read() == monotonic + 1
    assert state.check(claims, None, now=NOW + YEAR) == NOW + YEAR

    # The counter deleted, and made again: it starts above all that this TPM ever counted.
    simulator.undefine(INDEX)
    with pytest.raises(KeyStoreMissingError):
        state.check(claims, None, now=NOW)
    again = define_counter(uri(simulator))
    for copy in (first, newest, path.read_bytes()):
        path.write_bytes(copy)
        with pytest.raises(StateRolledBackError):
            DeviceState.open(path, world.device, again)
