from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from license_world import DAY, NOW, World
from state_world import LONG_AGO, make_claims, make_list

from keylatch.errors import (
    FormatError,
    LicenseRequiredError,
    LicenseRevokedError,
    OutputError,
    RevocationListRequiredError,
    SignatureError,
    StaleRevocationListError,
)
from keylatch.keys import Trust, verify_license
from keylatch.keys._revocations import (
    MAX_LIST_BYTES,
    MAX_REVOKED,
    check_revocations,
    read_revocation_list,
    sign_revocation_list,
    verify_revocation_list,
    write_revocation_list,
)
from keylatch.keys._time_token import TimeRequest, sign_time_token

HEADER = {"alg": "Ed25519", "typ": "keylatch-revocations+jwt"}


def verify(world: World, data: bytes) -> Any:
    return verify_revocation_list(data, Trust([world.issuer.public]))


def ids(count: int) -> list[str]:
    return sorted(str(uuid.UUID(int=number << 80, version=4)) for number in range(count))


def payload(world: World, lines: bytes = b"", **changes: Any) -> dict[str, Any]:
    stated = {"keylatch": 1, "aud": "keylatch-runtime", "iss": world.issuer.public.thumbprint, "iat": NOW, "seq": 1}
    return {**stated, "max_age": DAY, "revoked_sha256": hashlib.sha256(lines).hexdigest(), **changes}


def sign(world: World, stated: dict[str, Any] | bytes, lines: bytes = b"", **header: Any) -> bytes:
    return world.sign({**HEADER, "kid": world.issuer.public.thumbprint, **header}, stated) + b"\n" + lines


def test_a_list_says_what_was_signed(world: World) -> None:
    data = make_list(world, license_ids=[*reversed(ids(5)), ids(5)[0]], seq=9, issued_at=NOW, max_age=DAY)
    listed = verify(world, data)
    assert listed.license_ids == frozenset(ids(5))
    assert (listed.issuer, listed.issued_at, listed.seq, listed.max_age) == (
        world.issuer.public.thumbprint, NOW, 9, DAY,
    )  # fmt: skip
    assert data.split(b"\n")[1:] == [license_id.encode() for license_id in ids(5)] + [b""]


def test_an_empty_list_is_a_list_with_one_encoding(world: World) -> None:
    data = sign_revocation_list(issuer=world.issuer, seq=1, license_ids=[], issued_at=NOW, max_age=DAY)
    assert verify(world, data).license_ids == frozenset()
    with pytest.raises(FormatError, match="truncated"):
        verify(world, data.removesuffix(b"\n"))
    with pytest.raises(SignatureError):
        verify(world, data + b"\n")


def test_a_list_goes_to_a_file_and_back(world: World, tmp_path: Path) -> None:
    data, path = make_list(world), tmp_path / "revoked.list"
    write_revocation_list(path, data)
    assert read_revocation_list(path) == data
    with pytest.raises(OutputError, match="exists already"):
        write_revocation_list(path, data)
    write_revocation_list(path, make_list(world, seq=4), overwrite=True)
    assert verify(world, read_revocation_list(path)).seq == 4


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "revoked.list"
    path.touch()
    with path.open("r+b") as file:
        file.truncate(MAX_LIST_BYTES + 1)
    with pytest.raises(FormatError, match=f"expected at most {MAX_LIST_BYTES}"):
        read_revocation_list(path)


def test_the_longest_list_verifies_and_fits_its_file_and_one_more_id_does_not(world: World) -> None:
    data = make_list(world, license_ids=ids(MAX_REVOKED))
    assert len(data) <= MAX_LIST_BYTES
    assert len(verify(world, data).license_ids) == MAX_REVOKED
    with pytest.raises(FormatError, match="more than 100000 ids"):
        make_list(world, license_ids=ids(MAX_REVOKED + 1))


def test_a_list_by_another_issuer_is_refused(world: World) -> None:
    with pytest.raises(SignatureError, match="is signed by issuer"):
        verify(world, make_list(world, issuer=world.foreign_issuer))


def test_no_trusted_issuer_is_an_error_of_its_own(world: World) -> None:
    with pytest.raises(LicenseRequiredError, match="no trusted issuer"):
        verify_revocation_list(make_list(world), Trust())


def test_a_retired_issuer_s_list_is_refused_and_its_successor_s_is_not(world: World) -> None:
    retired, present = world.issuer, world.foreign_issuer
    trust = Trust([retired.public, present.public], until={retired.public.thumbprint: NOW + DAY})
    assert verify_revocation_list(make_list(world, issuer=present), trust)
    with pytest.raises(SignatureError, match="retired issuer key") as caught:
        verify_revocation_list(make_list(world), trust)
    assert caught.value.hint == "ask the issuer for a revocation list by its present key"


