from __future__ import annotations

import copy
import json
import pickle
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keylatch.errors import DeviceKeyError, FormatError, IntegrityError, KeylatchError, OutputError, PassphraseError
from keylatch.keys import (
    FileDeviceKey,
    FileIssuerKey,
    HybridDeviceKey,
    HybridPublicKey,
    SecretBytes,
    generate_device_key,
    open_device_key,
)
from keylatch.keys._device_secret import derive_device_secret
from keylatch.keys._encoding import canonical_json, encode_base64url
from keylatch.keys._sealed import is_sealed

MLKEM = MLKEM768PrivateKey.from_seed_bytes(bytes(range(64)))
X25519 = X25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = HybridDeviceKey(MLKEM, X25519)
INFO = b"for this test"


def give(passphrase: bytes = b"correct horse") -> Callable[[str], bytes]:
    return lambda description: passphrase


def pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def write_private(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


# Sealing and opening.


def test_what_was_sealed_opens() -> None:
    encapsulated, sealed = KEY.public.seal(b"a content key", INFO)
    assert (len(encapsulated), len(sealed)) == (1088 + 32, 13 + 16)
    assert KEY.open(encapsulated, sealed, INFO) == SecretBytes(b"a content key")


@pytest.mark.parametrize(
    "change",
    [
        lambda ek, sealed: (ek, sealed, b"for another"),
        lambda ek, sealed: (ek[:-1], sealed, INFO),
        lambda ek, sealed: (ek + sealed[:1], sealed[1:], INFO),
        lambda ek, sealed: (ek[:-1], ek[-1:] + sealed, INFO),
        lambda ek, sealed: (b"", ek + sealed, INFO),
        lambda ek, sealed: (ek + sealed, b"", INFO),
        lambda ek, sealed: (b"", b"", INFO),
        lambda ek, sealed: (ek, sealed[:-1], INFO),
        lambda ek, sealed: (ek, b"", INFO),
        lambda ek, sealed: (bytes(1120), sealed, INFO),
        lambda ek, sealed: (ek[:1088] + bytes(32), sealed, INFO),
    ],
)
def test_nothing_else_opens_and_nothing_is_told(change: Callable[[bytes, bytes], tuple[bytes, bytes, bytes]]) -> None:
    with pytest.raises(IntegrityError) as caught:
        KEY.open(*change(*KEY.public.seal(b"a content key", INFO)))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


# The public half.


def test_the_thumbprint_is_rfc_7638_s_over_alg_kty_and_pub() -> None:
    import hashlib

    data = MLKEM.public_key().public_bytes_raw() + X25519.public_key().public_bytes_raw()
    members = '{"alg":"MLKEM768-X25519","kty":"AKP","pub":"' + encode_base64url(data) + '"}'
    assert KEY.public.thumbprint == encode_base64url(hashlib.sha256(members.encode()).digest())
    # What stands in licenses that are out there: it may never change.
    assert KEY.public.thumbprint == "PEqhIfn9WagdzEiwq2dZQCmZyp4wMZFhGpCrxlY-isE"


def test_the_public_key_round_trips_as_one_canonical_line(tmp_path: Path) -> None:
    KEY.public.save(tmp_path / "device.pub")
    data = (tmp_path / "device.pub").read_bytes()
    assert data == canonical_json(KEY.public.to_jwk()) + b"\n"
    assert HybridPublicKey.from_jwk(json.loads(data)) == KEY.public
    without_kid = {name: member for name, member in json.loads(data).items() if name != "kid"}
    assert HybridPublicKey.from_jwk(without_kid).data == KEY.public.data
    with pytest.raises(OutputError, match="exists already"):
        KEY.public.save(tmp_path / "device.pub")


def not_reduced() -> str:
    # FIPS 203 section 7.2: coefficients of 12 bits stay under 3329; these are 4095.
    return encode_base64url(b"\xff" * 1184 + bytes(32))


@pytest.mark.parametrize(
    "change",
    [
        {"priv": "AA"}, {"kid": "other"}, {"kid": None}, {"kty": "OKP"}, {"kty": "EC"}, {"alg": "ML-KEM-768"},
        {"alg": "HPKE-10-KE"}, {"alg": None}, {"use": "enc"}, {"key_ops": []},
        {"pub": ""}, {"pub": "AA"}, {"pub": 5}, {"pub": None}, {"pub": "="},
        {"pub": encode_base64url(KEY.public.data[:-1])}, {"pub": encode_base64url(KEY.public.data + b"\0")},
        {"pub": encode_base64url(KEY.public.data[:-32])}, {"pub": not_reduced()},
    ],
)  # fmt: skip
def test_a_jwk_that_is_not_a_public_hybrid_key_is_refused(change: dict[str, Any]) -> None:
    jwk = {name: value for name, value in KEY.public.to_jwk().items() if name != "kid" or "kid" in change}
    with pytest.raises(FormatError) as caught:
        HybridPublicKey.from_jwk({**jwk, **change})
    assert caught.value.hint


@pytest.mark.parametrize("name", ["kty", "alg", "pub"])
def test_a_jwk_with_a_member_missing_is_refused(name: str) -> None:
    with pytest.raises(FormatError, match="members"):
        HybridPublicKey.from_jwk({key: value for key, value in KEY.public.to_jwk().items() if key != name})


def test_a_private_jwk_is_refused_and_not_repeated() -> None:
    secret = encode_base64url(b"the private half")
    with pytest.raises(FormatError, match="holds a private key") as caught:
        HybridPublicKey.from_jwk({**KEY.public.to_jwk(), "priv": secret})
    assert secret not in str(caught.value)


# The key file.


def test_a_key_file_holds_two_pkcs8_keys_closed_to_others(tmp_path: Path) -> None:
    made = HybridDeviceKey.generate(tmp_path / "device.key")
    data = (tmp_path / "device.key").read_bytes()
    assert data == pem(made._mlkem) + pem(made._x25519)
    assert stat.S_IMODE((tmp_path / "device.key").stat().st_mode) == 0o600
    loaded = HybridDeviceKey.load(tmp_path / "device.key")
    assert loaded.public == made.public
    assert loaded.open(*made.public.seal(b"x", INFO), INFO) == SecretBytes(b"x")


def test_a_key_is_named_by_uri(tmp_path: Path) -> None:
    made = generate_device_key(f"hybrid:{tmp_path}/device.key")
    opened = open_device_key(f"HYBRID://{tmp_path}/device.key")
    assert isinstance(opened, HybridDeviceKey)
    assert opened.public == made.public
    with pytest.raises(OutputError, match="exists already"):
        generate_device_key(f"hybrid:{tmp_path}/device.key")


def test_a_passphrase_seals_both_halves(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    made = HybridDeviceKey.generate(path, give())
    data = path.read_bytes()
    assert is_sealed(data)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for half in (made._mlkem, made._x25519):
        assert half.private_bytes_raw() not in data
    assert HybridDeviceKey.load(path, give()).public == made.public
    with pytest.raises(PassphraseError, match="wrong passphrase"):
        HybridDeviceKey.load(path, give(b"wrong"))
    with pytest.raises(PassphraseError, match="no passphrase was given"):
        HybridDeviceKey.load(path)
    # Under file:, it says what it is, and does not stop at "no key in PEM".
    with pytest.raises(DeviceKeyError, match="several private keys") as caught:
        FileDeviceKey.load(path, give())
    assert f"hybrid:{path}" in str(caught.value.hint)


def test_a_sealed_p256_key_under_hybrid_names_file(tmp_path: Path) -> None:
    FileDeviceKey.generate(tmp_path / "device.key", give())
    with pytest.raises(DeviceKeyError, match="does not hold two private keys") as caught:
        HybridDeviceKey.load(tmp_path / "device.key", give())
    assert f"file:{tmp_path}/device.key" in str(caught.value.hint)


def test_a_hybrid_key_under_file_names_hybrid_and_the_reverse(tmp_path: Path) -> None:
    HybridDeviceKey.generate(tmp_path / "hybrid.key")
    FileDeviceKey.generate(tmp_path / "p256.key")
    with pytest.raises(DeviceKeyError, match="several private keys, expected one") as caught:
        open_device_key(f"file:{tmp_path}/hybrid.key")
    assert f"hybrid:{tmp_path}/hybrid.key" in str(caught.value.hint)
    with pytest.raises(DeviceKeyError, match="does not hold two private keys") as caught:
        open_device_key(f"hybrid:{tmp_path}/p256.key")
    assert f"file:{tmp_path}/p256.key" in str(caught.value.hint)


def test_a_hybrid_key_is_no_issuer_key(tmp_path: Path) -> None:
    HybridDeviceKey.generate(tmp_path / "device.key")
    with pytest.raises(DeviceKeyError, match=r"issuer key file .* several private keys"):
        FileIssuerKey.load(tmp_path / "device.key")


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([X25519, MLKEM], "holds other keys"),
        ([MLKEM, MLKEM], "holds other keys"),
        ([X25519, X25519], "holds other keys"),
        ([MLKEM, MLDSA65PrivateKey.generate()], "holds other keys"),
        ([MLKEM], "does not hold two"),
        ([X25519], "does not hold two"),
        ([], "does not hold two"),
        ([MLKEM, X25519, X25519], "does not hold two"),
    ],
)
def test_other_blocks_than_the_two_in_order_are_refused(tmp_path: Path, blocks: list[Any], message: str) -> None:
    path = write_private(tmp_path / "device.key", b"".join(map(pem, blocks)))
    with pytest.raises(DeviceKeyError, match=message) as caught:
        HybridDeviceKey.load(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no key",
        b"# mine\n" + pem(MLKEM) + pem(X25519),
        pem(MLKEM)[:60] + pem(X25519),
        pem(MLKEM) + pem(X25519)[:40],
        b"KEYLATCH\x81",
        b"\xff" * 400,
    ],
)
def test_damaged_key_files_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DeviceKeyError) as caught:
        HybridDeviceKey.load(write_private(tmp_path / "device.key", data), give())
    assert caught.value.hint


