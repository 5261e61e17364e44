from __future__ import annotations

import pytest
from license_world import DAY, NOW, World

from keylatch.errors import LicenseExpiredError, LicenseNotYetValidError
from keylatch.keys import BUILD_TIME, Trust, check_validity, clock_floor, current_time, verify_license


def test_an_expired_license_says_when_and_how_long_ago(world: World) -> None:
    license = world.issue(expires_at=NOW)
    with pytest.raises(LicenseExpiredError) as caught:
        verify_license(license, Trust([world.issuer.public]), now=NOW + 3 * DAY + 5)
    assert caught.value.message == "license expired 2026-12-01 13:46 UTC, 3 days ago"
    assert caught.value.hint == "ask the issuer to renew it"


def test_a_license_is_valid_from_its_first_second_to_the_one_before_its_end(world: World) -> None:
    license, trust = world.issue(not_before=NOW, expires_at=NOW + 10), Trust([world.issuer.public])
    assert verify_license(license, trust, now=NOW).not_before == NOW
    assert verify_license(license, trust, now=NOW + 9)
    with pytest.raises(LicenseExpiredError, match="0 seconds ago"):
        verify_license(license, trust, now=NOW + 10)
    with pytest.raises(LicenseNotYetValidError, match=r"in 1 second\n"):
        verify_license(license, trust, now=NOW - 1)


def test_a_license_not_yet_valid_says_from_when(world: World) -> None:
    license = world.issue(not_before=NOW + 2 * 3600)
    with pytest.raises(LicenseNotYetValidError, match=r"valid from 2026-12-01 15:46 UTC, in 2 hours") as caught:
        verify_license(license, Trust([world.issuer.public]), now=NOW)
    assert caught.value.hint


@pytest.mark.parametrize("back", [60, 3600, DAY, 3650 * DAY, NOW])
def test_setting_the_clock_back_does_not_revive_a_license_that_ended_before_this_release(
    world: World, back: int
) -> None:
    license = world.issue(issued_at=0, not_before=0, expires_at=BUILD_TIME)
    with pytest.raises(LicenseExpiredError):
        verify_license(license, Trust([world.issuer.public]), now=BUILD_TIME - back)


def test_a_clock_before_issuing_is_lifted_to_the_moment_of_issuing(world: World) -> None:
    license = world.issue(issued_at=NOW, not_before=NOW, expires_at=NOW + 1)
    claims = verify_license(license, Trust([world.issuer.public]), now=0)
    assert clock_floor(0, claims.issued_at) == NOW
    assert clock_floor(NOW + 5, claims.issued_at) == NOW + 5


def test_the_floor_is_never_below_the_build_time(world: World) -> None:
    claims = verify_license(world.issue(issued_at=0), Trust([world.issuer.public]), now=NOW)
    assert clock_floor(0, claims.issued_at) == BUILD_TIME


def test_the_time_can_be_judged_again_while_the_model_runs(world: World) -> None:
    claims = verify_license(world.issue(), Trust([world.issuer.public]), now=NOW)
    check_validity(claims, now=NOW)
    with pytest.raises(LicenseExpiredError):
        check_validity(claims, now=NOW + 2 * DAY)


def test_the_current_time_is_the_clock_but_never_before_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.clock_gettime", lambda _clock: NOW + 0.9)
    assert current_time() == NOW
    monkeypatch.setattr("time.clock_gettime", lambda _clock: 12.0)
    assert current_time() == BUILD_TIME