def test_an_unsigned_list_is_refused(world: World) -> None:
    token, _, lines = make_list(world).partition(b"\n")
    head, body, _ = token.split(b".")
    for unsigned in (lines, b"\n" + lines, head + b"." + body + b".\n" + lines, body + b"\n" + lines, b""):
        with pytest.raises(SignatureError, match="not signed"):
            verify(world, unsigned)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "EdDSA", None])
def test_any_other_algorithm_is_refused(world: World, algorithm: object) -> None:
    with pytest.raises(SignatureError, match="has alg"):
        verify(world, sign(world, payload(world), alg=algorithm))


def test_an_id_removed_added_or_exchanged_is_refused(world: World) -> None:
    token, _, lines = make_list(world, license_ids=ids(4)).partition(b"\n")
    entries = lines.splitlines(keepends=True)
    other = str(uuid.UUID(int=99 << 80, version=4)).encode() + b"\n"
    for edited in (entries[:-1], entries[1:], [*entries, other], [*entries[:-1], other], entries[::-1], []):
        with pytest.raises(SignatureError, match="ids that the issuer signed for"):
            verify(world, token + b"\n" + b"".join(edited))


def test_the_ids_of_one_list_do_not_fit_another_s_token(world: World) -> None:
    old, new = (make_list(world, license_ids=ids(count), seq=count) for count in (1, 2))
    with pytest.raises(SignatureError, match="ids that the issuer signed for"):
        verify(world, new.partition(b"\n")[0] + b"\n" + old.partition(b"\n")[2])


@pytest.mark.parametrize(
    "lines",
    [
        b"x\n", b"\n", b"0", ids(1)[0].encode(), ids(11)[-1].upper().encode() + b"\n", ids(1)[0].encode() + b"\r\n",
        "".join(f"{entry}\n" for entry in reversed(ids(2))).encode(), f"{ids(1)[0]}\n{ids(1)[0]}\n".encode(),
        f" {ids(1)[0]}\n".encode(), b"12345678-1234-1234-8234-123456789abc\n",
        b"12345678-1234-4234-c234-123456789abc\n", b"\xff" * 36 + b"\n", "٣2345678-1234-4234-8234-1234567\n".encode(),
    ],
)  # fmt: skip
def test_ids_of_another_form_are_refused_even_if_signed(world: World, lines: bytes) -> None:
    with pytest.raises(FormatError, match="UUIDs of version 4, sorted"):
        verify(world, sign(world, payload(world, lines), lines))


@pytest.mark.parametrize("license_id", ["x", "", "A" * 36, "\ud800", f"{ids(1)[0]}\n{ids(2)[1]}"])
def test_an_id_of_another_form_is_not_signed(world: World, license_id: str) -> None:
    with pytest.raises(FormatError):
        make_list(world, license_ids=[license_id])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iat", True), ("iat", -1), ("iat", 10**15), ("iat", "1"), ("seq", 0), ("seq", 2**53), ("seq", True),
        ("seq", None), ("max_age", -1), ("max_age", 10**12), ("max_age", False), ("iss", "x"), ("iss", []),
        ("revoked_sha256", "AB" * 32), ("revoked_sha256", None), ("revoked_sha256", "٣" * 64), ("extra", 1),
        ("keylatch", 2), ("keylatch", True), ("keylatch", None), ("keylatch", "1"),
    ],
)  # fmt: skip
def test_a_claim_of_another_type_or_range_is_refused(world: World, name: str, value: object) -> None:
    with pytest.raises(FormatError) as caught:
        verify(world, sign(world, payload(world, **{name: value})))
    assert caught.value.hint
    assert caught.value.message.isprintable()


def test_every_claim_is_needed(world: World) -> None:
    stated = payload(world)
    assert verify(world, sign(world, stated))
    for name in stated:
        with pytest.raises((FormatError, SignatureError)):
            verify(world, sign(world, {key: value for key, value in stated.items() if key != name}))


@pytest.mark.parametrize("audience", ["keylatch-device", ["keylatch-runtime"], None])
def test_another_audience_is_refused(world: World, audience: object) -> None:
    with pytest.raises(SignatureError, match="expected keylatch-runtime"):
        verify(world, sign(world, payload(world, aud=audience)))


def test_the_issuer_inside_must_be_the_one_who_signed(world: World) -> None:
    with pytest.raises(SignatureError, match="names issuer"):
        verify(world, sign(world, payload(world, iss=world.foreign_issuer.public.thumbprint)))


