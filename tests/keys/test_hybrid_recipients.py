from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from license_world import NOW, SECRET, World, unpadded

from keylatch.errors import FormatError, IntegrityError, KeylatchError, WrongDeviceError
from keylatch.keys import (
    MAX_DEVICES,
    HybridDeviceKey,
    HybridPublicKey,
    License,
    Trust,
    read_claims_unverified,
    read_recipients_unverified,
    verify_license,
)
from keylatch.keys._encoding import decode_base64url, encode_base64url
from keylatch.keys._hybrid_recipients import HYBRID_ALGORITHM, HybridKeyEncryption, hpke_info
from keylatch.keys._license import MAX_JWE_BYTES, MAX_JWT_BYTES
from keylatch.keys._recipients import unwrap_content_key

Edit = Callable[[dict[str, Any]], Any]


def new_hybrid() -> HybridDeviceKey:
    return HybridDeviceKey(MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())


FIRST, SECOND = new_hybrid(), new_hybrid()


def value(opened: dict[str, Any]) -> bytes:
    return bytes(opened["gate.patch"].tobytes())


def of(device: HybridPublicKey, edit: Edit) -> Edit:
    """An edit of one device's recipient."""
    return lambda jwe: edit(next(item for item in jwe["recipients"] if item["header"]["kid"] == device.thumbprint))


# What it is: HPKE, by hand.


def labeled_extract(suite: bytes, salt: bytes, label: bytes, key: bytes) -> bytes:
    """RFC 9180 section 4."""
    extract = HMAC(salt or bytes(32), SHA256())
    extract.update(b"HPKE-v1" + suite + label + key)
    return extract.finalize()


def labeled_expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """RFC 9180 section 4."""
    labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return HKDFExpand(SHA256(), length, labeled).derive(key)


def x_wing_decapsulate(mlkem: MLKEM768PrivateKey, x25519: X25519PrivateKey, encapsulated: bytes) -> bytes:
    """draft-connolly-cfrg-xwing-kem section 5.4 and the combiner of section 5.3."""
    mlkem_ciphertext, ephemeral = encapsulated[:1088], encapsulated[1088:]
    mlkem_secret = mlkem.decapsulate(mlkem_ciphertext)
    x25519_secret = x25519.exchange(X25519PublicKey.from_public_bytes(ephemeral))
    public = x25519.public_key().public_bytes_raw()
    return hashlib.sha3_256(mlkem_secret + x25519_secret + ephemeral + public + b"\\.//^\\").digest()


def hpke_open(secret: bytes, info: bytes, ciphertext: bytes) -> bytes:
    """RFC 9180 sections 5.1 and 5.2, base mode, first message: MLKEM768-X25519, HKDF-SHA256, AES-256-GCM."""
    suite = b"HPKE" + bytes.fromhex("647a 0001 0002")
    context = (
        b"\x00" + labeled_extract(suite, b"", b"psk_id_hash", b"") + labeled_extract(suite, b"", b"info_hash", info)
    )
    schedule = labeled_extract(suite, secret, b"secret", b"")
    key = labeled_expand(suite, schedule, b"key", context, 32)
    nonce = labeled_expand(suite, schedule, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, ciphertext, b"")


def test_a_license_opens_by_hand_from_the_specifications_alone(world: World) -> None:
    license = world.issue(devices=[FIRST.public])
    jwe = json.loads(license.jwe)
    [recipient] = jwe["recipients"]
    header = recipient["header"]
    secret = x_wing_decapsulate(FIRST._mlkem, FIRST._x25519, decode_base64url(header["ek"], "ek"))
    info = b"JOSE-HPKE rcpt\xffA256GCM\xff" + f"{header['apu']}.{header['apv']}".encode()
    jwe_key = hpke_open(secret, info, decode_base64url(recipient["encrypted_key"], "key"))
    iv, ciphertext, tag = (decode_base64url(jwe[name], name) for name in ("iv", "ciphertext", "tag"))
    content_key = AESGCM(jwe_key).decrypt(iv, ciphertext + tag, jwe["protected"].encode())
    associated = b"keylatch/1 secrets" + read_claims_unverified(license).license_id.encode()
    assert SECRET in AESGCM(content_key).decrypt(license.blob[:12], license.blob[12:], associated)


