from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pkcs11
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
from hsm_world import P384, PIN, Asking, Hsm, give
from license_world import SECRET, World
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass

from keylatch.errors import DeviceKeyError, OutputError, PassphraseError
from keylatch.keys import SecretBytes, generate_device_key, open_device_key


def opens(hsm: Hsm, label: str, **more: Any) -> Any:
    return open_device_key(hsm.uri(label, **more), passphrase=give())


def test_twenty_exchanges_equal_those_in_software(device: Any) -> None:
    for _ in range(20):
        peer = generate_private_key(SECP256R1())
        shared = device.exchange(peer.public_key())
        assert shared == SecretBytes(peer.exchange(ECDH(), device.public.key))
        assert len(shared) == 32


def test_a_shared_secret_keeps_its_leading_zero(device: Any) -> None:
    while True:
        peer = generate_private_key(SECP256R1())
        expected = peer.exchange(ECDH(), device.public.key)
        if expected[0] == 0:
            break
    assert device.exchange(peer.public_key()).reveal() == expected


def test_a_secret_that_the_token_shortened_is_padded(device: Any, hsm: Hsm) -> None:
    key = opens(hsm, "device")
    key._private = Deriving(key._private, value=b"\x05" * 30)
    assert key.exchange(generate_private_key(SECP256R1()).public_key()).reveal() == bytes(2) + b"\x05" * 30


def test_a_peer_on_another_curve_is_refused(device: Any) -> None:
    with pytest.raises(DeviceKeyError, match="secp384r1, expected P-256") as caught:
        device.exchange(generate_private_key(SECP384R1()).public_key())
    assert caught.value.hint


class OffCurve:
    """What cryptography would never make: a point that is on no curve of ours."""

    curve = SECP256R1()

    def public_bytes(self, *arguments: object) -> bytes:
        return b"\x04" + bytes(31) + b"\x01" + bytes(31) + b"\x01"


def test_a_peer_off_the_curve_never_reaches_the_token(device: Any, hsm: Hsm) -> None:
    key = opens(hsm, "device")
    key._private = Deriving(key._private, derive=lambda *a, **k: pytest.fail("the token was asked"))
    with pytest.raises(DeviceKeyError, match="not a point on P-256") as caught:
        key.exchange(OffCurve())
    assert caught.value.hint


def test_possession_is_proved_by_an_es256_signature(device: Any) -> None:
    proof = device.prove_possession(b"statement")
    assert len(proof) == 64
    signature = encode_dss_signature(int.from_bytes(proof[:32], "big"), int.from_bytes(proof[32:], "big"))
    device.public.key.verify(signature, b"statement", ECDSA(SHA256()))
    with pytest.raises(InvalidSignature):
        device.public.key.verify(signature, b"another", ECDSA(SHA256()))


def test_a_license_opens_with_it(device: Any, world: World) -> None:
    license = world.issue(devices=[device.public])
    assert world.open(license.serialize(), device)["gate.patch"].tobytes() == SECRET


def private_object(key: Any) -> Any:
    return key._private


def test_the_private_key_cannot_leave_the_token(device: Any) -> None:
    with device._token.calls():
        private = private_object(device)
        expected = {
            Attribute.TOKEN: True, Attribute.PRIVATE: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False,
            Attribute.ALWAYS_SENSITIVE: True, Attribute.NEVER_EXTRACTABLE: True, Attribute.LOCAL: True,
            Attribute.DERIVE: True, Attribute.SIGN: True, Attribute.DECRYPT: False, Attribute.UNWRAP: False,
        }  # fmt: skip
        assert {attribute: private[attribute] for attribute in expected} == expected
        with pytest.raises(pkcs11.AttributeSensitive):
            private[Attribute.VALUE]


def test_the_public_key_object_says_what_public_says(device: Any) -> None:
    with device._token.calls() as session:
        (found,) = session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.LABEL: "device"})
        numbers = device.public.key.public_numbers()
        point = b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
        assert found[Attribute.EC_POINT] == b"\x04\x41" + point


def session_objects(key: Any) -> list[Any]:
    with key._token.calls() as session:
        return list(session.get_objects({Attribute.TOKEN: False}))


class Deriving:
    """A private key whose derived secrets are real, and fail or lie when read."""

    def __init__(self, real: Any, value: bytes | None = None, derive: Any = None) -> None:
        self.real, self.value, self.derive = real, value, derive

    def derive_key(self, *arguments: Any, **more: Any) -> Any:
        if self.derive:
            return self.derive(*arguments, **more)
        return Unreadable(self.real.derive_key(*arguments, **more), self.value)