def test_duplicate_keys_are_refused(world: World) -> None:
    stated = json.dumps(payload(world)).encode()
    for forged in (b'{"seq":9,' + stated[1:], stated[:-1] + b',"max_age":99999999}'):
        with pytest.raises(FormatError, match="a key is repeated"):
            verify(world, sign(world, forged))


def test_a_license_or_time_token_is_no_list_and_a_list_is_no_license(world: World) -> None:
    license = world.issue()
    request = TimeRequest(world.device.public.thumbprint, "A" * 43)
    for other in (license.jwt, sign_time_token(issuer=world.issuer, request=request, issued_at=NOW)):
        with pytest.raises(SignatureError, match=r"has typ .*, expected keylatch-revocations"):
            verify(world, other + b"\n")
    with pytest.raises((SignatureError, FormatError)):
        verify(world, license.serialize())
    token = make_list(world).partition(b"\n")[0]
    with pytest.raises(SignatureError, match="has typ 'keylatch-revocations"):
        verify_license(replace(license, jwt=token), Trust([world.issuer.public]), now=NOW)


def test_a_license_on_the_list_is_revoked(world: World) -> None:
    claims = make_claims(world)
    listed = verify(world, make_list(world, license_ids=[*ids(3), claims.license_id]))
    with pytest.raises(LicenseRevokedError, match=claims.license_id) as caught:
        check_revocations(claims, listed, now=NOW)
    assert caught.value.hint
    check_revocations(make_claims(world), listed, now=NOW)


def test_a_list_that_is_too_old_revokes_all_the_same(world: World) -> None:
    claims = make_claims(world)
    listed = verify(world, make_list(world, license_ids=[claims.license_id], max_age=1))
    with pytest.raises(LicenseRevokedError):
        check_revocations(claims, listed, now=NOW)


def test_a_license_that_asks_for_a_list_gets_none_without(world: World) -> None:
    with pytest.raises(RevocationListRequiredError, match="asks for a revocation list"):
        check_revocations(make_claims(world, max_list_age=DAY), None, now=NOW)
    check_revocations(make_claims(world), None, now=NOW)


@pytest.mark.parametrize(
    ("list_age", "license_age", "limit"), [(DAY, None, DAY), (DAY, 60, 60), (60, DAY, 60), (0, None, 0), (DAY, 0, 0)]
)
def test_a_list_is_good_for_the_shorter_of_its_own_and_the_license_s_age(
    world: World, list_age: int, license_age: int | None, limit: int
) -> None:
    claims = make_claims(world, max_list_age=license_age)
    listed = verify(world, make_list(world, issued_at=NOW, max_age=list_age))
    check_revocations(claims, listed, now=NOW + limit)
    with pytest.raises(StaleRevocationListError, match="old, expected at most") as caught:
        check_revocations(claims, listed, now=NOW + limit + 1)
    assert caught.value.hint


@pytest.mark.parametrize("now", [0, -(10**20), NOW - DAY, NOW])
def test_setting_the_clock_back_makes_no_list_younger_than_the_license(world: World, now: int) -> None:
    claims = make_claims(world, issued_at=NOW + 2 * DAY)
    with pytest.raises(StaleRevocationListError, match="2 days old"):
        check_revocations(claims, verify(world, make_list(world, issued_at=NOW, max_age=DAY)), now=now)


def test_a_list_from_the_clock_s_future_is_not_stale(world: World) -> None:
    check_revocations(make_claims(world), verify(world, make_list(world, issued_at=NOW + DAY, max_age=0)), now=NOW)


def test_a_list_s_repr_is_short(world: World) -> None:
    listed = verify(world, make_list(world, license_ids=ids(50)))
    assert ids(50)[7] not in repr(listed)


@given(st.data())
def test_a_list_with_any_byte_changed_is_refused(world: World, data: st.DataObject) -> None:
    original = make_list(world, issued_at=LONG_AGO)
    position = data.draw(st.integers(0, len(original) - 1))
    edited = bytearray(original)
    edited[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises((SignatureError, FormatError)):
        verify(world, bytes(edited))


@given(st.data())
def test_a_list_cut_short_or_spliced_is_refused(world: World, data: st.DataObject) -> None:
    original = make_list(world)
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(original))] * 2)))
    filling = data.draw(st.binary(max_size=40))
    edited = original[:start] + filling + original[end:]
    if edited != original:
        with pytest.raises((SignatureError, FormatError)):
            verify(world, edited)
