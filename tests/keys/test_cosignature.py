from __future__ import annotations

import copy
import hashlib
import json
import pickle
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA87PrivateKey
from license_world import DAY, NOW, SECRET, World, unpadded

from keylatch.errors import CosignatureError, DeviceKeyError, FormatError, KeylatchError, OutputError, PassphraseError
from keylatch.keys import (
    CosignerKey,
    CosignerPublicKey,
    FileDeviceKey,
    License,
    Trust,
    decrypt_license,
    parse_license,
    read_claims_unverified,
    verify_license,
)
from keylatch.keys._cosignature import SIGNATURE_BYTES, verify_cosignature
from keylatch.keys._encoding import canonical_json, decode_base64url, encode_base64url
from keylatch.keys._license import MAX_JWT_BYTES

COSIGNER, OTHER = CosignerKey.generate(), CosignerKey.generate()


def give(passphrase: bytes = b"correct horse") -> Callable[[str], bytes]:
    return lambda description: passphrase


def demanding(world: World, *cosigners: CosignerKey) -> Trust:
    return Trust([world.issuer.public], [key.public for key in cosigners or (COSIGNER,)])


def split(license: License) -> tuple[bytes, bytes]:
    jwt, separator, cosignature = license.jwt.partition(b"~")
    assert separator
    return jwt, cosignature


def signed_payload(jwt: bytes) -> dict[str, Any]:
    return json.loads(decode_base64url(jwt.split(b".")[1].decode(), "payload"))


def with_cosignature(world: World, cosignature: bytes, claim: object = ...) -> License:
    """A license whose issuer really signs for `cosignature`, whatever that is."""
    license = world.issue()
    digest = hashlib.sha256(cosignature).hexdigest() if claim is ... else claim
    payload = {**read_claims_unverified(license).to_payload(), "cosignature_sha256": digest}
    return replace(license, jwt=world.sign(world.header(), payload) + b"~" + cosignature)


# With both signatures.


def test_a_cosigned_license_opens_where_the_second_signature_is_demanded(world: World) -> None:
    license = parse_license(world.issue(cosigner=COSIGNER).serialize())
    claims = verify_license(license, demanding(world), now=NOW)
    assert decrypt_license(license, claims, world.device)["gate.patch"].tobytes() == SECRET
    assert claims.cosignature_sha256 == hashlib.sha256(split(license)[1]).hexdigest()
    assert verify_license(license, demanding(world, OTHER, COSIGNER), now=NOW) == claims


def test_a_cosigned_license_opens_where_none_is_demanded(world: World) -> None:
    data = world.issue(cosigner=COSIGNER).serialize()
    assert world.open(data)["gate.patch"].tobytes() == SECRET
    assert read_claims_unverified(parse_license(data)).customer == "ACME Vision"


def test_the_cosignature_is_a_detached_jws_over_the_claims_without_its_digest(world: World) -> None:
    jwt, cosignature = split(world.issue(cosigner=COSIGNER))
    protected, empty, signature = cosignature.split(b".")
    header = json.loads(decode_base64url(protected.decode(), "header"))
    assert header == {"alg": "ML-DSA-65", "kid": COSIGNER.public.thumbprint, "typ": "keylatch-cosignature"}
    assert empty == b""
    payload = signed_payload(jwt)
    del payload["cosignature_sha256"]
    signing_input = protected + b"." + unpadded(json.dumps(payload, sort_keys=True, separators=(",", ":")).encode())
    # RFC 9964: pure ML-DSA with the empty context.
    COSIGNER.public.key.verify(decode_base64url(signature.decode(), "signature"), signing_input, b"")


def test_the_most_devices_with_a_cosignature_fit_the_limit(world: World) -> None:
    jwt, cosignature = split(world.issue(cosigner=COSIGNER))
    payload = signed_payload(jwt)
    payload["cnf"] = {"jkt": ["A" * 43] * 1024}
    payload["sub"] = "\U0001f512" * 200
    assert len(world.sign(world.header(), canonical_json(payload))) + 1 + len(cosignature) <= MAX_JWT_BYTES


