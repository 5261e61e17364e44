from __future__ import annotations

import time

import pytest

from keylatch.errors import ClockUnreadableError
from keylatch.keys import BUILD_TIME, RunningClock, current_time

NOW = BUILD_TIME + 1_000_000


class Clocks:
    """The two clocks of a machine, set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.real, self.boot = float(NOW), 5_000.25
        monkeypatch.setattr("time.clock_gettime", self._read)

    def _read(self, clock: int) -> float:
        return {time.CLOCK_REALTIME: self.real, time.CLOCK_BOOTTIME: self.boot}[clock]

    def pass_seconds(self, seconds: float) -> None:
        self.real += seconds
        self.boot += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def test_it_goes_with_the_system_clock(clocks: Clocks) -> None:
    clock = RunningClock(NOW)
    assert clock.now() == NOW
    clocks.pass_seconds(90)
    assert clock.now() == NOW + 90 == current_time()


@pytest.mark.parametrize("back", [60, 3_600, 86_400, 3_650 * 86_400])
def test_setting_the_clock_back_does_not_hold_it_back(clocks: Clocks, back: int) -> None:
    clock = RunningClock(NOW)
    clocks.pass_seconds(100)
    clocks.real -= back
    assert clock.now() == NOW + 100
    clocks.pass_seconds(50)
    assert clock.now() == NOW + 150


def test_a_moment_that_is_known_to_have_passed_counts_from_the_start(clocks: Clocks) -> None:
    clock = RunningClock(NOW + 5_000)
    assert clock.now() == NOW + 5_000
    clocks.pass_seconds(10)
    assert clock.now() == NOW + 5_010


def test_time_asleep_counts(clocks: Clocks) -> None:
    # CLOCK_MONOTONIC stands still while the machine sleeps; Clocks knows no such clock, and would raise.
    clock = RunningClock(NOW)
    clocks.boot += 8 * 3_600
    assert clock.now() == NOW + 8 * 3_600


def test_a_clock_ahead_is_believed_while_it_is_ahead_and_no_longer(clocks: Clocks) -> None:
    clock = RunningClock(NOW)
    clocks.real += 86_400
    assert clock.now() == NOW + 86_400
    clocks.real -= 86_400
    clocks.pass_seconds(7)
    assert clock.now() == NOW + 7


def test_a_clock_that_cannot_be_read_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(clock: int) -> float:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("time.clock_gettime", refuse)
    for read in (current_time, lambda: RunningClock(NOW)):
        with pytest.raises(ClockUnreadableError, match="Operation not permitted") as caught:
            read()
        assert caught.value.hint
