from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc.jwk import ECKey, OKPKey
from license_world import World

from keylatch.errors import FormatError, OutputError
from keylatch.keys import DevicePublicKey, FileIssuerKey, IssuerPublicKey
from keylatch.keys._encoding import decode_base64url, encode_base64url

RFC_8037_SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")


def test_issuer_thumbprint_is_that_of_rfc_8037_appendix_a_3() -> None:
    issuer = FileIssuerKey(Ed25519PrivateKey.from_private_bytes(RFC_8037_SEED))
    assert issuer.public.thumbprint == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_thumbprints_are_those_of_an_independent_implementation() -> None:
    key = generate_private_key(SECP256R1()).public_key()
    assert DevicePublicKey(key).thumbprint == ECKey.import_key(key).thumbprint()
    issuer = FileIssuerKey.generate().public
    assert issuer.thumbprint == OKPKey.import_key(issuer.key).thumbprint()


def test_the_vault_key_is_fixed_by_the_seed_and_is_not_the_seed() -> None:
    issuer = FileIssuerKey(Ed25519PrivateKey.from_private_bytes(RFC_8037_SEED))
    assert issuer.vault_key() == FileIssuerKey(Ed25519PrivateKey.from_private_bytes(RFC_8037_SEED)).vault_key()
    assert issuer.vault_key() != FileIssuerKey.generate().vault_key()
    assert issuer.vault_key().reveal() not in (RFC_8037_SEED, issuer.public.key.public_bytes_raw())
    assert len(issuer.vault_key()) == 32


def test_issuer_public_key_round_trips(world: World, tmp_path: Path) -> None:
    world.issuer.public.save(tmp_path / "issuer.pub")
    assert (tmp_path / "issuer.pub").read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----")
    assert IssuerPublicKey.load(tmp_path / "issuer.pub") == world.issuer.public
    assert hash(IssuerPublicKey.load(tmp_path / "issuer.pub")) == hash(world.issuer.public)
    with pytest.raises(OutputError, match="exists already"):
        world.issuer.public.save(tmp_path / "issuer.pub")


def test_a_public_key_reached_through_a_link_is_fine(world: World, tmp_path: Path) -> None:
    world.issuer.public.save(tmp_path / "..data")
    (tmp_path / "issuer.pub").symlink_to(tmp_path / "..data")
    assert IssuerPublicKey.load(tmp_path / "issuer.pub") == world.issuer.public


def test_a_private_key_given_for_trust_is_refused_by_name(tmp_path: Path) -> None:
    FileIssuerKey.generate().save(tmp_path / "issuer.key")
    with pytest.raises(FormatError, match="got a private key"):
        IssuerPublicKey.load(tmp_path / "issuer.key")


@pytest.mark.parametrize("data", [b"", b"\xff" * 50, b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_public_key_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError, match="not a public key"):
        IssuerPublicKey.from_pem(data)


def test_an_issuer_key_of_another_type_is_refused(world: World) -> None:
    pem = world.device.public.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(FormatError, match="not Ed25519"):
        IssuerPublicKey.from_pem(pem)


@pytest.mark.parametrize("load", [IssuerPublicKey.load, DevicePublicKey.load])
def test_files_that_cannot_be_public_keys_are_format_errors(load: Any, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b" " * 20_000)
    for path in (tmp_path / "missing", tmp_path, tmp_path / "large", "\0"):
        with pytest.raises(FormatError) as caught:
            load(path)
        assert caught.value.hint


def test_a_file_that_is_not_as_long_as_it_says_is_refused() -> None:
    # Files under /proc say 0 bytes and hold more, as a file does that grows while it is read.
    with pytest.raises(FormatError, match="changed while it was read"):
        DevicePublicKey.load("/proc/self/status")


def test_device_public_key_round_trips_as_one_canonical_line(world: World, tmp_path: Path) -> None:
    public = world.device.public
    public.save(tmp_path / "device.pub")
    text = (tmp_path / "device.pub").read_text()
    assert text == json.dumps(public.to_jwk(), sort_keys=True, separators=(",", ":")) + "\n"
    assert json.loads(text)["kid"] == public.thumbprint
    assert DevicePublicKey.load(tmp_path / "device.pub") == public


def test_a_jwk_needs_no_kid(world: World) -> None:
    jwk = world.device.public.to_jwk()
    del jwk["kid"]
    assert DevicePublicKey.from_jwk(jwk) == world.device.public


@pytest.mark.parametrize(
    "change",
    [
        {"d": "AA"}, {"kid": "other"}, {"kid": None}, {"kty": "OKP"}, {"crv": "P-384"}, {"crv": ["P-256"]},
        {"use": "enc"},
        {"x": "AA"}, {"x": ""}, {"x": 5}, {"x": None}, {"x": "\ud800"}, {"y": "A" * 43}, {"x": "_" * 42 + "8"},
        {"x": "_" * 43},
    ],
)  # fmt: skip
def test_a_jwk_that_is_not_a_public_p256_key_is_refused(world: World, change: dict[str, Any]) -> None:
    with pytest.raises(FormatError) as caught:
        DevicePublicKey.from_jwk({**world.device.public.to_jwk(), **change})
    assert caught.value.hint


def test_a_coordinate_has_exactly_32_bytes(world: World) -> None:
    jwk = world.device.public.to_jwk()
    padded = encode_base64url(b"\0" + decode_base64url(jwk["x"], "x"))
    with pytest.raises(FormatError, match="has 33 bytes, expected 32"):
        DevicePublicKey.from_jwk({**jwk, "x": padded})


def test_a_private_jwk_is_refused_and_not_repeated(world: World, tmp_path: Path) -> None:
    private = ECKey.import_key(world.device._key).as_dict(private=True)
    (tmp_path / "device.pub").write_text(json.dumps(private))
    with pytest.raises(FormatError, match="holds a private key") as caught:
        DevicePublicKey.load(tmp_path / "device.pub")
    assert private["d"] not in str(caught.value)


def test_a_jwk_file_with_duplicate_keys_is_refused(world: World, tmp_path: Path) -> None:
    text = json.dumps(world.device.public.to_jwk())
    (tmp_path / "device.pub").write_text('{"x":"AA",' + text[1:])
    with pytest.raises(FormatError, match="a key is repeated"):
        DevicePublicKey.load(tmp_path / "device.pub")


def test_a_device_key_on_another_curve_is_refused() -> None:
    with pytest.raises(FormatError, match="expected P-256"):
        DevicePublicKey(generate_private_key(SECP384R1()).public_key())


def test_private_bytes_stand_in_no_public_output(world: World) -> None:
    seed = world.issuer._key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    shown = repr(world.issuer) + repr(world.issuer.public) + str(world.device.public.to_jwk())
    assert seed.hex() not in shown
    assert repr(seed) not in shown