def test_the_recipient_is_as_documented(world: World) -> None:
    license = world.issue(devices=[FIRST.public])
    jwe, claims = json.loads(license.jwe), read_claims_unverified(license)
    assert jwe["protected"] == unpadded(b'{"enc":"A256GCM","typ":"keylatch-secrets+jwe"}').decode()
    [recipient] = jwe["recipients"]
    ek = recipient["header"].pop("ek")
    assert recipient["header"] == {
        "alg": "HPKE-MLKEM768-X25519-KE",
        "kid": FIRST.public.thumbprint,
        "apu": unpadded(world.issuer.public.thumbprint.encode()).decode(),
        "apv": unpadded(claims.license_id.encode()).decode(),
    }
    assert len(decode_base64url(ek, "ek")) == 1088 + 32
    assert len(decode_base64url(recipient["encrypted_key"], "key")) == 32 + 16
    assert set(recipient) == {"header", "encrypted_key"}


def test_the_info_is_the_recipient_structure_of_the_draft() -> None:
    assert hpke_info("A256GCM", "YQ", "Yg") == b"JOSE-HPKE rcpt\xffA256GCM\xffYQ.Yg"


# Who opens it.


def test_each_of_mixed_recipients_opens_the_license(world: World) -> None:
    devices = [FIRST.public, world.device.public, SECOND.public, world.foreign_device.public]
    data = world.issue(devices=devices).serialize()
    for key in (FIRST, SECOND, world.device, world.foreign_device):
        assert value(world.open(data, key)) == SECRET


def test_mixed_recipients_are_sorted_and_named_in_the_claims(world: World) -> None:
    license = world.issue(devices=[FIRST.public, world.device.public, SECOND.public, FIRST.public])
    expected = tuple(sorted(key.public.thumbprint for key in (FIRST, world.device, SECOND)))
    assert verify_license(license, Trust([world.issuer.public]), now=NOW).devices == expected
    assert read_recipients_unverified(license) == expected


@pytest.mark.parametrize("others", ["hybrid", "P-256"])
def test_a_foreign_hybrid_device_is_refused(world: World, others: str) -> None:
    data = world.issue(devices=[FIRST.public if others == "hybrid" else world.device.public]).serialize()
    with pytest.raises(WrongDeviceError, match=f"this device is {SECOND.public.thumbprint}"):
        world.open(data, SECOND)


def test_a_key_with_one_half_of_the_pair_right_opens_nothing(world: World) -> None:
    # Whoever breaks one of the two problems must still lack the other.
    license = world.issue(devices=[FIRST.public])
    claims = verify_license(license, Trust([world.issuer.public]), now=NOW)
    for half in (HybridDeviceKey(FIRST._mlkem, SECOND._x25519), HybridDeviceKey(SECOND._mlkem, FIRST._x25519)):
        half._public = FIRST.public
        with pytest.raises(IntegrityError):
            unwrap_content_key(license.jwe, claims, half)


def test_the_most_hybrid_devices_fit_the_limits(world: World) -> None:
    devices = [FIRST.public, *(new_hybrid().public for _ in range(MAX_DEVICES - 1))]
    license = world.issue(devices=devices)
    assert len(license.jwe) <= MAX_JWE_BYTES
    assert len(license.jwt) <= MAX_JWT_BYTES
    assert value(world.open(license.serialize(), FIRST)) == SECRET
    with pytest.raises(FormatError, match=f"1 to {MAX_DEVICES} devices"):
        world.issue(devices=[*devices, SECOND.public])


def test_recipients_that_are_not_ours_are_not_parsed(world: World) -> None:
    ruin = of(world.device.public, lambda item: item.update(encrypted_key="!", header={"kid": item["header"]["kid"]}))
    license = world.edit_jwe(world.issue(devices=[FIRST.public, world.device.public]), ruin)
    assert value(world.open(license.serialize(), FIRST)) == SECRET


