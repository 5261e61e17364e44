from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from license_world import NOW, World
from state_world import make_list

from keylatch.errors import ClockError, FormatError, SignatureError
from keylatch.keys import FileIssuerKey, Trust, verify_license
from keylatch.keys._time_token import (
    MAX_REQUEST_BYTES,
    TimeRequest,
    parse_time_request,
    read_time_token,
    sign_time_token,
    verify_time_token,
    write_time_token,
)

NONCE = "n" * 43


@pytest.fixture(scope="session")
def request_(world: World) -> TimeRequest:
    return TimeRequest(world.device.public.thumbprint, NONCE)


def sign(world: World, request: TimeRequest, **changes: Any) -> bytes:
    return sign_time_token(**{"issuer": world.issuer, "request": request, "issued_at": NOW, **changes})


def verify(world: World, data: bytes, request: TimeRequest) -> Any:
    return verify_time_token(data, Trust([world.issuer.public]), request)


def forge(world: World, request: TimeRequest, **changes: Any) -> bytes:
    header = {"alg": "Ed25519", "typ": "keylatch-time+jwt", "kid": world.issuer.public.thumbprint}
    stated = {"keylatch": 1, "aud": "keylatch-device", "iss": world.issuer.public.thumbprint, "iat": NOW}
    payload = {**stated, "cnf": {"jkt": [request.device]}, "nonce": request.nonce, **changes}
    return world.sign(header, payload)


def test_a_token_tells_the_time_that_was_signed(world: World, request_: TimeRequest) -> None:
    token = verify(world, sign(world, request_), request_)
    assert (token.issued_at, token.issuer) == (NOW, world.issuer.public.thumbprint)
    assert verify(world, forge(world, request_), request_) == token


def test_a_token_for_another_device_is_refused(world: World, request_: TimeRequest) -> None:
    foreign = replace(request_, device=world.foreign_device.public.thumbprint)
    with pytest.raises(ClockError, match="time token is for device") as caught:
        verify(world, sign(world, foreign), request_)
    assert foreign.device in caught.value.message
    assert caught.value.hint


def test_a_token_for_another_nonce_is_refused(world: World, request_: TimeRequest) -> None:
    with pytest.raises(ClockError, match="answers an earlier request") as caught:
        verify(world, sign(world, replace(request_, nonce="m" * 43)), request_)
    assert caught.value.hint


def test_a_token_by_another_issuer_is_refused(world: World, request_: TimeRequest) -> None:
    with pytest.raises(SignatureError, match="is signed by issuer"):
        verify(world, sign(world, request_, issuer=world.foreign_issuer), request_)


def test_a_token_by_an_impostor_is_refused(world: World, request_: TimeRequest) -> None:
    with pytest.raises(SignatureError, match="does not verify"):
        verify(world, replace(world, issuer=FileIssuerKey.generate()).sign(
            {"alg": "Ed25519", "typ": "keylatch-time+jwt", "kid": world.issuer.public.thumbprint}, {}
        ), request_)  # fmt: skip


def test_a_retired_issuer_s_token_is_refused(world: World, request_: TimeRequest) -> None:
    trust = Trust([world.issuer.public], until={world.issuer.public.thumbprint: NOW})
    with pytest.raises(SignatureError, match="retired issuer key"):
        verify_time_token(sign(world, request_), trust, request_)


