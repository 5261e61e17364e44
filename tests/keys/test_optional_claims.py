from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from license_world import NOW, World

from keylatch.errors import FormatError
from keylatch.keys import Claims, CosignerKey, Trust, read_claims_unverified, verify_license
from keylatch.keys._claims import MAX_LIST_AGE

DIGEST = "ab" * 32


def verified(world: World, **claims: object) -> Claims:
    """What a verifier makes of claims that the issuer really signed; `...` leaves one out."""
    payload = {**world.payload(), **claims}
    signed = {name: value for name, value in payload.items() if value is not ...}
    claims_: Claims = world.verify(world.sign(world.header(), signed))
    return claims_


def test_absent_optional_claims_are_none_and_have_no_place_in_the_file(world: World) -> None:
    license = world.issue()
    claims = verify_license(license, Trust([world.issuer.public]), now=NOW)
    assert (claims.max_list_age, claims.cosignature_sha256) == (None, None)
    assert {"max_list_age", "cosignature_sha256"}.isdisjoint(claims.to_payload())


@pytest.mark.parametrize("age", [0, 1, 86_400, MAX_LIST_AGE])
def test_a_list_age_is_signed_and_read_back(world: World, age: int) -> None:
    license = world.issue(max_list_age=age)
    assert verify_license(license, Trust([world.issuer.public]), now=NOW).max_list_age == age
    assert read_claims_unverified(license).to_payload()["max_list_age"] == age


def test_both_optional_claims_stand_together(world: World) -> None:
    cosigner = CosignerKey.generate()
    license = world.issue(max_list_age=60, cosigner=cosigner)
    claims = verify_license(license, Trust([world.issuer.public], [cosigner.public]), now=NOW)
    assert claims.max_list_age == 60
    assert claims.cosignature_sha256 is not None
    assert claims.to_payload() == read_claims_unverified(license).to_payload()


@pytest.mark.parametrize("name", ["max_list_age", "cosignature_sha256"])
def test_null_is_not_another_way_to_leave_a_claim_out(world: World, name: str) -> None:
    assert verified(world, **{name: ...})
    with pytest.raises(FormatError, match=f"license claim {name} is null") as caught:
        verified(world, **{name: None})
    assert caught.value.hint


@pytest.mark.parametrize("age", [-1, MAX_LIST_AGE + 1, 2**63, True, False, "60", [], {}, ""])
def test_a_list_age_of_another_type_or_range_is_refused(world: World, age: object) -> None:
    with pytest.raises(FormatError, match="max_list_age is") as caught:
        verified(world, max_list_age=age)
    assert caught.value.hint


@pytest.mark.parametrize("age", [-1, MAX_LIST_AGE + 1, True, 1.5, "60"])
def test_a_license_with_such_a_list_age_is_not_issued(world: World, age: Any) -> None:
    with pytest.raises(FormatError, match="max_list_age is"):
        world.issue(max_list_age=age)


@pytest.mark.parametrize("digest", [DIGEST.upper(), DIGEST[:-1], DIGEST + "0", DIGEST + "\n", "", 5, True, [DIGEST]])
def test_a_cosignature_digest_of_another_form_is_no_claim(world: World, digest: Any) -> None:
    with pytest.raises(FormatError, match="cosignature_sha256 is"):
        replace(read_claims_unverified(world.issue()), cosignature_sha256=digest)


@pytest.mark.parametrize("name", ["Max_list_age", "max_list_age ", "list_age", "cosignature"])
def test_a_claim_of_a_similar_name_is_unknown(world: World, name: str) -> None:
    with pytest.raises(FormatError, match="missing or unknown"):
        verified(world, **{name: 1})


def test_a_license_of_before_these_claims_is_still_read(world: World) -> None:
    names = {"iss", "sub", "iat", "nbf", "exp", "jti", "seq", "model_id", "jwe_sha256", "blob_sha256",
             "cnf", "aud", "keylatch"}  # fmt: skip
    assert set(world.payload()) == names
    assert verified(world).max_list_age is None
