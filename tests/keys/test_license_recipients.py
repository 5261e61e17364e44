from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurvePublicKey,
    generate_private_key,
)
from joserfc.errors import ExceededSizeError, JoseError
from joserfc.jwe import JWERegistry, decrypt_json
from joserfc.jwk import ECKey
from license_world import NOW, SECRET, World, unpadded

from keylatch.errors import DeviceKeyError, FormatError, IntegrityError, WrongDeviceError
from keylatch.keys import (
    MAX_DEVICES,
    DevicePublicKey,
    SecretBytes,
    Trust,
    _recipients,
    decrypt_license,
    verify_license,
)
from keylatch.keys._issue import blob_associated_data
from keylatch.keys._recipients import _REGISTRY, _decrypt

P256 = SECP256R1()


class HardwareKey:
    """A device key whose private half cannot be reached: public and exchange are all there is."""

    def __init__(self) -> None:
        self._key = generate_private_key(P256)
        self.public = DevicePublicKey(self._key.public_key())
        self.peers: list[EllipticCurvePublicKey] = []

    def exchange(self, peer: EllipticCurvePublicKey) -> SecretBytes:
        from cryptography.hazmat.primitives.asymmetric.ec import ECDH

        self.peers.append(peer)
        return SecretBytes(self._key.exchange(ECDH(), peer))


def new_public_key() -> DevicePublicKey:
    return DevicePublicKey(generate_private_key(P256).public_key())


def test_each_of_several_devices_opens_the_license(world: World) -> None:
    data = world.issue(devices=[world.device.public, world.foreign_device.public, new_public_key()]).serialize()
    for device in (world.device, world.foreign_device):
        assert world.open(data, device)["gate.patch"].tobytes() == SECRET


def test_a_foreign_device_is_told_whom_the_license_is_for(world: World) -> None:
    with pytest.raises(WrongDeviceError) as caught:
        world.open(world.issue().serialize(), world.foreign_device)
    assert world.device.public.thumbprint in caught.value.message
    assert f"this device is {world.foreign_device.public.thumbprint}" in caught.value.message
    assert caught.value.hint


def test_a_key_in_hardware_opens_a_license_with_one_key_agreement(world: World) -> None:
    hardware = HardwareKey()
    data = world.issue(devices=[world.device.public, hardware.public]).serialize()
    assert world.open(data, hardware)["gate.patch"].tobytes() == SECRET
    assert len(hardware.peers) == 1


def test_an_error_of_the_hardware_is_not_hidden(world: World) -> None:
    class Unplugged(HardwareKey):
        def exchange(self, peer: EllipticCurvePublicKey) -> SecretBytes:
            raise DeviceKeyError("the token was removed", hint="plug it in")

    hardware = Unplugged()
    with pytest.raises(DeviceKeyError, match="removed"):
        world.open(world.issue(devices=[hardware.public]).serialize(), hardware)


def test_a_wrong_shared_secret_tells_nothing(world: World) -> None:
    class Broken(HardwareKey):
        def exchange(self, peer: EllipticCurvePublicKey) -> SecretBytes:
            return SecretBytes(bytes(32))

    hardware = Broken()
    with pytest.raises(IntegrityError) as caught:
        world.open(world.issue(devices=[hardware.public]).serialize(), hardware)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_the_most_devices_work_and_one_more_is_refused(world: World) -> None:
    devices = [world.device.public, *(new_public_key() for _ in range(MAX_DEVICES))]
    data = world.issue(devices=devices[:MAX_DEVICES]).serialize()
    assert world.open(data)["gate.patch"].tobytes() == SECRET
    with pytest.raises(FormatError, match=f"1 to {MAX_DEVICES} devices, got {MAX_DEVICES + 1}"):
        world.issue(devices=devices)