def test_a_license_or_list_is_no_time_token_and_a_time_token_is_no_license(world: World, request_: TimeRequest) -> None:
    for other in (world.issue().jwt, make_list(world).partition(b"\n")[0]):
        with pytest.raises(SignatureError, match=r"has typ .*, expected keylatch-time"):
            verify(world, other, request_)
    with pytest.raises(SignatureError, match="has typ 'keylatch-time"):
        license = replace(world.issue(), jwt=sign(world, request_))
        verify_license(license, Trust([world.issuer.public]), now=NOW)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iat", True), ("iat", -1), ("iat", 10**15), ("iat", "1"), ("nonce", "n"), ("nonce", None), ("nonce", ["n"]),
        ("cnf", {}), ("cnf", None), ("cnf", {"jkt": []}), ("cnf", {"jkt": ["a" * 43, "b" * 43]}), ("cnf", {"jkt": "a"}),
        ("cnf", {"jkt": [None]}), ("iss", "x"), ("keylatch", True), ("keylatch", 2), ("extra", 0),
    ],
)  # fmt: skip
def test_a_claim_of_another_type_or_range_is_refused(
    world: World, request_: TimeRequest, name: str, value: object
) -> None:
    with pytest.raises(FormatError) as caught:
        verify(world, forge(world, request_, **{name: value}), request_)
    assert caught.value.hint


def test_a_token_for_the_runtime_is_no_token_for_a_device(world: World, request_: TimeRequest) -> None:
    with pytest.raises(SignatureError, match="expected keylatch-device"):
        verify(world, forge(world, request_, aud="keylatch-runtime"), request_)


def test_a_token_that_is_too_long_is_not_decoded(world: World, request_: TimeRequest) -> None:
    data = forge(world, request_, extra="x" * 4096)
    with pytest.raises(FormatError, match="bytes, expected at most 4096"):
        verify(world, data, request_)


@pytest.mark.parametrize("issued_at", [-1, 10**15, True])
def test_a_time_out_of_range_is_not_signed(world: World, request_: TimeRequest, issued_at: int) -> None:
    with pytest.raises(FormatError):
        sign(world, request_, issued_at=issued_at)


@given(st.data())
def test_a_token_with_any_byte_changed_is_refused(world: World, request_: TimeRequest, data: st.DataObject) -> None:
    edited = bytearray(sign(world, request_))
    edited[data.draw(st.integers(0, len(edited) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises((SignatureError, FormatError)):
        verify(world, bytes(edited), request_)


@given(st.binary(max_size=80) | st.builds(lambda size: b"A" * size, st.integers(0, 5000)))
def test_any_bytes_are_no_token(world: World, request_: TimeRequest, data: bytes) -> None:
    with pytest.raises((SignatureError, FormatError)):
        verify(world, data, request_)


def test_requests_and_tokens_go_to_files_and_back(world: World, request_: TimeRequest, tmp_path: Path) -> None:
    request_.save(tmp_path / "time.request")
    assert TimeRequest.load(tmp_path / "time.request") == request_ == parse_time_request(request_.serialize())
    token = sign(world, request_)
    write_time_token(tmp_path / "time.token", token)
    assert read_time_token(tmp_path / "time.token") == (tmp_path / "time.token").read_bytes() == token
    (tmp_path / "time.token").write_bytes(token + b"\n")  # as it comes back from an editor
    assert read_time_token(tmp_path / "time.token") == token


@pytest.mark.parametrize(
    "document",
    [
        b"", b"{}", b"[]", b"\xff", b'{"keylatch":"time-request/1"}',
        json.dumps({"keylatch": "time-request/2", "device": "a" * 43, "nonce": NONCE}).encode(),
        json.dumps({"keylatch": "time-request/1", "device": "a" * 44, "nonce": NONCE}).encode(),
        json.dumps({"keylatch": "time-request/1", "device": "a" * 43, "nonce": 5}).encode(),
        json.dumps({"keylatch": "time-request/1", "device": ["a"], "nonce": NONCE}).encode(),
        json.dumps({"keylatch": "time-request/1", "device": "a" * 43, "nonce": NONCE, "x": 1}).encode(),
        b'{"device":"b","keylatch":"time-request/1","device":"a","nonce":"n"}',
        TimeRequest("a" * 43, NONCE).serialize().ljust(MAX_REQUEST_BYTES + 1),
    ],
)  # fmt: skip
def test_a_malformed_request_is_refused(document: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        parse_time_request(document)
    assert caught.value.hint


@given(st.binary(max_size=120))
def test_any_bytes_are_a_request_or_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_time_request(data)
