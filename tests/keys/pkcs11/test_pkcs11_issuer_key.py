from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pkcs11
import pytest
from hsm_world import ED25519, PIN, Hsm, give
from license_world import SECRET, World
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass

from keylatch.errors import DeviceKeyError, OutputError
from keylatch.keys import (
    FileIssuerKey,
    Vault,
    generate_issuer_key,
    open_device_key,
    open_issuer_key,
    read_vault,
    write_vault,
)
from keylatch.keys._pkcs11._public_points import parse_device_point, parse_issuer_point

P256 = bytes.fromhex("06082a8648ce3d030107")
ED25519_OID = bytes.fromhex("06032b6570")


def opens(hsm: Hsm, label: str, **more: Any) -> Any:
    return open_issuer_key(hsm.uri(label, **more), passphrase=give())


def make_ed25519(hsm: Hsm, key: Any, label: str, **changes: Any) -> None:
    """An Ed25519 pair of another program: no HMAC key beside it."""
    arguments = {
        "key_type": KeyType.EC_EDWARDS,
        "parameters": ED25519,
        "mechanism": Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
        "capabilities": MechanismFlag.SIGN,
        **changes,
    }
    with key._token.writes() as session:
        hsm.make_pair(session, label, **arguments)


def test_a_license_signed_on_the_token_verifies_and_opens(issuer: Any, world: World) -> None:
    of_token = replace(world, issuer=issuer)
    license = of_token.issue()
    assert of_token.open(license.serialize())["gate.patch"].tobytes() == SECRET
    with pytest.raises(Exception, match="is signed by issuer"):
        world.open(license.serialize())


def test_signatures_are_rfc_8032_s(issuer: Any) -> None:
    for data in (b"", b"x", bytes(5000)):
        signature = issuer.sign(data)
        assert len(signature) == 64
        issuer.public.key.verify(signature, data)


def test_it_opens_again_as_the_same_key(issuer: Any, hsm: Hsm) -> None:
    opened = opens(hsm, "issuer")
    assert opened.public == issuer.public
    assert opened.vault_key() == issuer.vault_key()
    assert len(issuer.vault_key()) == 32


def test_a_vault_sealed_under_the_token_opens_under_it_alone(issuer: Any, hsm: Hsm, tmp_path: Path) -> None:
    vault = Vault({"lock": {"seed": np.arange(8, dtype=np.uint8)}})
    write_vault(tmp_path / "vault", vault, issuer=issuer)
    tensor = read_vault(tmp_path / "vault", issuer=opens(hsm, "issuer")).section("lock")["seed"]
    assert tensor.tolist() == list(range(8))
    other = generate_issuer_key(hsm.uri("second issuer"), passphrase=give())
    assert other.vault_key() != issuer.vault_key()
    for foreign in (other, FileIssuerKey.generate()):
        with pytest.raises(DeviceKeyError, match="sealed under issuer key"):
            read_vault(tmp_path / "vault", issuer=foreign)


def test_the_vault_key_depends_on_both_keys(issuer: Any, hsm: Hsm) -> None:
    # A second signing key with the first one's HMAC key: another vault key all the same.
    make_ed25519(hsm, issuer, "borrowing")
    borrowing = opens(hsm, "borrowing")
    borrowing._secret = issuer._secret
    assert borrowing.vault_key() != issuer.vault_key()


def test_neither_key_can_leave_the_token(issuer: Any) -> None:
    with issuer._token.calls():
        for key in (issuer._private, issuer._secret):
            expected = {
                Attribute.TOKEN: True, Attribute.PRIVATE: True, Attribute.SENSITIVE: True,
                Attribute.EXTRACTABLE: False, Attribute.NEVER_EXTRACTABLE: True, Attribute.SIGN: True,
                Attribute.DERIVE: False,
            }  # fmt: skip
            assert {attribute: key[attribute] for attribute in expected} == expected
            with pytest.raises(pkcs11.AttributeSensitive):
                key[Attribute.VALUE]


def test_the_three_objects_share_name_and_id(issuer: Any) -> None:
    with issuer._token.calls() as session:
        key_id = issuer._private[Attribute.ID]
        found = [(key.object_class, key[Attribute.ID]) for key in session.get_objects({Attribute.LABEL: "issuer"})]
    classes = {ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY, ObjectClass.SECRET_KEY}
    assert {object_class for object_class, _ in found} == classes
    assert {found_id for _, found_id in found} == {key_id}
    assert len(key_id) == 16