def test_a_key_open_to_others_a_link_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    path = write_private(tmp_path / "device.key", pem(MLKEM) + pem(X25519))
    assert HybridDeviceKey.load(path).public == KEY.public
    (tmp_path / "link.key").symlink_to(path)
    path.chmod(0o644)
    for name, message in (("device.key", "mode 0644"), ("link.key", "is a link"), ("none.key", "does not exist")):
        with pytest.raises(DeviceKeyError, match=message):
            HybridDeviceKey.load(tmp_path / name)


def test_every_flipped_byte_of_a_key_gives_an_error_or_another_key(tmp_path: Path) -> None:
    # PEM has no checksum: a flip inside is another key. Not always another public one, as half of an ML-KEM seed is the
    # value that a wrong ciphertext decapsulates to (FIPS 203 section 6.3).
    lines, path = (pem(MLKEM) + pem(X25519)).split(b"\n"), tmp_path / "device.key"
    for number, line in enumerate(lines):
        for position in range(0 if line.startswith(b"-----") else len(line)):
            flipped = bytearray(line)
            flipped[position] ^= 1 << position % 7
            write_private(path, b"\n".join([*lines[:number], bytes(flipped), *lines[number + 1 :]]))
            try:
                loaded = HybridDeviceKey.load(path)
            except KeylatchError:
                continue
            assert loaded.private_seed() != KEY.private_seed(), (number, position)


# What a key shows of itself.


def test_a_hybrid_key_shows_its_thumbprint_only() -> None:
    assert repr(KEY) == f"HybridDeviceKey(thumbprint='{KEY.public.thumbprint}')"
    assert repr(KEY.public) == f"HybridPublicKey(thumbprint='{KEY.public.thumbprint}')"


@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_hybrid_key_cannot_be_copied(take: Callable[[object], object]) -> None:
    with pytest.raises(TypeError):
        take(KEY)


def test_the_private_seed_is_both_halves_and_derives_secrets_of_the_device() -> None:
    assert KEY.private_seed() == SecretBytes(bytes(range(64)) + bytes(range(32)))
    other = HybridDeviceKey(MLKEM, X25519PrivateKey.generate())
    assert derive_device_secret(KEY, b"a") == derive_device_secret(KEY, b"a")
    assert derive_device_secret(KEY, b"a") != derive_device_secret(KEY, b"b")
    assert derive_device_secret(KEY, b"a") != derive_device_secret(other, b"a")
    assert len(derive_device_secret(KEY, b"a")) == 32
