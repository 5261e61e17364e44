from __future__ import annotations

import copy
import pickle
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    ECDSA,
    SECP256R1,
    SECP384R1,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from license_world import SECRET, World

from keylatch.errors import DeviceKeyError, KeylatchError, OutputError
from keylatch.keys import (
    FileDeviceKey,
    SecretBytes,
    generate_device_key,
    open_device_key,
)
from keylatch.keys._kms._service import make_data_key, open_data_key
from keylatch.keys._kms._wrapping import MAX_WRAPPED_KEY_BYTES, Wrapping
from keylatch.keys._sealed import MAX_HEADER_BYTES, read_wrapping, seal_with_data_key


@pytest.fixture
def no_kms(monkeypatch: pytest.MonkeyPatch, kms: Any, key_path: Path, device: Any) -> None:
    """The data key as KMS returned it once, for tests that open a file thousands of times."""
    wrapping = Wrapping.from_header(read_wrapping(key_path.read_bytes(), kind="device key", what="it"))
    data_key = open_data_key(wrapping, key_id=None, endpoint_url=kms.endpoint)
    monkeypatch.setattr("keylatch.keys._kms._device.open_data_key", lambda *a, **k: data_key)


def test_a_key_round_trips_through_a_private_file(kms: Any, key_path: Path) -> None:
    device = generate_device_key(kms.new_uri(key_path))
    assert stat.S_IMODE(key_path.stat().st_mode) == 0o600
    assert open_device_key(kms.uri(key_path)).public == device.public


def test_the_file_holds_no_private_bytes_in_clear(kms: Any, device: Any, key_path: Path) -> None:
    opened: Any = open_device_key(kms.uri(key_path))
    number = opened._key._key.private_numbers().private_value
    assert number.to_bytes(32, "big") not in key_path.read_bytes()


def test_opening_agrees_with_the_uri_that_made_the_key(kms: Any, device: Any, key_path: Path) -> None:
    assert open_device_key(kms.new_uri(key_path)).public == device.public
    key_id = kms.key_arn.rpartition("/")[2]
    assert open_device_key(kms.uri(key_path, f"&key-id={key_id}&region=eu-central-1")).public == device.public


def test_an_alias_makes_a_file_that_names_the_key_itself(kms: Any, key_path: Path) -> None:
    client, alias = kms.client(), f"alias/{kms.key_arn[-8:]}"
    client.create_alias(AliasName=alias, TargetKeyId=kms.key_arn)
    uri = kms.uri(key_path, f"&key-id={alias}&region=eu-central-1")
    made = generate_device_key(uri)
    assert kms.key_arn.encode() in key_path.read_bytes()
    assert open_device_key(uri).public == made.public
    client.update_alias(AliasName=alias, TargetKeyId=kms.other_key_arn)
    client.close()
    assert open_device_key(kms.uri(key_path)).public == made.public
    with pytest.raises(DeviceKeyError):
        open_device_key(uri)


def test_another_kms_key_than_the_uri_names_is_refused(kms: Any, device: Any, key_path: Path) -> None:
    with pytest.raises(DeviceKeyError) as caught:
        open_device_key(kms.uri(key_path, f"&key-id={kms.other_key_arn}"))
    assert caught.value.hint


def test_a_kms_that_uses_another_key_than_it_was_told_is_refused(kms: Any) -> None:
    _, wrapping = make_data_key(kms.key_arn, "a" * 43, region="eu-central-1", endpoint_url=kms.endpoint)
    other = Wrapping(kms.other_key_arn, wrapping.data_key, wrapping.thumbprint)
    with pytest.raises(DeviceKeyError, match="used another key"):
        open_data_key(other, key_id=kms.key_arn, endpoint_url=kms.endpoint)


def test_another_region_than_the_file_s_is_refused(kms: Any, device: Any, key_path: Path) -> None:
    with pytest.raises(DeviceKeyError, match="in eu-central-1, got region us-east-1"):
        open_device_key(kms.uri(key_path, "&region=us-east-1"))