# What is refused, even if the issuer had signed it.


def swap(jwe: dict[str, Any], *, ek: bool, encrypted_key: bool) -> None:
    first, second = jwe["recipients"]
    if ek:
        first["header"]["ek"], second["header"]["ek"] = second["header"]["ek"], first["header"]["ek"]
    if encrypted_key:
        first["encrypted_key"], second["encrypted_key"] = second["encrypted_key"], first["encrypted_key"]


@pytest.mark.parametrize(("ek", "encrypted_key"), [(True, False), (False, True), (True, True)])
def test_what_was_sealed_to_another_device_does_not_open(world: World, ek: bool, encrypted_key: bool) -> None:
    license = world.issue(devices=[FIRST.public, SECOND.public])
    swapped = world.edit_jwe(license, lambda jwe: swap(jwe, ek=ek, encrypted_key=encrypted_key))
    for key in (FIRST, SECOND):
        with pytest.raises(IntegrityError):
            world.open(swapped.serialize(), key)


def test_what_was_sealed_for_another_license_does_not_open(world: World) -> None:
    license, other = world.issue(devices=[FIRST.public]), world.issue(devices=[FIRST.public])
    foreign = json.loads(other.jwe)["recipients"][0]
    for names in (("ek",), ("encrypted_key",), ("ek", "encrypted_key")):

        def put_in(item: dict[str, Any], names: tuple[str, ...] = names) -> None:
            if "ek" in names:
                item["header"]["ek"] = foreign["header"]["ek"]
            if "encrypted_key" in names:
                item["encrypted_key"] = foreign["encrypted_key"]

        with pytest.raises(IntegrityError):
            world.open(world.edit_jwe(license, of(FIRST.public, put_in)).serialize(), FIRST)


@pytest.mark.parametrize("rewritten", ["apv", "apu"])
def test_a_whole_jwe_of_another_license_or_issuer_does_not_unwrap(world: World, rewritten: str) -> None:
    # Its header rewritten to ours: only HPKE's info stands in the way.
    ours = world.issue(devices=[FIRST.public])
    changes = {} if rewritten == "apv" else {"issuer": world.foreign_issuer}
    jwe = json.loads(world.issue(devices=[FIRST.public], **changes).jwe)
    jwe["recipients"][0]["header"] |= {
        name: json.loads(ours.jwe)["recipients"][0]["header"][name] for name in ("apu", "apv")
    }
    claims = verify_license(ours, Trust([world.issuer.public]), now=NOW)
    with pytest.raises(IntegrityError):
        unwrap_content_key(json.dumps(jwe).encode(), claims, FIRST)


@pytest.mark.parametrize("shift", [1, 16, 47, -1, -32])
def test_the_boundary_between_encapsulated_key_and_sealed_key_is_fixed(world: World, shift: int) -> None:
    # HPKE's decryption takes the two joined: a boundary put elsewhere would be a second form of the same recipient.
    def move(item: dict[str, Any]) -> None:
        parts = (decode_base64url(text, "it") for text in (item["header"]["ek"], item["encrypted_key"]))
        joined = b"".join(parts)
        item["header"]["ek"] = encode_base64url(joined[: 1120 + shift])
        item["encrypted_key"] = encode_base64url(joined[1120 + shift :])

    license = world.edit_jwe(world.issue(devices=[FIRST.public]), of(FIRST.public, move))
    with pytest.raises(IntegrityError):
        world.open(license.serialize(), FIRST)