class Unreadable:
    def __init__(self, real: Any, value: bytes | None) -> None:
        self.real, self.value = real, value

    def __getitem__(self, attribute: Any) -> bytes:
        if self.value is None:
            raise pkcs11.FunctionFailed
        return self.value

    def destroy(self) -> None:
        self.real.destroy()


def test_no_derived_secret_stays_behind(device: Any, hsm: Hsm) -> None:
    peer = generate_private_key(SECP256R1()).public_key()
    before = session_objects(device)
    device.exchange(peer)
    assert session_objects(device) == before
    failing = opens(hsm, "device")
    failing._private = Deriving(failing._private)
    with pytest.raises(DeviceKeyError, match="FunctionFailed"):
        failing.exchange(peer)
    assert session_objects(device) == before


def test_several_threads_may_use_one_key(device: Any) -> None:
    def work(_: int) -> bool:
        peer = generate_private_key(SECP256R1())
        device.prove_possession(b"statement")
        return bool(device.exchange(peer.public_key()) == SecretBytes(peer.exchange(ECDH(), device.public.key)))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(100)))


def test_calls_into_the_module_come_one_at_a_time(device: Any, hsm: Hsm) -> None:
    # Another key of the same token, as the module's own locks are off: see Module.calls.
    other, started = opens(hsm, "device"), threading.Event()
    done: list[bool] = []

    def exchange() -> None:
        started.set()
        other.exchange(device.public.key)
        done.append(True)

    thread = threading.Thread(target=exchange)
    with device._token.calls():
        thread.start()
        assert started.wait(10)
        thread.join(0.1)
        assert not done
    thread.join(10)
    assert done


def test_it_opens_by_label_by_id_or_by_both(device: Any, hsm: Hsm) -> None:
    with device._token.calls():
        key_id = "".join(f"%{byte:02X}" for byte in private_object(device)[Attribute.ID])
    by_id = f"pkcs11:token=keys;id={key_id}?module-path={hsm.module}"
    assert open_device_key(by_id).public == device.public
    assert opens(hsm, "device", more=f";id={key_id}").public == device.public
    with pytest.raises(DeviceKeyError, match="does not exist"):
        opens(hsm, "device", more=";id=%01")


def test_it_opens_by_slot_and_by_serial(device: Any, hsm: Hsm) -> None:
    token = hsm.token()
    for name in (f"slot-id={token.slot.slot_id}", f"serial={token.serial.decode()}"):
        assert open_device_key(f"pkcs11:{name};object=device?module-path={hsm.module}").public == device.public


def test_a_module_under_another_name_is_the_same_module(device: Any, hsm: Hsm, tmp_path: Any) -> None:
    (tmp_path / "link.so").symlink_to(hsm.module)
    assert (
        open_device_key(f"pkcs11:token=keys;object=device?module-path={tmp_path / 'link.so'}").public == device.public
    )


def test_nothing_of_the_key_or_pin_is_shown_or_copied(device: Any) -> None:
    assert repr(device) == str(device) == f"TokenDeviceKey(thumbprint='{device.public.thumbprint}')"
    for secret_holder in (device, device._token):
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="holds secrets"):
                attempt(secret_holder)
        assert PIN.decode() not in repr(secret_holder)


def test_an_existing_name_or_id_is_never_replaced(device: Any, hsm: Hsm) -> None:
    with device._token.calls():
        key_id = "".join(f"%{byte:02X}" for byte in private_object(device)[Attribute.ID])
    for uri in (
        hsm.uri("device"),
        hsm.uri("device", more=";id=%09"),
        hsm.uri("new name", more=f";id={key_id}"),
        f"pkcs11:token=keys;id={key_id}?module-path={hsm.module}",
    ):
        with pytest.raises(OutputError, match="exists already") as caught:
            generate_device_key(uri, passphrase=give())
        assert caught.value.hint
    assert opens(hsm, "device").public == device.public


def test_a_lone_public_key_is_not_joined_by_a_new_private_one(device: Any, hsm: Hsm) -> None:
    with device._token.writes() as session:
        _, private = hsm.make_pair(session, "lone public")
        private.destroy()
    with pytest.raises(OutputError, match="exists already, as a public key"):
        generate_device_key(hsm.uri("lone public"), passphrase=give())


