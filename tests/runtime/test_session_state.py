"""A session with a memory of its device: clocks, older licenses and older lists, at opening and while it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clocks import Clocks
from runtime_world import DAY, LockedModel, same

from keylatch.errors import (
    ClockSetBackError,
    ClockUnreadableError,
    InputError,
    LicenseExpiredError,
    LicenseRevokedError,
    OlderLicenseError,
    OlderRevocationListError,
    RevocationListRequiredError,
    StaleRevocationListError,
    StateEditedError,
    StateMissingError,
    WrongDeviceError,
)
from keylatch.keys import DeviceState, _clock, current_time, read_claims_unverified, sign_revocation_list
from keylatch.runtime import InferenceSession, _admission


@pytest.fixture
def state(made: LockedModel, tmp_path: Path) -> Path:
    path = tmp_path / "device.state"
    DeviceState.create(path, made.device, now=current_time())
    return path


def list_of(made: LockedModel, *license_ids: str, seq: int = 1) -> bytes:
    return sign_revocation_list(
        issuer=made.issuer, seq=seq, license_ids=license_ids, issued_at=current_time(), max_age=10 * DAY
    )


def test_a_session_with_a_memory_answers(made: LockedModel, state: Path) -> None:
    for source in (state, str(state), DeviceState.open(state, made.device)):
        assert same(made.open(state=source).run(None, made.feed())[0], made.keyed)


def test_a_counter_that_no_state_goes_with_is_not_left_out_silently(made: LockedModel, state: Path) -> None:
    for source in (None, DeviceState.open(state, made.device)):
        with pytest.raises(InputError, match="no path to the state") as caught:
            made.open(state=source, counter="tpm:nv=0x01800100")
        assert caught.value.hint


def test_an_older_license_is_refused_after_a_newer_one_opened(made: LockedModel, state: Path) -> None:
    older, newer = made.license(seq=5), made.license(seq=6)
    made.open(license=older, state=state)
    made.open(license=newer, state=state)
    with pytest.raises(OlderLicenseError):
        made.open(license=older, state=state)
    made.open(license=newer, state=state)


def test_a_license_that_does_not_open_is_not_remembered(made: LockedModel, state: Path) -> None:
    with pytest.raises(WrongDeviceError):
        made.open(license=made.license(seq=99, devices=[made.foreign_device.public]), state=state)
    made.open(license=made.license(seq=5), state=state)


def test_a_renewed_license_is_remembered(made: LockedModel, state: Path) -> None:
    older = made.license(seq=5)
    made.open(license=older, state=state).renew(made.license(seq=6))
    with pytest.raises(OlderLicenseError):
        made.open(license=older, state=state)


@pytest.mark.parametrize("back", [3600, DAY, 10 * 365 * DAY])
def test_a_clock_set_back_opens_nothing(made: LockedModel, state: Path, clocks: Clocks, back: int) -> None:
    clocks.advance(20 * 365 * DAY)
    license = made.license(issued_at=0, not_before=0)
    made.open(license=license, state=state)
    clocks.wall -= back
    with pytest.raises(ClockSetBackError) as caught:
        made.open(license=license, state=state)
    assert caught.value.hint


def test_within_the_leeway_time_stands_still_but_does_not_go_back(
    made: LockedModel, state: Path, clocks: Clocks
) -> None:
    license = made.license(expires_at=current_time() + 30)
    made.open(license=license, state=state)
    clocks.advance(2 * 3600)
    with pytest.raises(LicenseExpiredError):
        made.open(license=license, state=state)
    made.open(state=state)  # remembers the hour
    clocks.wall -= 60
    with pytest.raises(LicenseExpiredError):
        made.open(license=license, state=state)
    assert same(made.open(state=state).run(None, made.feed())[0], made.keyed)


def test_a_running_session_goes_on_remembering_the_time(made: LockedModel, state: Path, clocks: Clocks) -> None:
    session = made.open(state=state)
    session.run(None, made.feed())
    clocks.boot += 2 * 3600  # the wall clock is held back meanwhile
    session.run(None, made.feed())
    with pytest.raises(ClockSetBackError):
        made.open(state=state)


def test_revocation_lists(made: LockedModel, state: Path) -> None:
    license = made.license(seq=5)
    license_id = read_claims_unverified(license).license_id
    made.open(license=license, state=state, revocations=list_of(made, seq=1))
    with pytest.raises(LicenseRevokedError):
        made.open(license=license, state=state, revocations=list_of(made, license_id, seq=2))
    # The list was remembered although no license opened by it: the one before it is no way back.
    with pytest.raises(OlderRevocationListError):
        made.open(license=license, state=state, revocations=list_of(made, seq=1))


def test_a_license_may_ask_for_a_list(made: LockedModel, clocks: Clocks) -> None:
    license = made.license(max_list_age=3600, expires_at=current_time() + 9 * DAY)
    with pytest.raises(RevocationListRequiredError):
        made.open(license=license)
    fresh = list_of(made)
    assert same(made.open(license=license, revocations=fresh).run(None, made.feed())[0], made.keyed)
    clocks.advance(3601)
    with pytest.raises(StaleRevocationListError):
        made.open(license=license, revocations=fresh)


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"list_seq":0', b'"list_seq":1'))


@pytest.mark.parametrize(("harm", "error"), [(Path.unlink, StateMissingError), (edit, StateEditedError)])
def test_a_memory_that_is_deleted_or_edited_opens_nothing_and_stops_what_runs(
    made: LockedModel, state: Path, clocks: Clocks, harm: Callable[[Path], Any], error: type[Exception]
) -> None:
    session = made.open(state=state)
    session.run(None, made.feed())
    harm(state)
    with pytest.raises(error) as caught:
        made.open(state=state)
    assert caught.value.hint  # type: ignore[attr-defined]
    clocks.advance(_admission.RECHECK_SECONDS + 1)
    with pytest.raises(error):
        session.run(None, made.feed())


def test_a_memory_is_never_made_silently(made: LockedModel, tmp_path: Path) -> None:
    with pytest.raises(StateMissingError):
        made.open(state=tmp_path / "device.state")
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_clock_is_no_time(made: LockedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_clock: int) -> float:
        raise OSError(1, "Operation not permitted")

    session = made.open()
    monkeypatch.setattr(_clock.time, "clock_gettime", refuse)
    with pytest.raises(ClockUnreadableError, match="Operation not permitted") as caught:
        made.open()
    assert caught.value.hint
    with pytest.raises(ClockUnreadableError):
        session.run(None, made.feed())
    monkeypatch.undo()
    assert same(session.run(None, made.feed())[0], made.keyed)


def test_locked_sessions_remember_nothing(made: LockedModel) -> None:
    assert same(InferenceSession.locked(made.path).run(None, made.feed())[0], made.locked)