def test_a_data_key_opens_only_for_the_device_key_it_was_made_for(kms: Any) -> None:
    where = {"endpoint_url": kms.endpoint}
    data_key, wrapping = make_data_key(kms.key_arn, "a" * 43, region="eu-central-1", **where)
    assert open_data_key(wrapping, key_id=None, **where) == data_key
    for changed in (
        Wrapping(wrapping.key_arn, wrapping.data_key, "b" * 43),
        Wrapping(kms.other_key_arn, wrapping.data_key, wrapping.thumbprint),
        Wrapping(wrapping.key_arn, wrapping.data_key[:-1] + b"\0", wrapping.thumbprint),
        Wrapping(wrapping.key_arn, b"nonsense", wrapping.thumbprint),
    ):
        with pytest.raises(DeviceKeyError) as caught:
            open_data_key(changed, key_id=None, **where)
        assert caught.value.hint


def test_the_context_that_kms_is_asked_with_names_purpose_and_key(kms: Any) -> None:
    data_key, wrapping = make_data_key(kms.key_arn, "a" * 43, region="eu-central-1", endpoint_url=kms.endpoint)
    client = kms.client()
    context = {"keylatch:purpose": "device key", "keylatch:thumbprint": "a" * 43}
    answer = client.decrypt(CiphertextBlob=wrapping.data_key, EncryptionContext=context)
    assert SecretBytes(answer["Plaintext"]) == data_key
    with pytest.raises(client.exceptions.InvalidCiphertextException):
        client.decrypt(CiphertextBlob=wrapping.data_key, EncryptionContext={})
    client.close()


def test_every_flipped_byte_of_the_file_is_refused(no_kms: None, kms: Any, key_path: Path) -> None:
    data = key_path.read_bytes()
    assert open_device_key(kms.uri(key_path))
    for position in range(len(data)):
        for mask in (1, 0x80, 0xFF):
            flipped = bytearray(data)
            flipped[position] ^= mask
            key_path.write_bytes(flipped)
            with pytest.raises(KeylatchError):
                open_device_key(kms.uri(key_path))


def test_every_truncation_of_the_file_is_refused(no_kms: None, kms: Any, key_path: Path) -> None:
    data = key_path.read_bytes()
    for length in range(len(data)):
        key_path.write_bytes(data[:length])
        with pytest.raises(DeviceKeyError):
            open_device_key(kms.uri(key_path))


def test_a_flip_in_the_wrapped_data_key_is_refused_by_kms(kms: Any, device: Any, key_path: Path) -> None:
    data = bytearray(key_path.read_bytes())
    position = data.index(b'"data_key":"') + 90
    data[position] = ord("A") if data[position] != ord("A") else ord("B")
    key_path.write_bytes(data)
    with pytest.raises(DeviceKeyError, match="does not open the data key"):
        open_device_key(kms.uri(key_path))


def write_sealed(path: Path, key: FileDeviceKey, fields: dict[str, Any], data_key: SecretBytes) -> None:
    plaintext = key._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(seal_with_data_key(plaintext, kind="device key", key=data_key, wrapping=fields))
    path.chmod(0o600)


def test_a_foreign_private_key_under_the_right_data_key_is_refused(kms: Any, key_path: Path, tmp_path: Path) -> None:
    data_key, wrapping = make_data_key(kms.key_arn, "a" * 43, region="eu-central-1", endpoint_url=kms.endpoint)
    write_sealed(key_path, FileDeviceKey.generate(tmp_path / "foreign.key"), wrapping.to_header(), data_key)
    with pytest.raises(DeviceKeyError, match="holds another key than it says"):
        open_device_key(kms.uri(key_path))