def test_recipients_that_are_not_ours_are_not_parsed(world: World) -> None:
    def ruin(jwe: dict[str, Any]) -> None:
        for recipient in jwe["recipients"]:
            if recipient["header"]["kid"] != world.device.public.thumbprint:
                recipient["encrypted_key"] = "!"
                recipient["header"] = {"kid": recipient["header"]["kid"], "alg": "dir", "epk": 5}

    license = world.issue(devices=[world.device.public, world.foreign_device.public])
    assert world.open(world.edit_jwe(license, ruin).serialize())["gate.patch"].tobytes() == SECRET


def test_joserfc_still_wants_every_recipient_and_sixteen_at_most(world: World) -> None:
    # Why ours is filtered out first. If this fails after an upgrade, the filter may no longer be needed.
    key = ECKey.import_key(world.device._key)
    names = ["ECDH-ES+A256KW", "A256GCM"]
    two = json.loads(world.issue(devices=[world.device.public, world.foreign_device.public]).jwe)
    with pytest.raises(JoseError):
        decrypt_json(two, key, registry=JWERegistry(algorithms=names))
    many = json.loads(world.issue(devices=[world.device.public, *(new_public_key() for _ in range(16))]).jwe)
    with pytest.raises(JoseError):
        decrypt_json(many, key, registry=JWERegistry(algorithms=names, verify_all_recipients=False))


@pytest.mark.parametrize(
    ("member", "size"), [("ciphertext", 65), ("iv", 17), ("tag", 33), ("protected", 129), ("encrypted_key", 65)]
)
def test_our_registry_keeps_its_own_small_limits(world: World, member: str, size: int) -> None:
    # Would fall back to joserfc's limits, without notice, if algorithms= were passed beside registry=.
    jwe = json.loads(world.issue().jwe)
    (jwe["recipients"][0] if member == "encrypted_key" else jwe)[member] = "A" * size
    with pytest.raises(IntegrityError):
        _decrypt(jwe, world.device)
    with pytest.raises(ExceededSizeError):
        decrypt_json(jwe, ECKey.import_key(world.device._key), registry=_REGISTRY)


def test_the_registry_alone_is_passed_and_names_all_algorithms(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # algorithms= beside registry= makes joserfc drop the registry.
    calls: list[dict[str, Any]] = []
    for name in ("encrypt_json", "decrypt_json"):
        real = getattr(_recipients, name)
        spy = lambda *args, real=real, **options: calls.append(options) or real(*args, **options)  # noqa: E731
        monkeypatch.setattr(_recipients, name, spy)
    world.open(world.issue().serialize())
    assert calls == [{"registry": _REGISTRY}, {"registry": _REGISTRY}]
    assert _REGISTRY.allowed == ["ECDH-ES+A256KW", "HPKE-MLKEM768-X25519-KE", "A256GCM"]


def ours(edit: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], None]:
    return lambda jwe: edit(jwe["recipients"][0]) and None


def with_epk(**members: object) -> Callable[[dict[str, Any]], None]:
    return ours(lambda recipient: recipient["header"]["epk"].update(members))


P384_POINT = generate_private_key(SECP384R1()).public_key().public_numbers()