@pytest.mark.parametrize(
    "edit",
    [
        lambda item: item["header"].update(ek=""),
        lambda item: item["header"].update(ek="!"),
        lambda item: item["header"].update(ek="A" * 100_000),
        lambda item: item["header"].update(ek=encode_base64url(bytes(1120))),
        lambda item: item["header"].update(ek=item["header"]["ek"][:-43] + encode_base64url(bytes(32))[-43:]),
        lambda item: item.update(encrypted_key=""),
        lambda item: item.update(encrypted_key="="),
        lambda item: item.update(encrypted_key=encode_base64url(bytes(48))),
        lambda item: item.update(encrypted_key=item["encrypted_key"][:-4]),
        lambda item: item.update(encrypted_key="A" * 100_000),
    ],
)
def test_whatever_fails_from_the_decapsulation_on_is_one_bare_error(world: World, edit: Edit) -> None:
    license = world.edit_jwe(world.issue(devices=[FIRST.public]), of(FIRST.public, edit))
    with pytest.raises(IntegrityError) as caught:
        world.open(license.serialize(), FIRST)
    assert str(caught.value) == str(IntegrityError())
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "edit",
    [
        lambda jwe: jwe.update(iv=""),
        lambda jwe: jwe.update(iv=unpadded(bytes(12)).decode()),
        lambda jwe: jwe.update(iv="A" * 10_000),
        lambda jwe: jwe.update(tag=""),
        lambda jwe: jwe.update(tag=unpadded(bytes(16)).decode()),
        lambda jwe: jwe.update(ciphertext=""),
        lambda jwe: jwe.update(ciphertext="!"),
        lambda jwe: jwe.update(ciphertext=jwe["ciphertext"] + jwe["tag"], tag=""),
    ],
)
def test_an_altered_content_of_the_jwe_is_the_same_error(world: World, edit: Edit) -> None:
    with pytest.raises(IntegrityError):
        world.open(world.edit_jwe(world.issue(devices=[FIRST.public]), edit).serialize(), FIRST)