# Demanded, and not there or not right.


def test_a_license_without_one_is_refused_where_it_is_demanded(world: World) -> None:
    with pytest.raises(CosignatureError, match="has no ML-DSA-65 signature, and this device demands one") as caught:
        verify_license(world.issue(), demanding(world), now=NOW)
    assert caught.value.hint


def test_a_cosignature_by_another_key_names_both(world: World) -> None:
    with pytest.raises(CosignatureError) as caught:
        verify_license(world.issue(cosigner=OTHER), demanding(world), now=NOW)
    assert f"is cosigned by {OTHER.public.thumbprint}" in caught.value.message
    assert f"expected {COSIGNER.public.thumbprint}" in caught.value.message


def test_a_foreign_cosignature_under_the_trusted_name_does_not_verify(world: World) -> None:
    # Both signatures real, the issuer's for this very cosignature: what is left when Ed25519 has fallen.
    license = world.issue()
    payload = canonical_json(read_claims_unverified(license).to_payload())
    impostor = CosignerKey(OTHER._key)
    impostor._public = COSIGNER.public
    forged = with_cosignature(world, impostor.cosign(payload))
    with pytest.raises(CosignatureError, match=f"does not verify with key {COSIGNER.public.thumbprint}"):
        verify_license(forged, demanding(world), now=NOW)


def test_whoever_forges_the_first_signature_cannot_change_the_claims(world: World) -> None:
    jwt, cosignature = split(world.issue(cosigner=COSIGNER))
    for change in ({"exp": NOW + 100 * DAY}, {"sub": "someone else"}, {"max_list_age": 10}, {"seq": 9}):
        forged = world.sign(world.header(), {**signed_payload(jwt), **change}) + b"~" + cosignature
        with pytest.raises(CosignatureError, match="does not verify"):
            verify_license(replace(world.issue(), jwt=forged), demanding(world), now=NOW)


def test_a_cosignature_of_other_claims_does_not_verify_even_if_the_issuer_signed_for_it(world: World) -> None:
    foreign = split(world.issue(cosigner=COSIGNER))[1]
    with pytest.raises(CosignatureError, match="does not verify"):
        verify_license(with_cosignature(world, foreign), demanding(world), now=NOW)


# Tampered with, whether demanded or not.


@pytest.mark.parametrize("demanded", [True, False])
def test_it_can_be_neither_taken_off_nor_exchanged_nor_added(world: World, demanded: bool) -> None:
    trust = demanding(world) if demanded else Trust([world.issuer.public])
    first, second, plain = world.issue(cosigner=COSIGNER), world.issue(cosigner=COSIGNER), world.issue()
    jwt, cosignature = split(first)
    for forged in (
        jwt,
        jwt + b"~",
        jwt + b"~" + split(second)[1],
        jwt + b"~" + COSIGNER.cosign(canonical_json(signed_payload(jwt))),
        jwt + b"~" + cosignature + b"~",
        jwt + b"~" + cosignature + b"~" + cosignature,
        jwt + b"~~" + cosignature,
        plain.jwt + b"~" + cosignature,
        plain.jwt + b"~",
    ):
        with pytest.raises(CosignatureError, match="not the one that the issuer signed for"):
            verify_license(replace(first, jwt=forged), trust, now=NOW)
    with pytest.raises(KeylatchError):
        verify_license(replace(first, jwt=cosignature + b"~" + jwt), trust, now=NOW)


@pytest.mark.parametrize("claim", [None, "None", "", 5, True, [], "A" * 64, "0" * 63, "\ud800"])
@pytest.mark.parametrize("cosigned", [True, False])
def test_a_digest_of_another_type_is_refused(world: World, claim: object, cosigned: bool) -> None:
    license = with_cosignature(world, split(world.issue(cosigner=COSIGNER))[1], claim)
    if not cosigned:
        license = replace(license, jwt=split(license)[0])
    with pytest.raises((CosignatureError, FormatError)) as caught:
        verify_license(license, Trust([world.issuer.public]), now=NOW)
    assert caught.value.hint