@pytest.mark.parametrize(
    "edit",
    [
        with_epk(x=unpadded(bytes(32)).decode(), y=unpadded(bytes(32)).decode()),
        with_epk(x=unpadded(bytes(31) + b"\x05").decode()),
        with_epk(x=unpadded(b"\xff" * 32).decode()),
        with_epk(x="!"),
        with_epk(x=""),
        with_epk(crv="P-999"),
        with_epk(
            crv="P-384",
            x=unpadded(P384_POINT.x.to_bytes(48, "big")).decode(),
            y=unpadded(P384_POINT.y.to_bytes(48, "big")).decode(),
        ),
        ours(lambda recipient: recipient.update(encrypted_key=unpadded(bytes(40)).decode())),
        ours(lambda recipient: recipient.update(encrypted_key=unpadded(bytes(39)).decode())),
        ours(lambda recipient: recipient.update(encrypted_key="A" * 1000)),
        lambda jwe: jwe.update(tag=unpadded(bytes(16)).decode()),
        lambda jwe: jwe.update(tag=jwe["tag"][:16]),
        lambda jwe: jwe.update(iv=unpadded(bytes(12)).decode()),
        lambda jwe: jwe.update(iv=""),
        lambda jwe: jwe.update(ciphertext="A" * 1000),
        lambda jwe: jwe.update(ciphertext="="),
    ],
)
def test_whatever_fails_from_the_key_agreement_on_is_one_bare_error(
    world: World, edit: Callable[[dict[str, Any]], None]
) -> None:
    license = world.edit_jwe(world.issue(), edit)
    with pytest.raises(IntegrityError) as caught:
        world.open(license.serialize())
    assert str(caught.value) == str(IntegrityError())
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("curve", ["off", "P-384"])
def test_an_ephemeral_key_off_the_curve_never_reaches_the_private_key(world: World, curve: str) -> None:
    hardware = HardwareKey()
    y = unpadded(P384_POINT.y.to_bytes(48, "big")).decode()
    x = unpadded(P384_POINT.x.to_bytes(48, "big")).decode()
    edit = with_epk(crv="P-384", x=x, y=y) if curve == "P-384" else with_epk(x=unpadded(bytes(31) + b"\x05").decode())
    license = world.edit_jwe(world.issue(devices=[hardware.public]), edit)
    with pytest.raises(IntegrityError):
        world.open(license.serialize(), hardware)
    assert hardware.peers == []


@pytest.mark.parametrize(
    "edit",
    [
        lambda jwe: jwe.update(unprotected={"alg": "dir"}),
        lambda jwe: jwe.update(aad="AA"),
        lambda jwe: jwe.pop("iv"),
        lambda jwe: jwe.update(tag=5),
        lambda jwe: jwe.update(recipients={}),
        lambda jwe: jwe.update(recipients=[]),
        lambda jwe: jwe["recipients"].append(5),
        lambda jwe: jwe["recipients"].append({"header": {}}),
        lambda jwe: jwe["recipients"].append(jwe["recipients"][0]),
        lambda jwe: jwe["recipients"].extend([jwe["recipients"][0]] * MAX_DEVICES),
        lambda jwe: jwe["recipients"].clear() or jwe["recipients"].append({"header": {"kid": "x"}}),
        lambda jwe: jwe.update(protected=unpadded(b'{"enc":"A128GCM","typ":"keylatch-secrets+jwe"}').decode()),
        lambda jwe: jwe.update(
            protected=unpadded(b'{"enc":"A256GCM","typ":"keylatch-secrets+jwe","zip":"DEF"}').decode()
        ),
        ours(lambda recipient: recipient.update(extra=1)),
        ours(lambda recipient: recipient.update(encrypted_key=5)),
        ours(lambda recipient: recipient["header"].update(alg="ECDH-ES")),
        ours(lambda recipient: recipient["header"].update(alg="PBES2-HS256+A128KW", p2c=1000)),
        ours(lambda recipient: recipient["header"].update(apu="AA")),
        ours(lambda recipient: recipient["header"].update(apv="AA")),
        ours(lambda recipient: recipient["header"].update(crit=["exp"])),
        ours(lambda recipient: recipient["header"].pop("epk")),
        with_epk(d="AA"),
        with_epk(kty="OKP"),
        with_epk(x=5),
    ],
)
def test_a_jwe_in_any_other_form_is_refused_before_decryption(
    world: World, edit: Callable[[dict[str, Any]], None]
) -> None:
    license = world.edit_jwe(world.issue(), edit)
    with pytest.raises(FormatError) as caught:
        world.open(license.serialize())
    assert caught.value.hint


