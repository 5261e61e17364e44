"""Commitments to stains: dated, signed, to one secret only."""

from __future__ import annotations

from pathlib import Path

import pytest
from license_world import NOW, World

from keylatch.errors import FormatError, LicenseRequiredError, OutputError, SignatureError
from keylatch.keys import (
    Trust,
    read_stain_commitment,
    sign_stain_commitment,
    verify_stain_commitment,
    write_stain_commitment,
)

DIGEST = "5a" * 32


def signed(world: World) -> bytes:
    return sign_stain_commitment(issuer=world.issuer, digest=DIGEST, issued_at=NOW)


def test_a_commitment_says_who_when_and_what(world: World, tmp_path: Path) -> None:
    write_stain_commitment(tmp_path / "stain.commitment", signed(world))
    data = read_stain_commitment(tmp_path / "stain.commitment")
    made = verify_stain_commitment(data, Trust([world.issuer.public]), DIGEST)
    assert (made.issuer, made.issued_at, made.digest) == (world.issuer.public.thumbprint, NOW, DIGEST)
    with pytest.raises(OutputError, match="exists"):
        write_stain_commitment(tmp_path / "stain.commitment", data)


def test_it_is_to_one_secret_only(world: World) -> None:
    with pytest.raises(FormatError, match="stain commitment is to 5a5a5a5a…, expected 5b5a5a5a…") as caught:
        verify_stain_commitment(signed(world), Trust([world.issuer.public]), "5b" + DIGEST[2:])
    assert caught.value.hint


def test_any_flipped_byte_is_refused(world: World) -> None:
    data = signed(world)
    for place in range(0, len(data), 7):
        flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises((SignatureError, FormatError)):
            verify_stain_commitment(flipped, Trust([world.issuer.public]), DIGEST)


def test_only_a_trusted_issuer_in_use_commits(world: World) -> None:
    with pytest.raises(SignatureError, match="signed by issuer"):
        verify_stain_commitment(signed(world), Trust([world.foreign_issuer.public]), DIGEST)
    with pytest.raises(LicenseRequiredError):
        verify_stain_commitment(signed(world), Trust(), DIGEST)
    retired = Trust([world.issuer.public], (), {world.issuer.public.thumbprint: NOW})
    with pytest.raises(SignatureError, match="retired"):
        verify_stain_commitment(signed(world), retired, DIGEST)


@pytest.mark.parametrize(("digest", "moment"), [("5a" * 31, NOW), ("5A" * 32, NOW), (DIGEST, -1)])
def test_a_digest_or_date_of_another_form_is_not_signed(world: World, digest: str, moment: int) -> None:
    with pytest.raises(FormatError):
        sign_stain_commitment(issuer=world.issuer, digest=digest, issued_at=moment)