def header_of(**changes: object) -> bytes:
    header = {"alg": "ML-DSA-65", "kid": COSIGNER.public.thumbprint, "typ": "keylatch-cosignature", **changes}
    return unpadded(canonical_json({name: value for name, value in header.items() if value is not ...}))


SIGNATURE = unpadded(bytes(SIGNATURE_BYTES))


@pytest.mark.parametrize(
    "cosignature",
    [
        b"",
        b"..",
        b"~",
        b"\xff..\xff",
        header_of() + b"." + SIGNATURE,
        header_of() + b".AA." + SIGNATURE,
        header_of() + b"..",
        header_of() + b".." + unpadded(bytes(SIGNATURE_BYTES - 1)),
        header_of() + b".." + unpadded(bytes(SIGNATURE_BYTES + 1)),
        header_of() + b".." + SIGNATURE + b"==",
        header_of() + b".." + SIGNATURE + b"\n",
        header_of(alg="none") + b".." + SIGNATURE,
        header_of(alg="ML-DSA-44") + b".." + SIGNATURE,
        header_of(alg="Ed25519") + b".." + SIGNATURE,
        header_of(alg=...) + b".." + SIGNATURE,
        header_of(typ="keylatch-license+jwt") + b".." + SIGNATURE,
        header_of(typ=...) + b".." + SIGNATURE,
        header_of(kid=...) + b".." + SIGNATURE,
        header_of(kid=5) + b".." + SIGNATURE,
        header_of(kid="") + b".." + SIGNATURE,
        header_of(kid="\x1b[2J") + b".." + SIGNATURE,
        header_of(kid=COSIGNER.public.thumbprint + "A") + b".." + SIGNATURE,
        header_of(crit=["exp"]) + b".." + SIGNATURE,
        header_of(jwk={}) + b".." + SIGNATURE,
        header_of(b64=False) + b".." + SIGNATURE,
        unpadded(b"[]") + b".." + SIGNATURE,
        unpadded(b'{"alg":"none","alg":"ML-DSA-65"}') + b".." + SIGNATURE,
    ],
)
def test_a_cosignature_in_any_other_form_is_refused(world: World, cosignature: bytes) -> None:
    with pytest.raises(CosignatureError) as caught:
        verify_license(with_cosignature(world, cosignature), demanding(world), now=NOW)
    assert caught.value.hint
    assert "does not verify" not in caught.value.message
    assert caught.value.message.isprintable()


def test_a_name_that_only_begins_like_the_cosigner_s_is_not_his() -> None:
    # A real signature, under a header that names him with something behind.
    protected = header_of(kid=COSIGNER.public.thumbprint + "A")
    signature = COSIGNER._key.sign(protected + b"." + unpadded(b"claims"))
    with pytest.raises(CosignatureError, match="not in the one accepted form"):
        verify_cosignature(protected + b".." + unpadded(signature), b"claims", [COSIGNER.public])


def test_every_flipped_byte_of_a_cosigned_license_is_refused(world: World) -> None:
    data = world.issue(cosigner=COSIGNER).serialize()
    for trust in (demanding(world), Trust([world.issuer.public])):
        accepted = []
        for position in range(len(data)):
            flipped = bytearray(data)
            flipped[position] ^= 1 << position % 8
            try:
                license = parse_license(bytes(flipped))
                decrypt_license(license, verify_license(license, trust, now=NOW), world.device)
            except KeylatchError:
                continue
            accepted.append(position)
        assert accepted == []


@pytest.mark.parametrize("part", ["header", "signature"])
def test_every_flipped_byte_of_a_cosignature_is_refused_even_if_the_issuer_signed_for_it(
    world: World, part: str
) -> None:
    payload = b'{"claims":1}'
    protected, _, signature = COSIGNER.cosign(payload).partition(b"..")
    data = decode_base64url((protected if part == "header" else signature).decode(), part)
    verify_cosignature(protected + b".." + signature, payload, [COSIGNER.public])
    for position in range(0, len(data), 1 if part == "header" else 13):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        parts = (unpadded(flipped), signature) if part == "header" else (protected, unpadded(flipped))
        with pytest.raises(CosignatureError):
            verify_cosignature(b"..".join(parts), payload, [COSIGNER.public])