def test_a_key_made_by_id_alone_has_an_empty_label(hsm: Hsm) -> None:
    uri = f"pkcs11:token=keys;id=%AB%CD?module-path={hsm.module}"
    made = generate_device_key(uri, passphrase=give())
    assert open_device_key(uri, passphrase=give()).public == made.public


def objects(key: Any, label: str) -> list[Any]:
    with key._token.calls() as session:
        return list(session.get_objects({Attribute.LABEL: label}))


def test_a_key_that_does_not_open_after_it_was_made_is_taken_away(
    device: Any, hsm: Hsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise DeviceKeyError("as if the token had ignored its orders", hint="none")

    with monkeypatch.context() as patch:
        patch.setattr("keylatch.keys._pkcs11._device.parse_device_point", fail)
        with pytest.raises(DeviceKeyError, match="ignored its orders"):
            generate_device_key(hsm.uri("taken away"), passphrase=give())
    assert objects(device, "taken away") == []
    generate_device_key(hsm.uri("taken away"), passphrase=give())
    assert len(objects(device, "taken away")) == 2


def confined(**more: Any) -> dict[str, Any]:
    return {"private_template": {Attribute.EXTRACTABLE: False, **more.pop("template", {})}, **more}


UNFIT = {
    "no derive": (confined(capabilities=MechanismFlag.SIGN), "has no CKA_DERIVE"),
    "extractable": ({"private_template": {Attribute.EXTRACTABLE: True}}, "can be read out of the token"),
    "not sensitive": (confined(template={Attribute.SENSITIVE: False}), "can be read out of the token"),
    "always asks": (confined(template={Attribute.ALWAYS_AUTHENTICATE: True}), "asks for the PIN at every use"),
    "other curve": (confined(parameters=P384), "another curve, expected P-256"),
}


@pytest.mark.parametrize("label", UNFIT)
def test_a_private_key_that_is_unfit_says_why(device: Any, hsm: Hsm, label: str) -> None:
    with device._token.writes() as session:
        hsm.make_pair(session, label, **UNFIT[label][0])
    with pytest.raises(DeviceKeyError, match=UNFIT[label][1]) as caught:
        opens(hsm, label)
    assert caught.value.hint


def test_a_key_that_may_not_sign_opens_and_proves_nothing(device: Any, hsm: Hsm) -> None:
    with device._token.writes() as session:
        hsm.make_pair(session, "no sign", capabilities=MechanismFlag.DERIVE)
    key = opens(hsm, "no sign")
    assert len(key.exchange(device.public.key)) == 32
    with pytest.raises(DeviceKeyError, match="has no CKA_SIGN") as caught:
        key.prove_possession(b"statement")
    assert caught.value.hint


def test_an_rsa_key_is_refused(device: Any, hsm: Hsm) -> None:
    with device._token.writes() as session:
        session.generate_keypair(KeyType.RSA, 1024, store=True, label="rsa", mechanism=Mechanism.RSA_PKCS_KEY_PAIR_GEN)
    with pytest.raises(DeviceKeyError, match="is of type RSA, expected EC"):
        opens(hsm, "rsa")


def test_a_private_key_alone_says_what_is_missing(device: Any, hsm: Hsm) -> None:
    with device._token.writes() as session:
        public, _ = hsm.make_pair(session, "alone")
        public.destroy()
    with pytest.raises(DeviceKeyError, match="no public one beside it") as caught:
        opens(hsm, "alone")
    assert caught.value.hint


def test_a_foreign_public_key_object_is_found_out(device: Any, hsm: Hsm) -> None:
    with device._token.writes() as session:
        public, _ = hsm.make_pair(session, "swapped", id=b"swapped")
        foreign, _ = hsm.make_pair(session, "foreign", id=b"foreign")
        public.destroy()
        foreign[Attribute.ID] = b"swapped"
    with pytest.raises(DeviceKeyError, match="a public key that is not its own") as caught:
        opens(hsm, "swapped")
    assert caught.value.hint


def test_several_matching_objects_are_counted_and_none_is_taken(device: Any, hsm: Hsm) -> None:
    with device._token.writes() as session:
        hsm.make_pair(session, "double", id=b"1")
        hsm.make_pair(session, "double", id=b"2")
    with pytest.raises(DeviceKeyError, match="2 private key objects match key double") as caught:
        opens(hsm, "double")
    assert "id=" in str(caught.value.hint)
    assert opens(hsm, "double", more=";id=1").public != opens(hsm, "double", more=";id=2").public
    with device._token.writes() as session:
        hsm.make_pair(session, "third", id=b"1")[1].destroy()
    with pytest.raises(DeviceKeyError, match="2 public key objects match"):
        opens(hsm, "double", more=";id=1")


def test_a_pin_is_asked_for_once_while_a_key_of_the_token_is_open(hsm: Hsm) -> None:
    asking = Asking()
    generate_device_key(hsm.uri("asked", token="spare"), passphrase=asking)
    assert asking.asked == ["PIN of token spare"]
    first = open_device_key(hsm.uri("asked", token="spare"), passphrase=asking)
    second = open_device_key(hsm.uri("asked", token="spare"), passphrase=asking)
    assert len(asking.asked) == 2
    first.close()  # type: ignore[attr-defined]
    assert len(second.exchange(second.public.key)) == 32


def test_the_last_key_to_close_logs_out(hsm: Hsm, device: Any) -> None:
    first = generate_device_key(hsm.uri("closing", token="spare"), passphrase=give())
    second: Any = open_device_key(hsm.uri("closing", token="spare"))
    first.close()  # type: ignore[attr-defined]
    first.close()  # type: ignore[attr-defined]
    with pytest.raises(DeviceKeyError, match="was closed") as caught:
        first.exchange(device.public.key)
    assert caught.value.hint
    second.exchange(device.public.key)
    second.close()
    with pytest.raises(PassphraseError):
        open_device_key(hsm.uri("closing", token="spare"))


def test_a_collected_key_logs_out(hsm: Hsm) -> None:
    key: Any = generate_device_key(hsm.uri("collected", token="spare"), passphrase=give())
    del key
    gc.collect()
    with pytest.raises(PassphraseError):
        open_device_key(hsm.uri("collected", token="spare"))


def test_a_failed_opening_leaves_no_login_behind(hsm: Hsm) -> None:
    with pytest.raises(DeviceKeyError, match="does not exist") as caught:
        opens(hsm, "nothing", token="spare")
    assert caught.value.__traceback__
    with pytest.raises(PassphraseError):
        open_device_key(hsm.uri("nothing", token="spare"))


def test_a_login_of_other_code_is_joined_and_left_alone(hsm: Hsm, device: Any) -> None:
    generate_device_key(hsm.uri("joined", token="spare"), passphrase=give()).close()  # type: ignore[attr-defined]
    with hsm.token("spare").open(user_pin=PIN.decode()) as session:
        key = opens(hsm, "joined", token="spare")
        key.exchange(device.public.key)
        key.close()
        private = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: "joined"}
        assert len(list(session.get_objects(private))) == 1