def test_a_key_made_elsewhere_signs_and_seals_no_vaults(issuer: Any, hsm: Hsm, tmp_path: Path) -> None:
    make_ed25519(hsm, issuer, "made elsewhere")
    key = opens(hsm, "made elsewhere")
    key.public.key.verify(key.sign(b"data"), b"data")
    with pytest.raises(DeviceKeyError, match="no HMAC key beside it") as caught:
        write_vault(tmp_path / "vault", Vault({"lock": {"seed": np.zeros(1, np.uint8)}}), issuer=key)
    assert "passphrase" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_a_signature_that_does_not_verify_is_not_given_out(issuer: Any, hsm: Hsm) -> None:
    key = opens(hsm, "issuer")
    key._public = FileIssuerKey.generate().public
    with pytest.raises(DeviceKeyError, match="does not verify") as caught:
        key.sign(b"data")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("label", "changes", "message"),
    [
        ("mute", {"capabilities": MechanismFlag.VERIFY}, "has no CKA_SIGN"),
        ("open", {"private_template": {Attribute.EXTRACTABLE: True}}, "can be read out of the token"),
    ],
)
def test_a_private_key_that_is_unfit_says_why(
    issuer: Any, hsm: Hsm, label: str, changes: dict[str, Any], message: str
) -> None:
    make_ed25519(hsm, issuer, label, **changes)
    with pytest.raises(DeviceKeyError, match=message) as caught:
        opens(hsm, label)
    assert caught.value.hint


def test_an_hmac_key_that_can_leave_is_refused(issuer: Any, hsm: Hsm) -> None:
    make_ed25519(hsm, issuer, "leaky", id=b"leaky")
    with issuer._token.writes() as session:
        session.generate_key(
            KeyType.GENERIC_SECRET, 256, id=b"leaky", store=True, capabilities=MechanismFlag.SIGN,
            template={Attribute.EXTRACTABLE: True},
        )  # fmt: skip
    with pytest.raises(DeviceKeyError, match="can be read out of the token"):
        opens(hsm, "leaky")


def test_device_and_issuer_keys_are_not_taken_for_each_other(issuer: Any, device: Any, hsm: Hsm) -> None:
    with pytest.raises(DeviceKeyError, match="is of type EC, expected EC_EDWARDS"):
        opens(hsm, "device")
    with pytest.raises(DeviceKeyError, match="is of type EC_EDWARDS, expected EC"):
        open_device_key(hsm.uri("issuer"))


def test_an_existing_key_is_never_replaced(issuer: Any, device: Any, hsm: Hsm) -> None:
    for label in ("issuer", "device"):
        with pytest.raises(OutputError, match="exists already"):
            generate_issuer_key(hsm.uri(label), passphrase=give())
    assert opens(hsm, "issuer").public == issuer.public


def test_a_pair_without_its_hmac_key_is_taken_away(issuer: Any, hsm: Hsm, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise pkcs11.DeviceMemory

    with monkeypatch.context() as patch:
        patch.setattr("keylatch.keys._pkcs11._issuer.generate_secret", fail)
        with pytest.raises(DeviceKeyError, match="no free session or memory"):
            generate_issuer_key(hsm.uri("half"), passphrase=give())
    with issuer._token.calls() as session:
        assert list(session.get_objects({Attribute.LABEL: "half"})) == []


def test_nothing_of_the_key_or_pin_is_shown_or_copied(issuer: Any) -> None:
    assert repr(issuer) == str(issuer) == f"TokenIssuerKey(thumbprint='{issuer.public.thumbprint}')"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds secrets"):
            attempt(issuer)
    assert PIN.decode() not in repr(issuer._token)


def test_a_closed_key_does_nothing(issuer: Any, hsm: Hsm) -> None:
    key = opens(hsm, "issuer")
    key.close()
    for use in (lambda: key.sign(b"x"), key.vault_key):
        with pytest.raises(DeviceKeyError, match="was closed"):
            use()


def test_points_are_read_wrapped_and_bare(issuer: Any, device: Any) -> None:
    raw = issuer.public.key.public_bytes_raw()
    for parameters in (ED25519, ED25519_OID):
        for point in (b"\x04\x20" + raw, raw):
            assert parse_issuer_point(parameters, point, "it") == issuer.public
    numbers = device.public.key.public_numbers()
    bare = b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    for point in (b"\x04\x41" + bare, bare):
        assert parse_device_point(P256, point, "it") == device.public


@pytest.mark.parametrize(
    "point", [b"", b"\x04", bytes(31), bytes(35), b"\x04\x21" + bytes(32), b"\x05\x20" + bytes(32)]
)
def test_damaged_points_are_refused(point: bytes) -> None:
    for parse, parameters in ((parse_issuer_point, ED25519), (parse_device_point, P256)):
        with pytest.raises(DeviceKeyError, match="damaged point") as caught:
            parse(parameters, point, "it")
        assert caught.value.hint
    with pytest.raises(DeviceKeyError, match="damaged point"):
        parse_device_point(P256, b"\x04" + bytes(63) + b"\x01", "it")
    for parse in (parse_issuer_point, parse_device_point):
        with pytest.raises(DeviceKeyError, match="on another curve"):
            parse(bytes.fromhex("06052b81040022"), bytes(32), "it")
