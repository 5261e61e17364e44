from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

import pytest
from license_world import NOW, World, unpadded

from keylatch.errors import FormatError, KeylatchError, LicenseRequiredError, SignatureError
from keylatch.keys import Claims, FileIssuerKey, Trust, read_claims_unverified, verify_license
from keylatch.keys._claims import UnverifiedClaims


def test_a_license_verifies_and_says_what_was_issued(world: World) -> None:
    license = world.issue(customer="Ångström AB", seq=7)
    claims = verify_license(license, Trust([world.foreign_issuer.public, world.issuer.public]), now=NOW)
    assert type(claims) is Claims
    assert (claims.customer, claims.seq, claims.devices) == ("Ångström AB", 7, (world.device.public.thumbprint,))
    assert claims.jwe_sha256 == hashlib.sha256(license.jwe).hexdigest()
    assert claims.blob_sha256 == hashlib.sha256(license.blob).hexdigest()


def test_reading_without_verifying_gives_another_type(world: World) -> None:
    assert type(read_claims_unverified(world.issue())) is UnverifiedClaims


def test_the_header_is_exactly_alg_typ_and_kid(world: World) -> None:
    header = world.issue().jwt.split(b".")[0]
    expected = {"alg": "Ed25519", "typ": "keylatch-license+jwt", "kid": world.issuer.public.thumbprint}
    assert header == unpadded(json.dumps(expected, separators=(",", ":"), sort_keys=True).encode())


def test_a_foreign_issuer_is_named_with_the_expected_one(world: World) -> None:
    license = world.issue(issuer=world.foreign_issuer)
    with pytest.raises(SignatureError) as caught:
        verify_license(license, Trust([world.issuer.public]), now=NOW)
    assert world.foreign_issuer.public.thumbprint in caught.value.message
    assert f"expected {world.issuer.public.thumbprint}" in caught.value.message
    assert caught.value.hint


def test_claiming_the_trusted_issuer_s_name_does_not_help_a_foreign_key(world: World) -> None:
    impostor = replace(world, issuer=FileIssuerKey.generate())
    forged = impostor.sign(world.header(), world.payload())
    with pytest.raises(SignatureError, match="does not verify"):
        world.verify(forged)


def test_the_issuer_inside_must_be_the_one_who_signed(world: World) -> None:
    payload = {**world.payload(), "iss": world.foreign_issuer.public.thumbprint}
    with pytest.raises(SignatureError, match="names issuer"):
        world.verify(world.sign(world.header(), payload))


def test_no_trusted_issuer_is_an_error_of_its_own(world: World) -> None:
    with pytest.raises(LicenseRequiredError, match="no trusted issuer"):
        verify_license(world.issue(), Trust(), now=NOW)


def test_a_stripped_signature_is_refused(world: World) -> None:
    head, payload, _ = world.issue().jwt.split(b".")
    for stripped in (head + b"." + payload + b".", head + b"." + payload, payload, b"."):
        with pytest.raises(SignatureError, match="not signed"):
            world.verify(stripped)


@pytest.mark.parametrize("algorithm", ["none", "None", "EdDSA", "HS256", "ES256", "ed25519", "", None, 0, ["Ed25519"]])
def test_any_other_algorithm_is_refused(world: World, algorithm: object) -> None:
    with pytest.raises(SignatureError, match="has alg"):
        world.verify(world.sign({**world.header(), "alg": algorithm}, world.payload()))


def test_an_hmac_keyed_with_the_public_key_is_refused(world: World) -> None:
    header = unpadded(json.dumps({**world.header(), "alg": "HS256"}).encode())
    signed = header + b"." + unpadded(json.dumps(world.payload()).encode())
    mac = hmac.digest(world.issuer.public.key.public_bytes_raw(), signed, "sha256")
    with pytest.raises(SignatureError, match="has alg 'HS256', expected Ed25519"):
        world.verify(signed + b"." + unpadded(mac))


@pytest.mark.parametrize("token_type", ["JWT", "keylatch-revocations+jwt", "", None, 1])
def test_any_other_type_is_refused(world: World, token_type: object) -> None:
    with pytest.raises(SignatureError, match="has typ"):
        world.verify(world.sign({**world.header(), "typ": token_type}, world.payload()))


@pytest.mark.parametrize(
    "extra", [{"jwk": {}}, {"jku": "x"}, {"x5c": []}, {"x5u": ""}, {"crit": ["exp"]}, {"b64": False}, {"cty": "a"}]
)
def test_any_extra_header_field_is_refused(world: World, extra: dict[str, Any]) -> None:
    with pytest.raises(SignatureError, match="header has fields"):
        world.verify(world.sign({**world.header(), **extra}, world.payload()))


@pytest.mark.parametrize("kid", [None, 5, "", "short", "x" * 44, ["a"], "\ud800" * 43])
def test_a_key_id_that_is_no_thumbprint_is_refused(world: World, kid: object) -> None:
    with pytest.raises(SignatureError, match="kid"):
        world.verify(world.sign({**world.header(), "kid": kid}, world.payload()))