def test_duplicate_keys_in_the_jwe_are_refused(world: World) -> None:
    license = world.issue()
    doubled = world.resign(license, jwe=b'{"iv":"AAAAAAAAAAAAAAAA",' + license.jwe[1:])
    with pytest.raises(FormatError, match="a key is repeated"):
        world.open(doubled.serialize())


def test_parts_are_digested_before_anything_in_them_is_parsed(world: World) -> None:
    license = world.issue()
    claims = verify_license(license, Trust([world.issuer.public]), now=NOW)
    for part in ("jwe", "blob"):
        changed = {"jwt": license.jwt, "jwe": license.jwe, "blob": license.blob, part: b"not even JSON"}
        with pytest.raises(Exception, match="is not the one that was signed"):
            decrypt_license(type(license)(**changed), claims, world.device)


@pytest.mark.parametrize("blob", [b"\x00", bytes(12), bytes(28), bytes(500)])
def test_a_blob_that_does_not_decrypt_tells_nothing(world: World, blob: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        world.open(world.resign(world.issue(), blob=blob).serialize())
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("plaintext", [b"", b"no safetensors", bytes(100)])
def test_a_blob_that_is_no_safetensors_tells_nothing(
    world: World, plaintext: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keylatch.keys._issue.serialize_tensors", lambda values: plaintext)
    license = world.issue()
    with pytest.raises(IntegrityError):
        world.open(license.serialize())


def test_the_blob_is_bound_to_the_license_id() -> None:
    assert blob_associated_data("an-id") == b"keylatch/1 secretsan-id"


VALUES = {
    "a/b::c": np.arange(6, dtype=np.int64).reshape(2, 3),
    "scalar": np.array(2.5, np.float32),
    "empty": np.zeros((0, 4), np.uint8),
    "transposed": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    "big-endian": np.arange(3, dtype=">i4"),
    "strided": np.arange(10, dtype=np.int16)[::3],
    "half": np.ones(3, np.float16),
    "bool": np.array([True, False]),
}


def test_secret_values_of_every_layout_round_trip(world: World) -> None:
    opened = world.open(world.issue(secret_values=VALUES).serialize())
    assert set(opened) == set(VALUES)
    for name, value in VALUES.items():
        assert opened[name].shape == value.shape
        assert opened[name].dtype == value.dtype.newbyteorder("=")
        np.testing.assert_array_equal(opened[name], value)


@pytest.mark.parametrize(
    "changes",
    [
        {"devices": []},
        {"expires_at": NOW - 86_400},
        {"expires_at": NOW - 86_401},
        {"issued_at": NOW + 90_000},
        {"model_id": "3f9a"},
        {"model_id": "3F9A" * 16},
        {"customer": ""},
        {"customer": "a\tb"},
        {"seq": 0},
        {"seq": True},
        {"not_before": 1.5},
        {"expires_at": 2**60},
        {"secret_values": {}},
        {"secret_values": {"a": [1.0]}},
        {"secret_values": {"a": np.array(["text"])}},
        {"secret_values": {"a": np.array([object()])}},
        {"secret_values": {"": np.zeros(1)}},
        {"secret_values": {"__metadata__": np.zeros(1)}},
        {"secret_values": {"a\nb": np.zeros(1)}},
    ],
)
def test_a_license_that_could_not_be_used_is_not_issued(world: World, changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError) as caught:
        world.issue(**changes)
    assert caught.value.hint


def test_a_device_named_twice_counts_once_and_devices_are_sorted(world: World) -> None:
    devices = [world.device.public, world.foreign_device.public, world.device.public]
    claims = verify_license(world.issue(devices=devices), Trust([world.issuer.public]), now=NOW)
    assert claims.devices == tuple(sorted({device.thumbprint for device in devices}))


def test_seq_is_milliseconds_unless_given_and_license_ids_differ(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1_800_000_000_123_456_789)
    first, second = (verify_license(world.issue(), Trust([world.issuer.public]), now=NOW) for _ in range(2))
    assert first.seq == 1_800_000_000_123
    assert first.license_id != second.license_id
