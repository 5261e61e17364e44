"""Several processes at one state, and processes that die while they write."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from license_world import World
from state_worker import DIED
from state_world import NOW, FileCounter, StateWorld, make_state, model

from keylatch.errors import DeviceStateError, OlderLicenseError, StateRolledBackError
from keylatch.keys._device_state import DeviceState

FOLDER = Path(__file__).parent


def start(device: StateWorld, **task: Any) -> subprocess.Popen[bytes]:
    counter = None if device.counter is None else str(device.counter.path)
    claims = asdict(device.claims())
    files = {"state": str(device.path), "key": str(device.world.device_path), "counter": counter, "claims": claims}
    path = os.pathsep.join([str(FOLDER), str(FOLDER.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-W", "error", str(FOLDER / "state_worker.py"), json.dumps({**files, **task})]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})


@pytest.mark.parametrize("with_counter", [False, True], ids=["no counter", "counter"])
def test_four_processes_remember_different_models_and_none_is_lost(
    world: World, tmp_path: Path, with_counter: bool
) -> None:
    device = make_state(world, tmp_path, with_counter=with_counter)
    before = 0 if device.counter is None else device.counter.read()
    shares = [[(number, number + 1) for number in range(first, 40, 4)] for first in range(4)]
    processes = [start(device, licenses=share) for share in shares]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert device.content()["seqs"] == {model(number): number + 1 for number in range(40)}
    device.open()
    if device.counter is not None:
        assert device.counter.read() == device.content()["counter"] == before + 40


def test_threads_remember_different_models_and_none_is_lost(counted: StateWorld) -> None:
    claims = counted.claims()

    def run(first: int) -> None:
        for number in range(first, 40, 4):
            counted.state.remember(type(claims)(**{**asdict(claims), "model_id": model(number)}), None, now=NOW)

    threads = [threading.Thread(target=run, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counted.content()["seqs"]) == 40


def test_what_another_process_saw_counts_at_once(device: StateWorld) -> None:
    other, claims = device.open(), device.claims(seq=5)
    assert device.state.check(claims, None, now=NOW) == NOW
    other.remember(device.claims(seq=6), None, now=NOW)
    with pytest.raises(OlderLicenseError):
        device.state.remember(claims, None, now=NOW)


@pytest.mark.parametrize("operation", [fcntl.LOCK_EX, fcntl.LOCK_SH])
def test_whoever_holds_the_lock_too_long_is_named_and_a_reader_does_not_stop_readers(
    device: StateWorld, monkeypatch: pytest.MonkeyPatch, operation: int
) -> None:
    monkeypatch.setattr("keylatch.keys._state_lock.LOCK_TIMEOUT_SECONDS", 0.02)
    with device.path.with_name("device.state.lock").open() as lock:
        fcntl.flock(lock, operation)
        with pytest.raises(DeviceStateError, match=r"held by another process for 0\.02 seconds") as caught:
            device.state.remember(device.claims(), None, now=NOW)
        assert caught.value.hint
        if operation == fcntl.LOCK_EX:
            with pytest.raises(DeviceStateError, match="held by another process"):
                device.state.check(device.claims(), None, now=NOW)
        else:
            assert device.state.check(device.claims(), None, now=NOW) == NOW
    device.state.remember(device.claims(), None, now=NOW)


@pytest.mark.parametrize("point", ["before the file", "before the counter", "after the counter"])
def test_a_crash_at_any_point_of_a_write_leaves_a_state_that_opens_and_cannot_be_put_back(
    counted: StateWorld, point: str
) -> None:
    assert counted.counter is not None
    counted.state.remember(counted.claims(), None, now=NOW)
    before, count = counted.path.read_bytes(), counted.counter.read()
    assert start(counted, licenses=[(1, 1)], die=point).wait(60) == DIED
    is_written = point != "before the file"
    assert counted.counter.read() == count + (point == "after the counter")
    assert (counted.path.read_bytes() != before) == is_written
    # A process that was open before the crash goes on, and one that opens completes the write.
    assert counted.state.check(counted.claims(), None, now=NOW) == NOW
    state = counted.open()
    assert counted.counter.read() == count + is_written == counted.content()["counter"]
    assert (model(1) in counted.content()["seqs"]) == is_written
    newest = counted.path.read_bytes()
    if is_written:
        counted.path.write_bytes(before)
        with pytest.raises(StateRolledBackError):
            counted.open()
        counted.path.write_bytes(newest)
    state.remember(counted.claims(model_id=model(2)), None, now=NOW)
    assert counted.counter.read() == counted.content()["counter"] == count + is_written + 1
    counted.path.write_bytes(newest)
    with pytest.raises(StateRolledBackError):
        counted.open()


def test_a_write_after_a_crash_uses_no_count_twice(counted: StateWorld) -> None:
    # Else the file of the crashed write and that of the next would both fit the counter.
    assert counted.counter is not None
    assert start(counted, licenses=[(1, 1)], die="before the counter").wait(60) == DIED
    crashed = counted.path.read_bytes()
    counted.state.remember(counted.claims(model_id=model(2)), None, now=NOW)
    counted.path.write_bytes(crashed)
    with pytest.raises(StateRolledBackError):
        counted.open()


@pytest.mark.parametrize("ahead", [-1, 2, 100])
def test_a_count_further_off_than_one_crash_is_refused(counted: StateWorld, ahead: int) -> None:
    assert counted.counter is not None
    counted.counter.path.write_text(str(counted.content()["counter"] - ahead))
    with pytest.raises(StateRolledBackError, match="and its counter stands at") as caught:
        counted.open()
    assert caught.value.hint


def test_no_two_files_ever_have_the_same_count(counted: StateWorld) -> None:
    assert counted.counter is not None
    first = counted.path.read_bytes()
    counted.path.unlink()
    DeviceState.create(counted.path, counted.world.device, counted.counter, now=NOW)
    counted.path.write_bytes(first)
    with pytest.raises(StateRolledBackError):
        counted.open()


def test_a_counter_that_something_else_raises_is_noticed_at_the_write(counted: StateWorld) -> None:
    assert counted.counter is not None

    class Shared(FileCounter):
        def increment(self) -> int:
            super().increment()
            return super().increment()

    state = counted.open(counter=Shared(counted.counter.path))
    with pytest.raises(DeviceStateError, match="went to") as caught:
        state.remember(counted.claims(), None, now=NOW)
    assert caught.value.hint == "give each device state a counter of its own"