def test_duplicate_keys_in_header_or_claims_are_refused(world: World) -> None:
    header, payload = (json.dumps(part).encode() for part in (world.header(), world.payload()))
    for forged in (
        world.sign(b'{"alg":"none",' + header[1:], payload),
        world.sign(header, b'{"exp":9999999999,' + payload[1:]),
        world.sign(header, payload[:-1] + b',"sub":"someone else"}'),
    ):
        with pytest.raises(FormatError, match="a key is repeated"):
            world.verify(forged)


def test_only_canonical_base64url_is_a_token(world: World) -> None:
    jwt = world.issue().jwt
    head, payload, signature = jwt.split(b".")
    # 64 bytes leave four unused bits in the last character: "A" and "B" there decode to the same signature.
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    trailing = signature[:-1] + alphabet[alphabet.index(signature[-1:]) + 1 :][:1]
    for forged in (
        b".".join((head, payload, trailing)),
        jwt + b"==",
        jwt + b"\n",
        b" " + jwt,
        b".".join((head + b"=", payload, signature)),
        b".".join((head, payload[:10] + b"\n" + payload[10:], signature)),
        jwt + b"\xff",
    ):
        with pytest.raises(SignatureError, match="base64url"):
            world.verify(forged)


@pytest.mark.parametrize("length", [0, 1, 63, 65, 128])
def test_a_signature_of_another_length_is_refused(world: World, length: int) -> None:
    head, payload, _ = world.issue().jwt.split(b".")
    with pytest.raises(SignatureError):
        world.verify(b".".join((head, payload, unpadded(bytes(length)))))


def test_a_signature_with_the_group_order_added_is_refused(world: World) -> None:
    # RFC 8032 section 5.1.7: without S < L every signature has a second form.
    jwt = world.issue().jwt
    signed, _, encoded = jwt.rpartition(b".")
    from keylatch.keys._encoding import decode_base64url

    signature = decode_base64url(encoded.decode(), "it")
    order = 2**252 + 27742317777372353535851937790883648493
    shifted = (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    with pytest.raises(SignatureError, match="does not verify"):
        world.verify(signed + b"." + unpadded(signature[:32] + shifted))


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("iat", True), ("nbf", 1.5), ("nbf", "1"), ("exp", None), ("exp", 10**15), ("nbf", -1),
        ("seq", 0), ("seq", True), ("seq", -1), ("seq", 2**53), ("seq", "1"),
        ("sub", ""), ("sub", 5), ("sub", "a\nb"), ("sub", "a\x1b[2Jb"), ("sub", "a\u202eb"), ("sub", "x" * 201),
        ("sub", "\ud800"), ("jti", "x"), ("jti", "{12345678-1234-4234-8234-123456789abc}"),
        ("jti", "12345678-1234-1234-8234-123456789abc"), ("jti", 4),
        ("model_id", "AB" * 32), ("model_id", "ab" * 32 + "\n"), ("model_id", "٣" * 64), ("model_id", None),
        ("jwe_sha256", "00"), ("blob_sha256", 0), ("iss", "x"), ("iss", []),
        ("cnf", {}), ("cnf", {"jkt": "x" * 43}), ("cnf", {"jkt": []}), ("cnf", {"jkt": [{}]}),
        ("cnf", {"jkt": ["a" * 44]}), ("iss", "a" * 44), ("jwe_sha256", "a" * 65),
         ("cnf", []),
        ("cnf", {"jkt": ["b" * 43, "a" * 43]}), ("cnf", {"jkt": ["a" * 43] * 2}), ("cnf", {"jkt": ["a" * 43], "x": 1}),
        ("keylatch", 2), ("keylatch", True), ("keylatch", None), ("keylatch", "1"),
    ],
)  # fmt: skip
def test_a_claim_of_another_type_or_range_is_refused(world: World, claim: str, value: object) -> None:
    with pytest.raises(FormatError) as caught:
        world.verify(world.sign(world.header(), {**world.payload(), claim: value}))
    assert caught.value.hint
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("audience", ["other", ["keylatch-runtime"], None])
def test_another_audience_is_refused(world: World, audience: object) -> None:
    with pytest.raises(SignatureError, match="expected keylatch-runtime"):
        world.verify(world.sign(world.header(), {**world.payload(), "aud": audience}))


def test_missing_and_unknown_claims_are_refused(world: World) -> None:
    payload = world.payload()
    for claim in payload:
        with pytest.raises(KeylatchError):
            world.verify(world.sign(world.header(), {k: v for k, v in payload.items() if k != claim}))
    with pytest.raises(FormatError, match="missing or unknown: admin"):
        world.verify(world.sign(world.header(), {**payload, "admin": 1}))


def test_the_signature_is_checked_before_the_claims_are_parsed(world: World) -> None:
    impostor = replace(world, issuer=FileIssuerKey.generate())
    with pytest.raises(SignatureError, match="does not verify"):
        world.verify(impostor.sign(world.header(), b"not json at all"))