# Keys.


def test_the_jwk_and_its_thumbprint_are_rfc_9964_s() -> None:
    public = CosignerKey(MLDSA65PrivateKey.from_seed_bytes(bytes(range(32)))).public
    assert public.to_jwk() == {"alg": "ML-DSA-65", "kty": "AKP", "pub": encode_base64url(public.key.public_bytes_raw())}
    digest = hashlib.sha256(json.dumps(public.to_jwk(), sort_keys=True, separators=(",", ":")).encode()).digest()
    assert public.thumbprint == encode_base64url(digest)
    assert CosignerPublicKey.from_jwk(dict(public.to_jwk())) == public


@pytest.mark.parametrize(
    "change",
    [
        {"priv": "AA"}, {"kid": "x"}, {"kty": "OKP"}, {"alg": "ML-DSA-87"}, {"alg": None}, {"use": "sig"},
        {"pub": ""}, {"pub": "AA"}, {"pub": 5}, {"pub": None}, {"pub": "!"},
        {"alg": "ML-DSA-65", "pub": encode_base64url(MLDSA87PrivateKey.generate().public_key().public_bytes_raw())},
    ],
)  # fmt: skip
def test_a_jwk_that_is_no_ml_dsa_65_key_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError) as caught:
        CosignerPublicKey.from_jwk({**COSIGNER.public.to_jwk(), **change})
    assert caught.value.hint


def test_a_cosigner_key_file_round_trips(tmp_path: Path) -> None:
    for name, passphrase in (("plain.key", None), ("sealed.key", give())):
        COSIGNER.save(tmp_path / name, passphrase)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        loaded = CosignerKey.load(tmp_path / name, passphrase)
        assert loaded.public == COSIGNER.public
        verify_cosignature(loaded.cosign(b"x"), b"x", [COSIGNER.public])
        with pytest.raises(OutputError, match="exists already"):
            COSIGNER.save(tmp_path / name)
    assert COSIGNER._key.private_bytes_raw() not in (tmp_path / "sealed.key").read_bytes()
    with pytest.raises(PassphraseError, match="wrong passphrase"):
        CosignerKey.load(tmp_path / "sealed.key", give(b"wrong"))


def test_keys_of_another_kind_and_open_files_are_refused(tmp_path: Path) -> None:
    FileDeviceKey.generate(tmp_path / "device.key")
    with pytest.raises(DeviceKeyError, match="expected ML-DSA-65"):
        CosignerKey.load(tmp_path / "device.key")
    COSIGNER.save(tmp_path / "cosigner.key")
    with pytest.raises(DeviceKeyError, match="expected P-256"):
        FileDeviceKey.load(tmp_path / "cosigner.key")
    (tmp_path / "cosigner.key").chmod(0o640)
    with pytest.raises(DeviceKeyError, match="mode 0640"):
        CosignerKey.load(tmp_path / "cosigner.key")
    FileDeviceKey.generate(tmp_path / "sealed.key", give())
    with pytest.raises(DeviceKeyError, match="is a sealed device key, expected a sealed cosigner key"):
        CosignerKey.load(tmp_path / "sealed.key", give())


def test_a_cosigner_key_shows_its_thumbprint_only_and_cannot_be_copied() -> None:
    assert repr(COSIGNER) == f"CosignerKey(thumbprint='{COSIGNER.public.thumbprint}')"
    assert repr(COSIGNER.public) == f"CosignerPublicKey(thumbprint='{COSIGNER.public.thumbprint}')"
    takes: list[Callable[[object], object]] = [copy.copy, copy.deepcopy, pickle.dumps]
    for take in takes:
        with pytest.raises(TypeError):
            take(COSIGNER)
