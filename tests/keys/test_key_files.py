from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from keylatch.errors import DeviceKeyError, FormatError, KeylatchError, OutputError, PassphraseError
from keylatch.keys import DevicePublicKey, FileDeviceKey, FileIssuerKey, SecretBytes, open_device_key
from keylatch.keys._passphrase import MAX_MEMORY_KIB, Argon2Parameters
from keylatch.keys._sealed import MAX_HEADER_BYTES, open_with_passphrase

PASSPHRASE = "Ångström battery staple".encode()


def give(passphrase: bytes = PASSPHRASE) -> Callable[[str], bytes]:
    return lambda description: passphrase


@pytest.fixture(scope="module")
def sealed_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sealed") / "device.key"
    FileDeviceKey.generate(path, give())
    return path


def test_device_key_round_trips_as_private_pkcs8_pem(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    made = FileDeviceKey.generate(path)
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert FileDeviceKey.load(path).public == made.public


def test_issuer_key_round_trips_as_private_pkcs8_pem(tmp_path: Path) -> None:
    path, issuer = tmp_path / "issuer.key", FileIssuerKey.generate()
    issuer.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = FileIssuerKey.load(path)
    assert loaded.public == issuer.public
    assert loaded.vault_key() == issuer.vault_key()


def test_mode_is_0600_whatever_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        FileDeviceKey.generate(tmp_path / "device.key")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "device.key").stat().st_mode) == 0o600


def test_both_sides_of_an_exchange_agree_on_32_bytes(tmp_path: Path) -> None:
    first, second = (FileDeviceKey.generate(tmp_path / name) for name in "ab")
    shared = first.exchange(second.public.key)
    assert shared == second.exchange(first.public.key)
    assert len(shared) == 32
    with pytest.raises(DeviceKeyError, match="secp384r1, expected P-256"):
        first.exchange(generate_private_key(SECP384R1()).public_key())


def test_an_existing_key_is_never_overwritten_and_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    FileDeviceKey.generate(path)
    before = path.read_bytes()
    for write in (FileDeviceKey.generate, FileIssuerKey.generate().save):
        with pytest.raises(OutputError, match="exists already") as caught:
            write(path)
        assert caught.value.hint
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_the_place_of_a_new_key_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "device.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="exists already"):
        FileDeviceKey.generate(tmp_path / "device.key")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("path", ["missing/device.key", "\0", "x" * 300])
def test_a_key_that_cannot_be_written_says_why(tmp_path: Path, path: str) -> None:
    with pytest.raises(OutputError, match="cannot be written") as caught:
        FileDeviceKey.generate(tmp_path / path)
    assert caught.value.hint


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o601, 0o666, 0o777])
def test_a_key_open_to_others_is_refused_with_the_command_that_helps(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "device.key"
    FileDeviceKey.generate(path)
    path.chmod(mode)
    with pytest.raises(DeviceKeyError, match=f"mode {mode:04o}, expected 0600") as caught:
        FileDeviceKey.load(path)
    assert caught.value.hint == f"chmod 600 {path}"


def test_another_user_s_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "device.key"
    FileDeviceKey.generate(path)
    user = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: user + 1)
    with pytest.raises(DeviceKeyError, match=f"belongs to user {user}, expected user {user + 1}"):
        FileDeviceKey.load(path)


def make_link(path: Path) -> None:
    FileDeviceKey.generate(path.with_name("real.key"))
    path.symlink_to(path.with_name("real.key"))


def make_oversized(path: Path) -> None:
    path.write_bytes(b"x" * 20_000)
    path.chmod(0o600)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (make_link, "is a link, expected a regular file"),
        (lambda path: path.mkdir(0o700), "is a directory, expected a regular file"),
        (lambda path: os.mkfifo(path, 0o600), "is not a regular file"),
        (make_oversized, "has 20000 bytes, expected at most 16384"),
    ],
)
def test_what_is_no_safe_key_file_says_why(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "device.key"
    make(path)
    with pytest.raises(DeviceKeyError, match=message) as caught:
        FileDeviceKey.load(path)
    assert caught.value.hint


def write_private(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no key",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"KEYLATCH\x81",
        b"KEYLATCH\x81\xff\xff\xff\xff",
        b"KEYLATCH\x81\x02\0\0\0{}" + bytes(40),
        b"KEYLATCH\x81\x02\0\0\0[]" + bytes(40),
    ],
)
def test_damaged_key_files_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DeviceKeyError) as caught:
        FileDeviceKey.load(write_private(tmp_path / "device.key", data), give())
    assert caught.value.hint


