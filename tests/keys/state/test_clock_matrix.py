"""The clock matrix: how far the clock was set back, against what became of the state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from license_world import World
from state_world import DAY, HOUR, LONG_AGO, MINUTE, NOW, YEAR, StateWorld, make_state

from keylatch.errors import (
    ClockError,
    ClockSetBackError,
    FormatError,
    LicenseExpiredError,
    SignatureError,
    StateEditedError,
    StateMissingError,
    StateRolledBackError,
)
from keylatch.keys import Trust, check_validity
from keylatch.keys._state_record import CLOCK_LEEWAY_SECONDS, HIGH_WATER_STEP_SECONDS, MAX_LEEWAY_SECONDS

BACK = {MINUTE: "1 minute", HOUR: "1 hour", DAY: "1 day", 10 * YEAR: "3650 days"}
FAR_BACK = [back for back in BACK if back > CLOCK_LEEWAY_SECONDS]
# The copy that is put back was made between a day and ten years ago.
COPIED = NOW - 20 * DAY


def live(world: World, folder: Path, *, with_counter: bool) -> tuple[StateWorld, bytes]:
    """A device that was used twenty days ago and now, and a copy of its state from between."""
    device = make_state(world, folder, with_counter=with_counter)
    device.state.remember(device.claims(), None, now=COPIED)
    copy = device.path.read_bytes()
    device.state.remember(device.claims(), None, now=NOW)
    return device, copy


@pytest.fixture(params=[False, True], ids=["no counter", "counter"])
def used(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> tuple[StateWorld, bytes]:
    return live(world, tmp_path, with_counter=request.param)


@pytest.mark.parametrize("back", [0, MINUTE, CLOCK_LEEWAY_SECONDS])
def test_within_the_leeway_it_runs_at_the_moment_that_was_seen_last(used: tuple[StateWorld, bytes], back: int) -> None:
    device, _ = used
    for state in (device.state, device.open()):
        assert state.check(device.claims(), None, now=NOW - back) == NOW


def test_within_the_leeway_an_ended_license_stays_ended(used: tuple[StateWorld, bytes]) -> None:
    device, _ = used
    claims = device.claims(expires_at=NOW)
    moment = device.state.check(claims, None, now=NOW - MINUTE)
    with pytest.raises(LicenseExpiredError):
        check_validity(claims, now=moment)


@pytest.mark.parametrize("back", FAR_BACK, ids=BACK.get)
def test_a_clock_set_back_is_refused(used: tuple[StateWorld, bytes], back: int) -> None:
    device, _ = used
    for state in (device.state, device.open()):
        with pytest.raises(ClockSetBackError, match=f"clock stands {BACK[back]} before 2026-12-01 13:46 UTC") as caught:
            state.check(device.claims(), None, now=NOW - back)
        # Ten years back is before the license was issued, and no token helps against that.
        assert ("time token" in (caught.value.hint or "")) == (back < 10 * YEAR)
        with pytest.raises(ClockSetBackError):
            state.remember(device.claims(), None, now=NOW - back)


@pytest.mark.parametrize("back", BACK, ids=BACK.get)
def test_a_deleted_state_is_refused(used: tuple[StateWorld, bytes], back: int) -> None:
    device, _ = used
    device.path.unlink()
    with pytest.raises(StateMissingError):
        device.state.check(device.claims(), None, now=NOW - back)
    with pytest.raises(StateMissingError, match="does not exist") as caught:
        device.open()
    assert "init-state" in (caught.value.hint or "")
    assert not device.path.exists()


@pytest.mark.parametrize("back", BACK, ids=BACK.get)
def test_with_a_counter_a_state_put_back_is_refused(world: World, tmp_path: Path, back: int) -> None:
    device, copy = live(world, tmp_path, with_counter=True)
    device.path.write_bytes(copy)
    with pytest.raises(StateRolledBackError, match="its counter stands at"):
        device.state.check(device.claims(), None, now=NOW - back)
    with pytest.raises(StateRolledBackError):
        device.open()
    with pytest.raises(StateRolledBackError):
        device.state.advance(NOW)


@pytest.mark.parametrize("back", [MINUTE, HOUR, DAY], ids=BACK.get)
def test_without_a_counter_a_state_put_back_gives_back_the_time_since_the_copy(
    world: World, tmp_path: Path, back: int
) -> None:
    # Documented, not wanted: nothing but a counter can tell. What is older than the copy stays refused.
    device, copy = live(world, tmp_path, with_counter=False)
    device.path.write_bytes(copy)
    assert device.open().check(device.claims(), None, now=NOW - back) == NOW - back


def test_without_a_counter_a_state_put_back_still_refuses_what_is_older_than_the_copy(
    world: World, tmp_path: Path
) -> None:
    device, copy = live(world, tmp_path, with_counter=False)
    device.path.write_bytes(copy)
    with pytest.raises(ClockSetBackError):
        device.open().check(device.claims(), None, now=NOW - 10 * YEAR)


@pytest.mark.parametrize("back", BACK, ids=BACK.get)
@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("keylatch", "state/2"), ("device", "a" * 43), ("nonce", "a" * 43), ("high_water", 0), ("high_water", LONG_AGO),
        ("signed_floor", 0), ("list_seq", 5), ("seqs", {}), ("counter", 42), ("counter", None), ("mac", "a" * 43),
        ("mac", None), ("mac", "\ud800"), ("high_water", 1.5), ("high_water", None), ("extra", 1),
    ],
)  # fmt: skip
def test_an_edited_state_is_refused(used: tuple[StateWorld, bytes], back: int, member: str, value: object) -> None:
    device, _ = used
    content = device.content()
    if content.get(member, "absent") == value:
        return  # the one case that changes nothing: counter null where there is none
    content[member] = value
    device.path.write_text(json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n")
    with pytest.raises(StateEditedError):
        device.state.check(device.claims(), None, now=NOW - back)
    with pytest.raises(StateEditedError):
        device.open()


def test_a_clock_that_ran_ahead_is_refused_once_right_and_a_time_token_lets_it_in_again(
    used: tuple[StateWorld, bytes],
) -> None:
    device, _ = used
    claims = device.claims()
    device.state.remember(claims, None, now=NOW + YEAR)
    with pytest.raises(ClockSetBackError, match="364 days") as caught:
        device.state.check(claims, None, now=NOW + DAY)
    assert "ask the issuer for a time token" in (caught.value.hint or "")
    device.state.apply_time_token(device.token(NOW + DAY), device.trust, now=NOW + DAY + MINUTE)
    assert device.content()["high_water"] == NOW + DAY
    assert device.open().check(claims, None, now=NOW + DAY + MINUTE) == NOW + DAY + MINUTE
    # It is a mark again, from there on.
    with pytest.raises(ClockSetBackError):
        device.state.check(claims, None, now=NOW)


def test_a_token_is_good_once(used: tuple[StateWorld, bytes]) -> None:
    device, _ = used
    token = device.token(NOW)
    device.state.apply_time_token(token, device.trust, now=NOW)
    before = device.path.read_bytes()
    for state in (device.state, device.open()):
        with pytest.raises(ClockError, match="answers an earlier request"):
            state.apply_time_token(token, device.trust, now=NOW)
    assert device.path.read_bytes() == before


def test_a_token_kept_for_later_is_refused_after_the_next_write(used: tuple[StateWorld, bytes]) -> None:
    device, _ = used
    stock = [device.token(NOW), device.token(NOW + MINUTE)]
    device.state.advance(NOW + HIGH_WATER_STEP_SECONDS)
    for token in stock:
        with pytest.raises(ClockError, match="answers an earlier request"):
            device.state.apply_time_token(token, device.trust, now=NOW)


def test_a_token_that_must_not_count_changes_nothing(used: tuple[StateWorld, bytes]) -> None:
    device, _ = used
    world, before = device.world, device.path.read_bytes()
    request = device.state.time_request()
    retired = Trust([world.issuer.public], until={world.issuer.public.thumbprint: NOW})
    altered = bytearray(device.token(NOW))
    altered[200] ^= 1
    cases = [
        (device.token(NOW, request=type(request)(world.foreign_device.public.thumbprint, request.nonce)), ClockError),
        (device.token(NOW, issuer=world.foreign_issuer), SignatureError),
        (bytes(altered), SignatureError),
        (world.issue().jwt, SignatureError),
    ]
    for token, error in cases:
        with pytest.raises(error) as caught:
            device.state.apply_time_token(token, device.trust, now=NOW)
        assert caught.value.hint
    with pytest.raises(SignatureError, match="retired"):
        device.state.apply_time_token(device.token(NOW), retired, now=NOW)
    assert device.path.read_bytes() == before
    assert device.state.time_request() == request


@pytest.mark.parametrize("distance", [-YEAR, -DAY, -CLOCK_LEEWAY_SECONDS - 1, DAY + 1, YEAR, 10**20, -(10**20)])
def test_a_clock_that_does_not_agree_with_the_token_must_be_set_first(
    used: tuple[StateWorld, bytes], distance: int
) -> None:
    device, _ = used
    before = device.path.read_bytes()
    with pytest.raises(ClockError, match="the time token's 2026-12-01 13:46 UTC") as caught:
        device.state.apply_time_token(device.token(NOW), device.trust, now=NOW + distance)
    assert (caught.value.hint or "").startswith("set this machine's clock first")
    assert device.path.read_bytes() == before


@pytest.mark.parametrize("distance", [-CLOCK_LEEWAY_SECONDS, 0, DAY])
def test_a_token_may_travel_for_a_day(used: tuple[StateWorld, bytes], distance: int) -> None:
    device, _ = used
    device.state.apply_time_token(device.token(NOW), device.trust, now=NOW + distance)
    assert device.content()["high_water"] == NOW


def test_no_token_puts_the_mark_before_what_an_issuer_signed(used: tuple[StateWorld, bytes]) -> None:
    device, _ = used
    renewed = device.claims(issued_at=NOW)
    device.state.remember(renewed, None, now=NOW)
    device.state.apply_time_token(device.token(COPIED), device.trust, now=COPIED)
    assert device.content()["high_water"] == device.content()["signed_floor"] == NOW
    with pytest.raises(ClockSetBackError) as caught:
        device.state.check(renewed, None, now=COPIED)
    assert caught.value.hint == "set this machine's clock"


@pytest.mark.parametrize("part", ["license", "list"])
def test_a_clock_behind_what_is_being_opened_gets_the_same_answer_before_and_after(
    used: tuple[StateWorld, bytes], part: str
) -> None:
    device, _ = used
    claims = device.claims(issued_at=NOW + DAY) if part == "license" else device.claims()
    revocations = device.list(issued_at=NOW + DAY) if part == "list" else None
    with pytest.raises(ClockSetBackError, match="1 day before"):
        device.state.check(claims, revocations, now=NOW)
    device.state.remember(claims, revocations, now=NOW + DAY)
    with pytest.raises(ClockSetBackError, match="1 day before"):
        device.state.check(claims, revocations, now=NOW)


@pytest.mark.parametrize("part", ["license", "list"])
def test_what_an_issuer_signed_moves_now_on(used: tuple[StateWorld, bytes], part: str) -> None:
    device, _ = used
    claims = device.claims(issued_at=NOW + 200) if part == "license" else device.claims()
    revocations = device.list(issued_at=NOW + 200) if part == "list" else None
    assert device.state.check(claims, revocations, now=NOW) == NOW + 200


def test_small_steps_back_do_not_add_up(used: tuple[StateWorld, bytes]) -> None:
    device, _ = used
    for step in range(4):
        device.state.remember(device.claims(seq=8 + step), None, now=NOW - step * 80)
        assert device.content()["high_water"] == NOW
    with pytest.raises(ClockSetBackError):
        device.state.remember(device.claims(seq=20), None, now=NOW - 4 * 80)


@pytest.mark.parametrize("leeway", [0, MAX_LEEWAY_SECONDS])
def test_the_leeway_is_the_operator_s_within_a_day(used: tuple[StateWorld, bytes], leeway: int) -> None:
    device, _ = used
    state = device.open(leeway_seconds=leeway)
    assert state.check(device.claims(), None, now=NOW - leeway) == NOW
    with pytest.raises(ClockSetBackError):
        state.check(device.claims(), None, now=NOW - leeway - 1)


@pytest.mark.parametrize("leeway", [-1, MAX_LEEWAY_SECONDS + 1, 10**20, True, None, "5"])
def test_another_leeway_is_refused(device: StateWorld, leeway: object) -> None:
    with pytest.raises(FormatError, match="clock leeway"):
        device.open(leeway_seconds=leeway)


@pytest.mark.parametrize("now", [0, -1, -(10**20), LONG_AGO - DAY])
def test_a_clock_before_everything_is_refused_and_does_not_crash(device: StateWorld, now: int) -> None:
    with pytest.raises(ClockSetBackError):
        device.state.check(device.claims(), None, now=now)
    with pytest.raises(ClockSetBackError):
        device.state.remember(device.claims(), None, now=now)
    before = device.path.read_bytes()
    device.state.advance(now)
    assert device.path.read_bytes() == before


@pytest.mark.parametrize("now", [253_402_300_799, 253_402_300_800, 10**20])
def test_a_clock_after_everything_is_remembered_as_the_last_moment_there_is(device: StateWorld, now: int) -> None:
    assert device.state.check(device.claims(), None, now=now) == now
    device.state.remember(device.claims(), None, now=now)
    assert device.content()["high_water"] == 253_402_300_799
    with pytest.raises(ClockSetBackError, match="before 9999-12-31"):
        device.open().check(device.claims(), None, now=NOW)


@pytest.mark.parametrize("now", [-(10**20), 0, 10**20])
def test_a_state_made_by_a_mad_clock_can_be_read(world: World, tmp_path: Path, now: int) -> None:
    from keylatch.keys._device_state import DeviceState

    DeviceState.create(tmp_path / "device.state", world.device, now=now)
    state = DeviceState.open(tmp_path / "device.state", world.device)
    assert state.time_request().device == world.device.public.thumbprint
