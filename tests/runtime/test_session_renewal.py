"""A running session takes a renewed license, by call and from its file, and no request is lost."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clocks import Clocks
from runtime_world import DAY, LockedModel, same

from keylatch.errors import (
    DeviceKeyError,
    FormatError,
    InputError,
    IntegrityError,
    LicenseExpiredError,
    LicenseRequiredError,
    LicenseRevokedError,
    OlderLicenseError,
    OlderRevocationListError,
    SignatureError,
    StaleRevocationListError,
    WrongDeviceError,
    WrongModelError,
)
from keylatch.keys import (
    FileDeviceKey,
    License,
    current_time,
    read_claims_unverified,
    sign_revocation_list,
    write_license,
)
from keylatch.runtime import InferenceSession, _admission


def short(made: LockedModel, seconds: int = 30, **changes: Any) -> License:
    return made.license(expires_at=current_time() + seconds, **changes)


def list_of(made: LockedModel, *license_ids: str, seq: int = 1, age: int = 0, max_age: int = 10 * DAY) -> bytes:
    issued_at = current_time() - age
    return sign_revocation_list(
        issuer=made.issuer, seq=seq, license_ids=license_ids, issued_at=issued_at, max_age=max_age
    )


def id_of(session: InferenceSession) -> str:
    assert session.claims is not None
    return session.claims.license_id


def test_a_renewed_license_replaces_the_old_one(made: LockedModel, clocks: Clocks) -> None:
    session = made.open(license=short(made, seq=5))
    session.run(None, made.feed())
    claims = session.renew(made.license(seq=6))
    assert claims == session.claims
    assert claims.seq == 6
    clocks.advance(31)
    assert same(session.run(None, made.feed())[0], made.keyed)


def test_an_expired_session_goes_on_after_renewal(made: LockedModel, clocks: Clocks) -> None:
    session = made.open(license=short(made))
    clocks.advance(31)
    with pytest.raises(LicenseExpiredError):
        session.run(None, made.feed())
    session.renew(made.license())
    assert same(session.run(None, made.feed())[0], made.keyed)


@pytest.mark.parametrize("form", ["path", "string", "bytes", "license"])
def test_a_license_comes_in_every_form(made: LockedModel, tmp_path: Path, form: str) -> None:
    license = made.license()
    path = tmp_path / "renewed.license"
    write_license(path, license)
    forms: dict[str, Any] = {"path": path, "string": str(path), "bytes": license.serialize(), "license": license}
    assert (
        made.open(license=made.license(seq=1)).renew(forms[form]).license_id
        == read_claims_unverified(license).license_id
    )


REFUSED = {
    "older": (OlderLicenseError, lambda made: made.license(seq=4)),
    "expired": (LicenseExpiredError, lambda made: made.license(seq=9, expires_at=current_time() - 1)),
    "another device's": (WrongDeviceError, lambda made: made.license(seq=9, devices=[made.foreign_device.public])),
    "another model's": (WrongModelError, lambda made: made.license(seq=9, model_id="00" * 32)),
    "another issuer's": (SignatureError, lambda made: made.license(seq=9, issuer=made.foreign_issuer)),
    "another secret's": (IntegrityError, lambda made: with_other_answer(made)),
    "damaged": (FormatError, lambda made: made.license(seq=9).serialize()[:-1]),
}


def with_other_answer(made: LockedModel) -> License:
    values = made.values()
    values["known_answer.tag"] = values["known_answer.tag"] ^ np.uint8(1)
    return made.license(seq=9, secret_values=values)


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_license_changes_nothing(made: LockedModel, clocks: Clocks, case: str) -> None:
    error, make = REFUSED[case]
    session = made.open(license=made.license(seq=5))
    session.run(None, made.feed())
    before = session.claims
    with pytest.raises(error) as caught:
        session.renew(make(made))
    assert caught.value.hint
    assert session.claims == before
    clocks.advance(_admission.RECHECK_SECONDS + 1)
    assert same(session.run(None, made.feed())[0], made.keyed)


def test_a_locked_session_has_nothing_to_renew(made: LockedModel) -> None:
    with pytest.raises(LicenseRequiredError, match="runs locked"):
        InferenceSession.locked(made.path).renew(made.license())


def test_no_request_is_dropped_while_licenses_are_renewed(made: LockedModel) -> None:
    session, stop = made.open(license=made.license(seq=1)), threading.Event()
    failures: list[BaseException] = []
    outputs: list[bool] = []

    def serve() -> None:
        try:
            while not stop.is_set():
                outputs.append(same(session.run(None, made.feed())[0], made.keyed))
        except BaseException as error:  # noqa: BLE001 - handed to the assertion below
            failures.append(error)

    threads = [threading.Thread(target=serve) for _ in range(3)]
    for thread in threads:
        thread.start()
    for seq in range(2, 30):
        session.renew(made.license(seq=seq))
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert outputs
    assert all(outputs)


def test_a_key_named_by_uri_is_opened_again_for_a_renewal_and_not_kept(made: LockedModel, tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    asked: list[str] = []

    def passphrase(what: str) -> bytes:
        asked.append(what)
        return b"correct horse"

    device = FileDeviceKey.generate(path, passphrase).public
    asked.clear()
    session = made.open(license=made.license(devices=[device]), key=f"file:{path}", passphrase=passphrase)
    assert len(asked) == 1
    session.renew(made.license(devices=[device]))
    assert len(asked) == 2
    path.unlink()
    with pytest.raises(DeviceKeyError, match="does not exist"):
        session.renew(made.license(devices=[device]))
    assert same(session.run(None, made.feed())[0], made.keyed)


def test_a_watched_license_is_renewed_from_its_file(made: LockedModel, clocks: Clocks, tmp_path: Path) -> None:
    path = tmp_path / "acme.license"
    write_license(path, short(made, seq=1))
    session = made.open(license=path, watch=True)
    session.run(None, made.feed())
    write_license(path, made.license(seq=2), overwrite=True)
    clocks.advance(31)  # the old one has ended: the file is looked at before the session stops
    assert same(session.run(None, made.feed())[0], made.keyed)
    assert session.claims is not None
    assert session.claims.seq == 2


def test_a_license_replaced_while_it_opened_the_model_is_taken(made: LockedModel, tmp_path: Path) -> None:
    path = tmp_path / "acme.license"
    write_license(path, made.license(seq=1))
    session = made.open(license=str(path), watch=True)
    write_license(path, made.license(seq=2), overwrite=True)
    session.run(None, made.feed())
    assert session.claims is not None
    assert session.claims.seq == 2


def test_an_unwatched_file_is_not_looked_at(made: LockedModel, clocks: Clocks, tmp_path: Path) -> None:
    path = tmp_path / "acme.license"
    write_license(path, short(made))
    session = made.open(license=path)
    write_license(path, made.license(), overwrite=True)
    clocks.advance(31)
    with pytest.raises(LicenseExpiredError):
        session.run(None, made.feed())


def test_a_bad_file_is_said_once_and_the_good_license_stays(
    made: LockedModel, clocks: Clocks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "acme.license"
    write_license(path, made.license())
    session = made.open(license=path, watch=True)
    session.run(None, made.feed())
    path.write_bytes(b"not a license")
    with caplog.at_level(logging.WARNING, "keylatch.runtime"):
        for _ in range(3):
            clocks.advance(_admission.RECHECK_SECONDS + 1)
            assert same(session.run(None, made.feed())[0], made.keyed)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} was not taken, what is in force stays: not a license: it does not start with KEYLATCH"
    ]
    path.unlink()
    clocks.advance(_admission.RECHECK_SECONDS + 1)
    session.run(None, made.feed())
    write_license(path, made.license(seq=2**50))
    clocks.advance(_admission.RECHECK_SECONDS + 1)
    session.run(None, made.feed())
    assert session.claims is not None
    assert session.claims.seq == 2**50


def test_watching_needs_a_file(made: LockedModel) -> None:
    with pytest.raises(InputError, match="path"):
        made.open(watch=True)


def test_a_list_that_names_the_license_ends_the_session(made: LockedModel) -> None:
    session = made.open(revocations=list_of(made, seq=1))
    session.run(None, made.feed())
    with pytest.raises(LicenseRevokedError):
        session.renew(revocations=list_of(made, id_of(session), seq=2))
    with pytest.raises(LicenseRevokedError):
        session.run(None, made.feed())
    with pytest.raises(OlderRevocationListError):
        session.renew(revocations=list_of(made, seq=1))
    session.renew(made.license())  # another license is not on the list
    assert same(session.run(None, made.feed())[0], made.keyed)


def test_a_watched_list_that_names_the_license_ends_the_session(
    made: LockedModel, clocks: Clocks, tmp_path: Path
) -> None:
    path = tmp_path / "acme.revocations"
    path.write_bytes(list_of(made, seq=1))
    session = made.open(revocations=path, watch=True)
    session.run(None, made.feed())
    path.write_bytes(list_of(made, id_of(session), seq=2))
    clocks.advance(_admission.RECHECK_SECONDS + 1)
    with pytest.raises(LicenseRevokedError):
        session.run(None, made.feed())


def test_a_list_that_grows_too_old_stops_the_session_until_a_fresh_one_comes(made: LockedModel, clocks: Clocks) -> None:
    license = made.license(max_list_age=DAY // 2)
    session = made.open(license=license, revocations=list_of(made, seq=1))
    session.run(None, made.feed())
    clocks.advance(DAY // 2 + 60)
    with pytest.raises(StaleRevocationListError):
        session.run(None, made.feed())
    session.renew(revocations=list_of(made, seq=2))
    assert same(session.run(None, made.feed())[0], made.keyed)


def test_license_and_list_are_watched_together(made: LockedModel, clocks: Clocks, tmp_path: Path) -> None:
    license, revocations = tmp_path / "acme.license", tmp_path / "acme.revocations"
    write_license(license, short(made, seq=1))
    revocations.write_bytes(list_of(made, seq=1))
    session = made.open(license=license, revocations=revocations, watch=True)
    session.run(None, made.feed())
    revocations.write_bytes(list_of(made, id_of(session), seq=2))
    write_license(license, made.license(seq=2), overwrite=True)
    clocks.advance(_admission.RECHECK_SECONDS + 1)
    assert same(session.run(None, made.feed())[0], made.keyed)