def test_a_login_that_other_code_ends_is_an_error_that_says_so(hsm: Hsm, device: Any) -> None:
    generate_device_key(hsm.uri("ended", token="spare"), passphrase=give()).close()  # type: ignore[attr-defined]
    with hsm.token("spare").open(user_pin=PIN.decode()):
        key = opens(hsm, "ended", token="spare")
    with pytest.raises(DeviceKeyError, match="behind this key's back") as caught:
        key.exchange(device.public.key)
    assert caught.value.hint
    key.close()
    assert opens(hsm, "ended", token="spare").public == key.public


FORK = """
import os, sys
from keylatch.errors import DeviceKeyError
from keylatch.keys import generate_device_key, open_device_key
uri = sys.argv[1]
key = generate_device_key(uri, passphrase=lambda what: sys.argv[2].encode())
child = os.fork()
if child == 0:
    for attempt in (lambda: key.exchange(key.public.key), lambda: key.prove_possession(b"x"),
                    lambda: open_device_key(uri)):
        try:
            attempt()
            print("worked")
        except DeviceKeyError as error:
            print(error)
    key.close()
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
key.exchange(key.public.key)
print("parent works")
"""


def test_a_forked_process_is_refused_and_its_parent_is_not(hsm: Hsm) -> None:
    command = [sys.executable, "-c", FORK, hsm.uri("forked", token="spare"), PIN.decode()]
    shown = subprocess.run(command, env=hsm.environment, capture_output=True, text=True, check=True).stdout
    assert shown.count("was loaded before this process was forked\n  hint: ") == 3
    assert "worked" not in shown
    assert shown.endswith("parent works\n")


def test_without_python_pkcs11_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['pkcs11'] = None\n"
        "from keylatch.errors import MissingExtraError\n"
        "from keylatch.keys import open_device_key\n"
        "try: open_device_key('pkcs11:')\n"
        "except MissingExtraError as error: print(error)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "needs pkcs11, which is not installed\n  hint: pip install 'keylatch[pkcs11]'" in shown