GOOD = {"key": f"arn:aws:kms:eu-central-1:123456789012:key/{'0' * 36}", "data_key": "AAAA", "thumbprint": "a" * 43}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {**GOOD, "more": "x"},
        {**GOOD, "key": 1},
        {**GOOD, "key": "alias/mine"},
        {**GOOD, "key": "arn:aws:kms:eu-central-1:123456789012:alias/mine"},
        {**GOOD, "key": "arn:aws:s3:eu-central-1:123456789012:key/x"},
        {**GOOD, "key": GOOD["key"] + "0" * 300},
        {**GOOD, "data_key": ""},
        {**GOOD, "data_key": "A" * 4 * 129},
        {**GOOD, "data_key": "AAA="},
        {**GOOD, "data_key": None},
        {**GOOD, "thumbprint": "short"},
        {**GOOD, "thumbprint": ["a" * 43]},
    ],
)
def test_fields_of_the_file_are_bounded_before_kms_is_asked(
    fields: dict[str, Any], key_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keylatch.keys._kms._device.open_data_key", lambda *a, **k: pytest.fail("KMS was asked"))
    write_sealed(key_path, FileDeviceKey.generate(tmp_path / "any.key"), fields, SecretBytes(bytes(32)))
    with pytest.raises(DeviceKeyError) as caught:
        open_device_key(f"awskms:{key_path}")
    assert caught.value.hint


def test_the_longest_fields_fit_the_sealed_header(key_path: Path, tmp_path: Path) -> None:
    arn = f"arn:aws{'-' * 16}:kms:{'u' * 32}:123456789012:key/{'0' * 64}"
    fields = Wrapping(arn, bytes(MAX_WRAPPED_KEY_BYTES), "a" * 43).to_header()
    sealed = seal_with_data_key(b"x", kind="device key", key=SecretBytes(bytes(32)), wrapping=fields)
    assert int.from_bytes(sealed[9:13], "little") <= MAX_HEADER_BYTES


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\n", b"KEYLATCH\x81\x02\0\0\0{}" + bytes(40)])
def test_what_is_no_such_file_is_refused(content: bytes, key_path: Path) -> None:
    key_path.write_bytes(content)
    key_path.chmod(0o600)
    with pytest.raises(DeviceKeyError) as caught:
        open_device_key(f"awskms:{key_path}")
    assert caught.value.hint


def test_a_file_open_to_others_is_refused(kms: Any, device: Any, key_path: Path) -> None:
    key_path.chmod(0o640)
    with pytest.raises(DeviceKeyError, match="mode 0640, expected 0600"):
        open_device_key(kms.uri(key_path))


def test_a_file_under_kms_and_one_under_a_passphrase_are_told_apart(
    kms: Any, device: Any, key_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(DeviceKeyError, match="sealed under a key of AWS KMS, got a passphrase"):
        open_device_key(key_path, passphrase=lambda description: b"x")
    FileDeviceKey.generate(tmp_path / "device.key", lambda description: b"x")
    with pytest.raises(DeviceKeyError, match="sealed under a passphrase, got a key of AWS KMS"):
        open_device_key(kms.uri(tmp_path / "device.key"))


def test_an_existing_file_is_never_replaced(kms: Any, device: Any, key_path: Path) -> None:
    before = key_path.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        generate_device_key(kms.new_uri(key_path))
    assert key_path.read_bytes() == before


def test_it_exchanges_and_signs_as_a_file_key_does(kms: Any, device: Any, key_path: Path) -> None:
    opened: Any = open_device_key(kms.uri(key_path))
    peer = generate_private_key(SECP256R1())
    assert opened.exchange(peer.public_key()) == SecretBytes(peer.exchange(ECDH(), opened.public.key))
    with pytest.raises(DeviceKeyError, match="expected P-256"):
        opened.exchange(generate_private_key(SECP384R1()).public_key())
    proof = opened.prove_possession(b"statement")
    signature = encode_dss_signature(int.from_bytes(proof[:32], "big"), int.from_bytes(proof[32:], "big"))
    opened.public.key.verify(signature, b"statement", ECDSA(SHA256()))
    with pytest.raises(InvalidSignature):
        opened.public.key.verify(signature, b"other", ECDSA(SHA256()))


def test_a_license_opens_with_it(kms: Any, device: Any, key_path: Path, world: World) -> None:
    license = world.issue(devices=[device.public])
    values = world.open(license.serialize(), open_device_key(kms.uri(key_path)))
    assert values["gate.patch"].tobytes() == SECRET


def test_nothing_of_the_key_is_shown_or_copied(kms: Any, device: Any, key_path: Path) -> None:
    opened = open_device_key(kms.uri(key_path))
    assert repr(opened) == str(opened) == f"KmsDeviceKey(thumbprint='{device.public.thumbprint}')"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds secrets"):
            attempt(opened)


def test_without_boto3_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['boto3'] = None\n"
        "from keylatch.errors import MissingExtraError\n"
        "from keylatch.keys import open_device_key\n"
        "try: open_device_key('awskms:device.kms')\n"
        "except MissingExtraError as error: print(error)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "needs boto3, which is not installed\n  hint: pip install 'keylatch[kms]'" in shown