def test_keys_of_another_kind_are_refused(tmp_path: Path) -> None:
    other = generate_private_key(SECP384R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(DeviceKeyError, match="expected P-256"):
        FileDeviceKey.load(write_private(tmp_path / "p384.key", pem))
    FileIssuerKey.generate().save(tmp_path / "issuer.key")
    with pytest.raises(DeviceKeyError, match="expected P-256"):
        FileDeviceKey.load(tmp_path / "issuer.key")
    FileDeviceKey.generate(tmp_path / "device.key")
    with pytest.raises(DeviceKeyError, match="expected Ed25519"):
        FileIssuerKey.load(tmp_path / "device.key")


def test_pkcs8_encryption_is_refused_by_name(tmp_path: Path) -> None:
    key = generate_private_key(SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    with pytest.raises(DeviceKeyError, match="PKCS#8 encryption"):
        FileDeviceKey.load(write_private(tmp_path / "device.key", pem), give())


def test_a_sealed_key_opens_with_its_passphrase_only(sealed_key: Path) -> None:
    asked: list[str] = []

    def ask(description: str) -> SecretBytes:
        asked.append(description)
        return SecretBytes(PASSPHRASE)

    assert len(FileDeviceKey.load(sealed_key, ask).public.thumbprint) == 43
    assert asked == [f"device key file {sealed_key}"]
    with pytest.raises(PassphraseError, match="wrong passphrase") as caught:
        FileDeviceKey.load(sealed_key, give(b"wrong"))
    assert b"wrong"[::-1].decode() not in str(caught.value)


def test_a_sealed_key_holds_no_private_bytes_in_clear(tmp_path: Path) -> None:
    issuer = FileIssuerKey.generate()
    issuer.save(tmp_path / "issuer.key", give())
    data = (tmp_path / "issuer.key").read_bytes()
    assert issuer._key.private_bytes_raw() not in data
    assert PASSPHRASE not in data
    assert stat.S_IMODE((tmp_path / "issuer.key").stat().st_mode) == 0o600
    assert FileIssuerKey.load(tmp_path / "issuer.key", give()).public == issuer.public


@pytest.mark.parametrize("passphrase", [None, give(b""), give(b"x" * 1025), lambda d: "text", lambda d: None])
def test_a_missing_or_unusable_passphrase_is_a_passphrase_error(sealed_key: Path, passphrase: Any) -> None:
    with pytest.raises(PassphraseError) as caught:
        FileDeviceKey.load(sealed_key, passphrase)
    assert caught.value.hint


def test_an_empty_passphrase_seals_nothing(tmp_path: Path) -> None:
    with pytest.raises(PassphraseError):
        FileDeviceKey.generate(tmp_path / "device.key", give(b""))
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_callback_pass_through(sealed_key: Path) -> None:
    def fail(description: str) -> bytes:
        raise TypeError("bug in the callback")

    with pytest.raises(TypeError, match="bug in the callback"):
        FileDeviceKey.load(sealed_key, fail)


def test_a_sealed_device_key_is_no_issuer_key(sealed_key: Path) -> None:
    with pytest.raises(DeviceKeyError, match="is a sealed device key, expected a sealed issuer key"):
        FileIssuerKey.load(sealed_key, give())


def test_every_single_bit_flip_of_a_sealed_key_is_refused(
    sealed_key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every kdf parameter set in bounds would cost real time: derive a key from their values instead.
    monkeypatch.setattr("keylatch.keys._sealed.derive_key", lambda p, salt, parameters: SecretBytes(salt * 2))
    path = tmp_path / "device.key"
    FileDeviceKey.generate(path, give())
    data = path.read_bytes()
    assert FileDeviceKey.load(path, give())
    for position in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(KeylatchError):
            open_with_passphrase(bytes(flipped), kind="device key", passphrase=give(), what="it")


@pytest.mark.parametrize(
    "parameters",
    [
        {"iterations": 0}, {"iterations": 17}, {"iterations": True}, {"iterations": "3"}, {"iterations": None},
        {"memory_kib": MAX_MEMORY_KIB + 1}, {"memory_kib": 31}, {"memory_kib": 2**62}, {"memory_kib": 8.5},
        {"lanes": 0}, {"lanes": 17}, {"lanes": -1},
    ],
)  # fmt: skip
def test_kdf_parameters_are_bounded_before_use(parameters: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="out of bounds"):
        Argon2Parameters(**parameters)


def test_the_kdf_is_rfc_9106_s_second_recommended_option(sealed_key: Path) -> None:
    assert b'"kdf":"argon2id"' in sealed_key.read_bytes()[: 13 + MAX_HEADER_BYTES]
    assert b'"params":{"iterations":3,"lanes":4,"memory_kib":65536}' in sealed_key.read_bytes()


def test_device_keys_are_named_by_uri_or_plain_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    public = FileDeviceKey.generate(tmp_path / "device.key").public
    monkeypatch.chdir(tmp_path)
    absolute = tmp_path / "device.key"
    for uri in (absolute, str(absolute), "device.key", "file:device.key", f"file:{absolute}", f"FILE://{absolute}"):
        assert open_device_key(uri).public == public


@pytest.mark.parametrize("uri", ["yubikey:9a", "data:,x", "https://host/device.key"])
def test_unknown_schemes_name_the_supported_ones(uri: str) -> None:
    with pytest.raises(DeviceKeyError, match="only awskms:, env:, file:, hybrid:, pkcs11:, tpm:") as caught:
        open_device_key(uri)
    assert caught.value.hint


def test_an_environment_variable_may_name_the_key_but_not_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = FileDeviceKey.generate(tmp_path / "device.key").public
    monkeypatch.setenv("DEVICE_KEY", f"file:{tmp_path / 'device.key'}")
    assert open_device_key("env:DEVICE_KEY").public == public
    for value in ("", "env:DEVICE_KEY"):
        monkeypatch.setenv("DEVICE_KEY", value)
        with pytest.raises(DeviceKeyError, match="names no key"):
            open_device_key("env:DEVICE_KEY")


def test_a_file_uri_with_a_host_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceKeyError, match="another host"):
        open_device_key("file://host/device.key")


def test_representations_show_thumbprints_only(tmp_path: Path) -> None:
    device, issuer = FileDeviceKey.generate(tmp_path / "device.key"), FileIssuerKey.generate()
    assert repr(device) == f"FileDeviceKey(thumbprint='{device.public.thumbprint}')"
    assert repr(issuer) == f"FileIssuerKey(thumbprint='{issuer.public.thumbprint}')"
    assert repr(device.public) == f"DevicePublicKey(thumbprint='{device.public.thumbprint}')"
    assert str(device) == repr(device)


def test_a_pem_made_by_others_loads(tmp_path: Path) -> None:
    key = generate_private_key(SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    loaded = FileDeviceKey.load(write_private(tmp_path / "device.key", pem))
    assert loaded.public == DevicePublicKey(key.public_key())
    assert load_pem_private_key(pem, None)
