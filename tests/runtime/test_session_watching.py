"""What a running session does with files that come in another order, too early, or while something is in the way."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from clocks import Clocks
from runtime_world import DAY, LockedModel, same

from keylatch.errors import (
    KeylatchError,
    KeyStoreBusyError,
    LicenseExpiredError,
    LicenseRevokedError,
    OlderLicenseError,
    OutputError,
)
from keylatch.keys import (
    DeviceState,
    License,
    _state_store,
    current_time,
    read_claims_unverified,
    sign_revocation_list,
    write_license,
)
from keylatch.runtime import InferenceSession, _admission


@pytest.fixture
def license_file(tmp_path: Path) -> Path:
    return tmp_path / "acme.license"


@pytest.fixture
def list_file(made: LockedModel, tmp_path: Path) -> Path:
    path = tmp_path / "acme.revocations"
    path.write_bytes(list_of(made, seq=1))
    return path


@pytest.fixture
def state(made: LockedModel, tmp_path: Path) -> Path:
    path = tmp_path / "device.state"
    DeviceState.create(path, made.device, now=current_time())
    return path


def list_of(made: LockedModel, *licenses: License, seq: int, age: int = 0) -> bytes:
    ids = [read_claims_unverified(license).license_id for license in licenses]
    issued_at = current_time() - age
    return sign_revocation_list(issuer=made.issuer, seq=seq, license_ids=ids, issued_at=issued_at, max_age=10 * DAY)


def started(made: LockedModel, **changes: Any) -> InferenceSession:
    session = made.open(watch=True, **changes)
    session.run(None, made.feed())
    return session


def answers(session: InferenceSession, made: LockedModel, clocks: Clocks) -> bool:
    clocks.advance(_admission.RECHECK_SECONDS + 1)
    return same(session.run(None, made.feed())[0], made.keyed)


def seq_of(session: InferenceSession) -> int:
    assert session.claims is not None
    return session.claims.seq


def test_a_license_for_later_is_taken_when_it_begins(
    made: LockedModel, clocks: Clocks, license_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    end = current_time() + 1000
    write_license(license_file, made.license(seq=1, expires_at=end))
    session = started(made, license=license_file)
    write_license(license_file, made.license(seq=2, not_before=end, expires_at=end + DAY), overwrite=True)
    with caplog.at_level(logging.WARNING, "keylatch.runtime"):
        assert all(answers(session, made, clocks) for _ in range(3))
    assert seq_of(session) == 1
    assert len(caplog.records) == 1  # said once, although it was looked at three times
    clocks.advance(end - clocks.wall)
    assert same(session.run(None, made.feed())[0], made.keyed)
    assert seq_of(session) == 2


def test_a_license_that_came_before_its_list_is_taken_with_it(
    made: LockedModel, clocks: Clocks, license_file: Path, list_file: Path
) -> None:
    write_license(license_file, made.license(seq=1))
    list_file.write_bytes(list_of(made, seq=1, age=5 * 3600))
    session = started(made, license=license_file, revocations=list_file)
    write_license(license_file, made.license(seq=2, max_list_age=3600), overwrite=True)
    assert answers(session, made, clocks)
    assert seq_of(session) == 1
    list_file.write_bytes(list_of(made, seq=2))
    assert answers(session, made, clocks)
    assert seq_of(session) == 2


def test_a_license_is_taken_once_the_key_store_is_free_again(
    made: LockedModel, clocks: Clocks, license_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_license(license_file, made.license(seq=1))
    session = started(made, license=license_file)
    write_license(license_file, made.license(seq=2), overwrite=True)
    with monkeypatch.context() as patch:
        patch.setattr(_admission, "open_license", lambda *_, **__: raise_(KeyStoreBusyError("no slot", hint="wait")))
        assert answers(session, made, clocks)
    assert seq_of(session) == 1
    assert answers(session, made, clocks)
    assert seq_of(session) == 2


def test_a_list_that_could_not_be_remembered_is_taken_later(
    made: LockedModel, clocks: Clocks, list_file: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    license = made.license()
    session = started(made, license=license, revocations=list_file, state=state)
    list_file.write_bytes(list_of(made, license, seq=2))
    with monkeypatch.context() as patch:
        patch.setattr(_state_store, "write_file", lambda *_, **__: raise_(OutputError("no room", hint="make some")))
        assert answers(session, made, clocks)
    with pytest.raises(LicenseRevokedError):
        answers(session, made, clocks)


@pytest.mark.parametrize("by", ["file", "call"])
def test_a_list_ends_a_session_whose_license_another_session_outdated(
    made: LockedModel, clocks: Clocks, list_file: Path, state: Path, by: str
) -> None:
    older, newer = made.license(seq=5), made.license(seq=6)
    session = started(made, license=older, revocations=list_file, state=state)
    made.open(license=newer, revocations=list_file, state=state)
    if by == "file":
        list_file.write_bytes(list_of(made, older, seq=2))
        with pytest.raises(LicenseRevokedError):
            answers(session, made, clocks)
    else:
        with pytest.raises(LicenseRevokedError):
            session.renew(revocations=list_of(made, older, seq=2))


def test_a_list_holds_although_the_license_beside_it_was_refused(made: LockedModel) -> None:
    license = made.license(seq=5)
    session = made.open(license=license)
    session.run(None, made.feed())
    with pytest.raises(OlderLicenseError):
        session.renew(made.license(seq=4), revocations=list_of(made, license, seq=2))
    with pytest.raises(LicenseRevokedError):
        session.run(None, made.feed())


def test_an_admission_from_before_a_revocation_does_not_come_after_it(
    made: LockedModel, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    license = made.license()
    session = made.open(license=license)
    session.run(None, made.feed())
    admitted, go_on, readmit = threading.Event(), threading.Event(), _admission.Admission.readmit

    def held_up(admission: _admission.Admission) -> Any:
        result = readmit(admission)
        if threading.current_thread() is runner:
            admitted.set()
            go_on.wait(10)
        return result

    monkeypatch.setattr(_admission.Admission, "readmit", held_up)
    clocks.advance(_admission.RECHECK_SECONDS + 1)
    runner = threading.Thread(target=lambda: session.run(None, made.feed()))
    runner.start()
    assert admitted.wait(10)
    with pytest.raises(LicenseRevokedError):
        session.renew(revocations=list_of(made, license, seq=1))
    go_on.set()
    runner.join(10)
    with pytest.raises(LicenseRevokedError):
        session.run(None, made.feed())


@pytest.mark.parametrize("seconds_left", [DAY, 61], ids=["in force", "ended"])
def test_others_go_on_while_one_takes_a_license_unless_theirs_has_ended(
    made: LockedModel, clocks: Clocks, license_file: Path, monkeypatch: pytest.MonkeyPatch, seconds_left: int
) -> None:
    write_license(license_file, made.license(seq=1, expires_at=current_time() + seconds_left))
    session = started(made, license=license_file)
    write_license(license_file, made.license(seq=2), overwrite=True)
    taking, go_on, open_license = threading.Event(), threading.Event(), _admission.open_license

    def held_up(*arguments: Any, **named: Any) -> Any:
        taking.set()
        assert go_on.wait(10)
        return open_license(*arguments, **named)

    monkeypatch.setattr(_admission, "open_license", held_up)
    clocks.advance(_admission.RECHECK_SECONDS + 1)
    taker, other = (threading.Thread(target=lambda: session.run(None, made.feed())) for _ in range(2))
    taker.start()
    assert taking.wait(10)
    other.start()
    if seconds_left == DAY:
        other.join(10)
    else:
        time.sleep(0.2)
    assert other.is_alive() == (seconds_left != DAY)
    go_on.set()
    taker.join(10)
    other.join(10)
    assert seq_of(session) == 2


def test_a_session_that_ended_says_so_and_not_what_its_file_lacks(
    made: LockedModel, clocks: Clocks, license_file: Path
) -> None:
    end = current_time() + 30
    write_license(license_file, made.license(seq=1, expires_at=end))
    session = started(made, license=license_file)
    write_license(license_file, made.license(seq=2, not_before=end + DAY, expires_at=end + 2 * DAY), overwrite=True)
    for _ in range(3):
        with pytest.raises(LicenseExpiredError):
            answers(session, made, clocks)


def raise_(error: KeylatchError) -> Any:
    raise error
