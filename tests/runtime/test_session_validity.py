"""A license that ends while the model runs; the real clock once, and its parts replaced otherwise."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import numpy as np
import pytest
from clocks import Clocks
from runtime_world import DAY, LockedModel, run_calls, same

from keylatch.errors import LicenseExpiredError
from keylatch.keys import current_time
from keylatch.runtime import InferenceSession, _admission, _known_answer

RUNS = ["run", "run_with_ort_values", "run_with_iobinding", "run_with_ortvaluevector"]


@pytest.mark.parametrize("name", [*RUNS, "run_async"])
def test_each_way_to_run_ends_with_the_license(made: LockedModel, clocks: Clocks, name: str) -> None:
    session = made.open(license=made.license(expires_at=int(clocks.wall) + 30))
    session.run(None, made.feed())
    if name in RUNS:
        run_calls(session, made.feed())[name]()
    clocks.advance(30)
    for _ in range(2):
        with pytest.raises(LicenseExpiredError, match="license expired") as caught:
            run_calls(session, made.feed())[name]()
        assert caught.value.hint


@pytest.mark.parametrize("name", [*RUNS, "run_async"])
def test_a_license_that_ends_before_the_first_run_gives_nothing(made: LockedModel, clocks: Clocks, name: str) -> None:
    session = made.open(license=made.license(expires_at=int(clocks.wall) + 30))
    clocks.advance(31)
    with pytest.raises(LicenseExpiredError):
        run_calls(session, made.feed())[name]()


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("remaining", [1, 2, 30, 61, 3600])
def test_it_ends_within_the_second_whatever_the_fraction(
    made: LockedModel, clocks: Clocks, fraction: float, remaining: int
) -> None:
    end = int(clocks.wall) + remaining
    session = made.open(license=made.license(expires_at=end))
    clocks.advance(fraction)
    session.run(None, made.feed())
    clocks.advance(end - clocks.wall - 0.001)
    session.run(None, made.feed())
    clocks.advance(0.002)
    with pytest.raises(LicenseExpiredError):
        session.run(None, made.feed())


def test_between_looks_at_the_wall_clock_a_run_asks_nothing(
    made: LockedModel, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    check = _admission.check_validity
    monkeypatch.setattr(_admission, "check_validity", lambda *a, **k: (looks.append(1), check(*a, **k)))
    session = made.open()
    for _ in range(5):
        session.run(None, made.feed())
    assert len(looks) == 1
    clocks.advance(_admission.RECHECK_SECONDS - 0.01)
    session.run(None, made.feed())
    assert len(looks) == 1
    clocks.advance(0.02)
    session.run(None, made.feed())
    session.run(None, made.feed())
    assert len(looks) == 2


@pytest.mark.parametrize("back", [60, 3600, DAY, 10 * 365 * DAY])
def test_setting_the_wall_clock_back_while_running_gains_nothing(made: LockedModel, clocks: Clocks, back: int) -> None:
    now = int(clocks.wall)
    session = made.open(license=made.license(issued_at=now, not_before=now, expires_at=now + 100))
    clocks.wall -= back
    session.run(None, made.feed())
    clocks.boot += 98
    session.run(None, made.feed())
    clocks.boot += 2
    with pytest.raises(LicenseExpiredError):
        session.run(None, made.feed())


def test_a_clock_set_forward_past_the_end_stops_the_session(made: LockedModel, clocks: Clocks) -> None:
    session = made.open()
    session.run(None, made.feed())
    clocks.wall += 2 * DAY
    clocks.boot += _admission.RECHECK_SECONDS
    with pytest.raises(LicenseExpiredError, match="1 day ago"):
        session.run(None, made.feed())


def test_an_expired_session_answers_again_only_by_a_new_license(made: LockedModel, clocks: Clocks) -> None:
    session = made.open(license=made.license(expires_at=int(clocks.wall) + 5))
    session.run(None, made.feed())
    clocks.advance(5)
    with pytest.raises(LicenseExpiredError):
        session.run(None, made.feed())
    assert same(made.open().run(None, made.feed())[0], made.keyed)


def test_a_session_that_runs_locked_has_no_end(made: LockedModel, clocks: Clocks) -> None:
    session = InferenceSession.locked(made.path)
    clocks.advance(1000 * 365 * DAY)
    assert same(session.run(None, made.feed())[0], made.locked)


def test_the_known_answer_is_checked_once_and_by_one_thread(made: LockedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    checks, verify = [], _known_answer.verify_known_answer
    two_inside = threading.Barrier(2)

    def slow(*arguments: Any) -> None:
        checks.append(1)
        with contextlib.suppress(threading.BrokenBarrierError):
            two_inside.wait(0.1)  # leaves the others time to come in as well
        verify(*arguments)

    monkeypatch.setattr(_known_answer, "verify_known_answer", slow)
    session, start = made.open(), threading.Barrier(4)
    outputs: list[np.ndarray] = []

    def work() -> None:
        start.wait(30)
        outputs.append(session.run(None, made.feed())[0])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outputs) == 4
    assert len(checks) == 1


def test_the_end_comes_on_the_real_clock(made: LockedModel) -> None:
    """The one test that sleeps: 2 seconds at most."""
    end = current_time() + 2
    session = made.open(license=made.license(expires_at=end))
    assert same(session.run(None, made.feed())[0], made.keyed)
    while time.time() < end:
        time.sleep(min(0.2, max(end - time.time(), 0.001)))
    with pytest.raises(LicenseExpiredError):
        session.run(None, made.feed())
