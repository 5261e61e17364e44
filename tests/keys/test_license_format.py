from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from license_world import SECRET, World

from keylatch.errors import FormatError, IntegrityError, KeylatchError, LicensePartsError, OutputError
from keylatch.keys import (
    License,
    parse_license,
    read_claims_unverified,
    read_license,
    read_recipients_unverified,
    write_license,
)
from keylatch.keys._license import MAX_BLOB_BYTES, MAX_JWE_BYTES, MAX_JWT_BYTES

PARTS = st.binary(min_size=1, max_size=50)


@given(PARTS, PARTS, PARTS)
def test_any_three_parts_round_trip(jwt: bytes, jwe: bytes, blob: bytes) -> None:
    license = License(jwt, jwe, blob)
    assert parse_license(license.serialize()) == license


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_a_license_or_a_format_error(data: bytes, with_magic: bool) -> None:
    data = b"KEYLATCH\x01" * with_magic + data
    try:
        assert parse_license(data).serialize() == data
    except FormatError as error:
        assert error.hint


def test_the_frame_is_as_documented(world: World) -> None:
    license = world.issue()
    lengths = struct.pack("<III", len(license.jwt), len(license.jwe), len(license.blob))
    assert license.serialize() == b"KEYLATCH\x01" + lengths + license.jwt + license.jwe + license.blob


def test_every_single_bit_flip_is_refused(world: World) -> None:
    data = world.issue().serialize()
    assert len(data) < 2200
    assert world.open(data)["gate.patch"].tobytes() == SECRET
    accepted = []
    for position in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        try:
            world.open(bytes(flipped))
        except KeylatchError:
            continue
        accepted.append(position)
    assert accepted == []


def test_truncation_at_every_length_is_a_format_error(world: World) -> None:
    data = world.issue().serialize()
    for length in range(len(data)):
        with pytest.raises(FormatError):
            parse_license(data[:length])


@pytest.mark.parametrize("suffix", [b"\x00", b"\n", b"KEYLATCH"])
def test_appended_bytes_are_a_format_error(world: World, suffix: bytes) -> None:
    data = world.issue().serialize()
    with pytest.raises(FormatError, match=f"has {len(data) + len(suffix)} bytes, expected {len(data)}"):
        parse_license(data + suffix)


@pytest.mark.parametrize(("part", "error"), [("jwe", LicensePartsError), ("blob", LicensePartsError)])
def test_parts_of_two_licenses_do_not_mix(world: World, part: str, error: type[KeylatchError]) -> None:
    first, second = world.issue(), world.issue()
    mixed = replace(first, **{part: getattr(second, part)})
    with pytest.raises(error, match=f"license {part.upper() if part == 'jwe' else part} is not the one"):
        world.open(mixed.serialize())


def test_claims_of_one_license_do_not_open_the_parts_of_another(world: World) -> None:
    first, second = world.issue(), world.issue()
    with pytest.raises(LicensePartsError):
        world.open(replace(first, jwt=second.jwt).serialize())


@pytest.mark.parametrize("part", ["jwe", "blob"])
def test_parts_of_another_license_stay_shut_even_if_signed(world: World, part: str) -> None:
    # apu, apv and the associated data bind the parts to the license id beneath the digests.
    mixed = world.resign(world.issue(), **{part: getattr(world.issue(), part)})
    with pytest.raises((IntegrityError, FormatError)):
        world.open(mixed.serialize())


@pytest.mark.parametrize(("position", "limit"), [(0, MAX_JWT_BYTES), (1, MAX_JWE_BYTES), (2, MAX_BLOB_BYTES)])
def test_a_length_over_its_limit_is_refused_before_anything_is_allocated(position: int, limit: int) -> None:
    lengths = [1, 1, 1]
    for length in (limit + 1, 2**32 - 1, 0):
        lengths[position] = length
        with pytest.raises(FormatError, match=f"expected 1 to {limit}"):
            parse_license(struct.pack("<8sBIII", b"KEYLATCH", 1, *lengths) + b"abc")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a license"),
        (b"PK\x03\x04" + bytes(40), "not a license"),
        (b"keylatch\x01" + bytes(40), "not a license"),
        (b"KEYLATCH\x02" + bytes(40), "format version 2, expected 1"),
        (b"KEYLATCH\x00" + bytes(40), "format version 0, expected 1"),
        (b"KEYLATCH\x81" + bytes(40), "sealed vault or key file"),
        (b"KEYLATCH\x01", "truncated"),
    ],
)
def test_what_is_no_license_says_so(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        parse_license(data)
    assert caught.value.hint


def test_a_part_too_large_cannot_be_made() -> None:
    with pytest.raises(FormatError, match="license JWT"):
        License(b"x" * (MAX_JWT_BYTES + 1), b"x", b"x")
    with pytest.raises(FormatError, match="license blob"):
        License(b"x", b"x", b"")


def test_inspecting_needs_no_key_and_no_trust(world: World) -> None:
    license = world.issue(devices=[world.device.public, world.foreign_device.public])
    claims = read_claims_unverified(license)
    assert claims.customer == "ACME Vision"
    assert claims.issuer == world.issuer.public.thumbprint
    assert claims.devices == read_recipients_unverified(license)


def test_neither_repr_nor_the_file_shows_a_secret_value(world: World) -> None:
    values = {"gate": np.frombuffer(SECRET * 4, np.uint8)}
    license = world.issue(secret_values=values)
    shown = repr(license) + repr(read_claims_unverified(license))
    assert SECRET[4:17] not in license.serialize()
    assert SECRET[4:17].decode() not in shown
    assert repr(license).startswith("License(jwt_bytes=")


@pytest.mark.parametrize("kind", [str, Path])
def test_a_license_file_is_written_and_read_by_path_or_string(tmp_path: Path, kind: type) -> None:
    license = License(b"jwt", b"jwe", b"blob")
    place = kind(tmp_path / "acme.license")
    write_license(place, license)
    assert read_license(place) == license
    with pytest.raises(OutputError, match="exists already"):
        write_license(place, License(b"other", b"jwe", b"blob"))
    assert read_license(place) == license