@pytest.mark.parametrize(
    "edit",
    [
        lambda item: item.update(extra=1),
        lambda item: item.update(encrypted_key=5),
        lambda item: item["header"].pop("ek"),
        lambda item: item["header"].update(ek=5),
        lambda item: item["header"].update(ek=None),
        lambda item: item["header"].update(alg="HPKE-10-KE"),
        lambda item: item["header"].update(alg="HPKE-0-KE"),
        lambda item: item["header"].update(alg="dir"),
        lambda item: item["header"].update(alg=None),
        lambda item: item["header"].update(apu="AA"),
        lambda item: item["header"].update(apv="AA"),
        lambda item: item["header"].pop("apu"),
        lambda item: item["header"].pop("apv"),
        lambda item: item["header"].update(enc="A256GCM"),
        lambda item: item["header"].update(psk_id="AA"),
        lambda item: item["header"].update(crit=["ek"]),
        lambda item: item["header"].update(epk={}),
    ],
)
def test_a_recipient_in_any_other_form_is_refused_before_decapsulation(
    world: World, edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    license = world.edit_jwe(world.issue(devices=[FIRST.public]), of(FIRST.public, edit))
    monkeypatch.setattr(HybridDeviceKey, "open", lambda *_: pytest.fail("the private key was used"))
    with pytest.raises(FormatError, match="not in the accepted form") as caught:
        world.open(license.serialize(), FIRST)
    assert caught.value.hint


def test_a_p256_recipient_is_no_hybrid_one_and_the_reverse(world: World) -> None:
    license = world.issue(devices=[FIRST.public, world.device.public])
    kinds = {item["header"]["kid"]: item for item in json.loads(license.jwe)["recipients"]}
    for key, other in ((FIRST, world.device), (world.device, FIRST)):
        stolen = kinds[other.public.thumbprint]

        def put_in(jwe: dict[str, Any], key: Any = key, stolen: dict[str, Any] = stolen) -> None:
            jwe["recipients"] = [{**stolen, "header": {**stolen["header"], "kid": key.public.thumbprint}}]

        with pytest.raises(FormatError, match="not in the accepted form"):
            world.open(world.edit_jwe(license, put_in).serialize(), key)


@pytest.mark.parametrize("algorithm", [HYBRID_ALGORITHM, "ECDH-ES+A256KW"])
def test_the_algorithm_follows_the_key_and_never_the_file(world: World, algorithm: str) -> None:
    keys = {HYBRID_ALGORITHM: world.device, "ECDH-ES+A256KW": FIRST}
    key: Any = keys[algorithm]
    edit = of(key.public, lambda item: item["header"].update(alg=algorithm))
    license = world.edit_jwe(world.issue(devices=[key.public]), edit)
    with pytest.raises(FormatError, match="not in the accepted form"):
        world.open(license.serialize(), key)


def test_a_device_named_twice_is_refused(world: World) -> None:
    license = world.issue(devices=[FIRST.public])
    doubled = world.edit_jwe(license, lambda jwe: jwe["recipients"].append(jwe["recipients"][0]))
    with pytest.raises(FormatError, match="2 times, expected once"):
        world.open(doubled.serialize(), FIRST)


def test_every_flipped_byte_of_a_hybrid_license_is_refused(world: World) -> None:
    data = world.issue(devices=[FIRST.public]).serialize()
    assert value(world.open(data, FIRST)) == SECRET
    accepted = []
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        try:
            world.open(bytes(flipped), FIRST)
        except KeylatchError:
            continue
        accepted.append(position)
    assert accepted == []


@pytest.mark.parametrize("name", ["ek", "encrypted_key"])
def test_every_flipped_byte_of_what_was_sealed_is_refused_even_if_signed(world: World, name: str) -> None:
    # Beneath the digest and the signature HPKE itself must hold.
    license = world.issue(devices=[FIRST.public])
    claims = verify_license(license, Trust([world.issuer.public]), now=NOW)
    jwe = json.loads(license.jwe)
    [recipient] = jwe["recipients"]
    holder = recipient["header"] if name == "ek" else recipient
    data = decode_base64url(holder[name], name)
    assert unwrap_content_key(license.jwe, claims, FIRST)
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 7
        holder[name] = encode_base64url(bytes(flipped))
        with pytest.raises(IntegrityError):
            unwrap_content_key(json.dumps(jwe).encode(), claims, FIRST)


def test_the_top_bit_of_the_x25519_share_is_no_slack(world: World) -> None:
    # RFC 7748 section 5 masks it in the exchange; X-Wing's combiner hashes the bytes as they came.
    def flip(item: dict[str, Any]) -> None:
        ek = bytearray(decode_base64url(item["header"]["ek"], "ek"))
        ek[-1] ^= 0x80
        item["header"]["ek"] = encode_base64url(bytes(ek))

    license = world.edit_jwe(world.issue(devices=[FIRST.public]), of(FIRST.public, flip))
    with pytest.raises(IntegrityError):
        world.open(license.serialize(), FIRST)


def test_sealing_takes_no_other_key_and_opens_nothing() -> None:
    class Recipient:
        recipient_key = object()

    with pytest.raises(TypeError, match="takes a HybridRecipientKey, got object"):
        HybridKeyEncryption().encrypt_cek(bytes(32), Recipient())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="opened by HybridDeviceKey"):
        HybridKeyEncryption().decrypt_cek(Recipient())  # type: ignore[arg-type]


def test_two_licenses_for_one_device_share_nothing(world: World) -> None:
    headers = [json.loads(world.issue(devices=[FIRST.public]).jwe)["recipients"][0] for _ in range(2)]
    assert headers[0]["header"]["ek"] != headers[1]["header"]["ek"]
    assert headers[0]["encrypted_key"] != headers[1]["encrypted_key"]


def test_parts_of_a_hybrid_license_do_not_mix_even_if_signed(world: World) -> None:
    first, second = world.issue(devices=[FIRST.public]), world.issue(devices=[FIRST.public])
    for mixed in (replace(first, jwe=second.jwe), replace(first, blob=second.blob), License(*parts(second, first))):
        with pytest.raises(KeylatchError):
            world.open(mixed.serialize(), FIRST)
    with pytest.raises((IntegrityError, FormatError)):
        world.open(world.resign(first, jwe=second.jwe).serialize(), FIRST)
    with pytest.raises(IntegrityError):
        world.open(world.resign(first, blob=second.blob).serialize(), FIRST)


def parts(signed: License, encrypted: License) -> tuple[bytes, bytes, bytes]:
    return signed.jwt, encrypted.jwe, encrypted.blob
