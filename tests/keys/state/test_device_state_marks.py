from __future__ import annotations

import pytest
from license_world import World
from state_world import DAY, LONG_AGO, MODEL_ID, NOW, StateWorld, model

from keylatch.errors import DeviceStateError, OlderLicenseError, OlderRevocationListError
from keylatch.keys._state_record import HIGH_WATER_STEP_SECONDS, MAX_MODELS


def test_an_older_license_is_refused_after_a_newer_one_and_the_same_one_is_not(device: StateWorld) -> None:
    device.state.remember(device.claims(seq=7), None, now=NOW)
    for state in (device.state, device.open()):
        for seq in (7, 8):
            state.check(device.claims(seq=seq), None, now=NOW)
        for refuse in (state.check, state.remember):
            with pytest.raises(OlderLicenseError, match="license has seq 6, and this device has seen seq 7") as caught:
                refuse(device.claims(seq=6), None, now=NOW)
            assert caught.value.hint


def test_licenses_are_in_order_for_each_model_by_itself(device: StateWorld) -> None:
    device.state.remember(device.claims(seq=7), None, now=NOW)
    device.state.remember(device.claims(seq=2, model_id=model(1)), None, now=NOW)
    assert device.content()["seqs"] == {MODEL_ID: 7, model(1): 2}


def test_checking_remembers_nothing(device: StateWorld) -> None:
    before = device.path.read_bytes()
    device.state.check(device.claims(seq=50, issued_at=NOW), device.list(seq=50), now=NOW)
    assert device.path.read_bytes() == before


def test_an_older_list_is_refused_after_a_newer_one_and_the_same_one_is_not(device: StateWorld) -> None:
    device.state.remember(device.claims(), device.list(seq=3), now=NOW)
    for state in (device.state, device.open()):
        for revocations in (device.list(seq=3), device.list(seq=4), None):
            state.check(device.claims(), revocations, now=NOW)
        for refuse in (state.check, state.remember):
            with pytest.raises(OlderRevocationListError, match="has seq 2, and this device has seen seq 3") as caught:
                refuse(device.claims(), device.list(seq=2), now=NOW)
            assert caught.value.hint


def test_a_list_is_remembered_by_itself_and_so_holds_when_it_revokes(device: StateWorld) -> None:
    device.state.remember_list(device.list(seq=9, issued_at=NOW), now=NOW)
    content = device.content()
    assert (content["list_seq"], content["signed_floor"], content["seqs"]) == (9, NOW, {})
    with pytest.raises(OlderRevocationListError):
        device.state.check(device.claims(), device.list(seq=8), now=NOW)
    with pytest.raises(OlderRevocationListError):
        device.state.remember_list(device.list(seq=8), now=NOW)


def test_what_opened_raises_every_mark_and_lowers_none(device: StateWorld) -> None:
    device.state.remember(device.claims(seq=7, issued_at=NOW - 5), device.list(seq=3, issued_at=NOW - 9), now=NOW)
    expected = {"high_water": NOW, "signed_floor": NOW - 5, "list_seq": 3, "seqs": {MODEL_ID: 7}}
    assert device.content().items() >= expected.items()
    device.state.remember(device.claims(seq=7, issued_at=LONG_AGO), None, now=NOW - 100)
    device.state.remember(device.claims(seq=7), device.list(seq=3, issued_at=LONG_AGO), now=NOW)
    assert device.content().items() >= expected.items()


@pytest.mark.parametrize("fact", ["license seq", "license issued_at", "list seq", "list issued_at", "model"])
def test_each_new_signed_fact_is_written_at_once_with_a_new_nonce(device: StateWorld, fact: str) -> None:
    device.state.remember(device.claims(), device.list(), now=NOW)
    before = device.content()
    claims, revocations = device.claims(), device.list()
    if fact == "license seq":
        claims = device.claims(seq=8)
    elif fact == "license issued_at":
        claims = device.claims(issued_at=NOW)
    elif fact == "list seq":
        revocations = device.list(seq=4)
    elif fact == "list issued_at":
        revocations = device.list(issued_at=NOW)
    else:
        claims = device.claims(model_id=model(5))
    device.state.remember(claims, revocations, now=NOW)
    after = device.content()
    assert after["nonce"] != before["nonce"]
    assert {name for name in after if after[name] != before[name]} - {"nonce", "mac"}


def test_time_alone_is_written_once_an_hour(device: StateWorld) -> None:
    claims = device.claims()
    device.state.remember(claims, None, now=NOW)
    before = device.path.read_bytes()
    device.state.remember(claims, None, now=NOW + HIGH_WATER_STEP_SECONDS - 1)
    device.state.advance(NOW + HIGH_WATER_STEP_SECONDS - 1)
    assert device.path.read_bytes() == before
    device.state.advance(NOW + HIGH_WATER_STEP_SECONDS)
    assert device.content()["high_water"] == NOW + HIGH_WATER_STEP_SECONDS
    device.state.remember(claims, None, now=NOW + 2 * HIGH_WATER_STEP_SECONDS)
    assert device.content()["high_water"] == NOW + 2 * HIGH_WATER_STEP_SECONDS


def test_advancing_raises_the_high_water_mark_and_nothing_else(device: StateWorld) -> None:
    device.state.remember(device.claims(), device.list(), now=NOW)
    before = device.content()
    device.state.advance(NOW + DAY)
    after = device.content()
    assert {name for name in after if after[name] != before[name]} == {"nonce", "high_water", "mac"}
    device.state.advance(NOW)
    assert device.content() == after


def test_at_the_bound_another_model_is_refused_and_none_is_forgotten(
    device: StateWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keylatch.keys._state_record.MAX_MODELS", 3)
    for number in range(3):
        device.state.remember(device.claims(model_id=model(number)), None, now=NOW)
    for refuse in (device.state.check, device.state.remember):
        with pytest.raises(DeviceStateError, match="remembers 3 models, and holds no more") as caught:
            refuse(device.claims(model_id=model(3)), None, now=NOW)
        assert caught.value.hint
    device.state.remember(device.claims(model_id=model(0), seq=9), None, now=NOW)
    with pytest.raises(OlderLicenseError):
        device.state.check(device.claims(model_id=model(0)), None, now=NOW)
    assert len(device.content()["seqs"]) == 3


def test_a_full_state_fits_its_file(world: World, device: StateWorld) -> None:
    from keylatch.keys._claims import MAX_SEQ
    from keylatch.keys._device_secret import derive_device_secret
    from keylatch.keys._state_file import MAC_KEY_INFO, MAX_STATE_BYTES, serialize_state
    from keylatch.keys._state_record import StateRecord

    record = StateRecord(
        device=world.device.public.thumbprint,
        nonce="n" * 43,
        high_water=NOW,
        signed_floor=NOW,
        list_seq=MAX_SEQ,
        seqs={model(number): MAX_SEQ for number in range(MAX_MODELS)},
        counter=2**63 - 1,
    )
    data = serialize_state(record, derive_device_secret(world.device, MAC_KEY_INFO))
    assert len(data) < MAX_STATE_BYTES
    device.path.write_bytes(data)
    with pytest.raises(DeviceStateError, match="goes with a counter"):
        device.open()
