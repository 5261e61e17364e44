from __future__ import annotations

import copy
import pickle
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    ECDSA,
    SECP256R1,
    SECP384R1,
    EllipticCurvePublicNumbers,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from license_world import SECRET, World
from tpm_bus import interposed
from tpm_world import CREATE_PRIMARY, SRK_TEMPLATE, Simulator, give, location

from keylatch.errors import DeviceKeyError, KeylatchError, OutputError, PassphraseError
from keylatch.keys import SecretBytes, generate_device_key, open_device_key
from keylatch.keys._tpm import TpmDeviceKey
from keylatch.keys._tpm._connection import CONTINUE_SESSION, connected, flushed
from keylatch.keys._tpm._key_file import TpmKeyFile
from keylatch.keys._tpm._location import TpmAccess
from keylatch.keys._tpm._response_codes import TpmResponseError
from keylatch.keys._tpm._session import hmac_session
from keylatch.keys._tpm._storage_root import storage_root
from keylatch.keys._tpm._structures import padded_coordinate
from tools import require_module


def make(tpm: Simulator, backend: str, path: Path, pin: bytes | None = None, **options: str) -> TpmDeviceKey:
    uri = "tpm:" + location(tpm, backend, path, **options)
    key = generate_device_key(uri, passphrase=None if pin is None else give(pin))
    assert isinstance(key, TpmDeviceKey)
    return key


def agrees(key: TpmDeviceKey) -> bool:
    peer = generate_private_key(SECP256R1())
    return key.exchange(peer.public_key()) == SecretBytes(peer.exchange(ECDH(), key.public.key))


@pytest.fixture
def key(tpm: Simulator, backend: str, tmp_path: Path) -> TpmDeviceKey:
    return make(tpm, backend, tmp_path / "device.tpm")


def test_both_sides_of_an_exchange_agree_for_20_peers(key: TpmDeviceKey) -> None:
    assert all(agrees(key) for _ in range(20))


def test_what_a_tpm_leaves_out_in_front_is_filled_with_zeros() -> None:
    assert padded_coordinate(b"\x01\x02") == bytes(30) + b"\x01\x02"
    with pytest.raises(KeylatchError, match="33 bytes"):
        padded_coordinate(bytes(33))


def test_a_reopened_key_is_the_same_key(key: TpmDeviceKey, tpm: Simulator, backend: str, tmp_path: Path) -> None:
    reopened = open_device_key("tpm:" + location(tpm, backend, tmp_path / "device.tpm"))
    assert reopened.public == key.public
    peer = generate_private_key(SECP256R1()).public_key()
    assert reopened.exchange(peer) == key.exchange(peer)


@pytest.mark.parametrize("other", ["pytss", "esys"])
def test_a_key_made_through_one_library_opens_through_the_other(
    key: TpmDeviceKey, tpm: Simulator, backend: str, other: str, tmp_path: Path
) -> None:
    if other == "pytss":
        require_module("tpm2_pytss", extra="tpm")
    reopened = open_device_key("tpm:" + location(tpm, other, tmp_path / "device.tpm"))
    assert isinstance(reopened, TpmDeviceKey) and agrees(reopened) and reopened.public == key.public


def test_a_key_survives_a_restart_of_its_tpm(own_tpm: Simulator, backend: str, tmp_path: Path) -> None:
    public = make(own_tpm, backend, tmp_path / "device.tpm", b"4711").public
    own_tpm.stop()
    own_tpm.start()
    reopened = open_device_key("tpm:" + location(own_tpm, backend, tmp_path / "device.tpm"), passphrase=give(b"4711"))
    assert isinstance(reopened, TpmDeviceKey) and agrees(reopened) and reopened.public == public


def test_possession_is_proved_by_an_es256_signature(key: TpmDeviceKey) -> None:
    for statement in (b"", b"enrollment", bytes(100_000)):
        proof = key.prove_possession(statement)
        r, s = (int.from_bytes(half, "big") for half in (proof[:32], proof[32:]))
        assert len(proof) == 64
        key.public.key.verify(encode_dss_signature(r, s), statement, ECDSA(SHA256()))


def test_a_license_issued_to_the_tpm_opens(key: TpmDeviceKey, world: World) -> None:
    license = world.issue(devices=[world.device.public, key.public])
    assert world.open(license.serialize(), device=key)["gate.patch"].tobytes() == SECRET


def test_a_key_with_a_pin_is_used_with_it(tpm: Simulator, backend: str, tmp_path: Path) -> None:
    made = make(tpm, backend, tmp_path / "device.tpm", b"correct horse")
    assert agrees(made)
    asked: list[str] = []

    def ask(description: str) -> bytes:
        asked.append(description)
        return b"correct horse"

    reopened = open_device_key("tpm:" + location(tpm, backend, tmp_path / "device.tpm"), passphrase=ask)
    assert isinstance(reopened, TpmDeviceKey) and agrees(reopened)
    assert len(reopened.prove_possession(b"x")) == 64
    assert asked == [f"TPM key file {tmp_path / 'device.tpm'}"]
    with pytest.raises(PassphraseError, match="needs a PIN"):
        open_device_key("tpm:" + location(tpm, backend, tmp_path / "device.tpm"))


@pytest.mark.parametrize("pin", [b"", b"x" * 33, b"1234\0"])
def test_a_pin_that_the_tpm_would_cut_is_refused(tpm: Simulator, backend: str, tmp_path: Path, pin: bytes) -> None:
    with pytest.raises(PassphraseError) as caught:
        make(tpm, backend, tmp_path / "device.tpm", pin)
    assert caught.value.hint and list(tmp_path.iterdir()) == []


def test_two_threads_use_one_key_at_the_same_time(key: TpmDeviceKey) -> None:
    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(lambda _: agrees(key), range(16)))


def test_fifty_opens_and_exchanges_leave_nothing_in_the_tpm(
    key: TpmDeviceKey, tpm: Simulator, backend: str, tmp_path: Path
) -> None:
    peer = generate_private_key(SECP256R1()).public_key()
    for _ in range(50):
        open_device_key("tpm:" + location(tpm, backend, tmp_path / "device.tpm")).exchange(peer)
        assert tpm.held() == []


def test_a_kept_storage_root_key_is_used_and_not_made_again(own_tpm: Simulator, backend: str, tmp_path: Path) -> None:
    transient = own_tpm.create_primary()
    own_tpm.keep(transient, 0x81000001)
    own_tpm.flush(transient)
    with interposed(own_tpm) as bus:
        uri = f"{tmp_path / 'device.tpm'}?tcti={bus.tcti}&backend={backend}"
        generate_device_key(f"tpm:{uri}").exchange(generate_private_key(SECP256R1()).public_key())
        assert bus.commands and CREATE_PRIMARY not in bus.codes
    assert isinstance(
        key := open_device_key("tpm:" + location(own_tpm, backend, tmp_path / "device.tpm")), TpmDeviceKey
    )
    assert agrees(key)


def test_another_key_at_the_storage_root_s_handle_is_passed_over(
    own_tpm: Simulator, backend: str, tmp_path: Path
) -> None:
    key = make(own_tpm, backend, tmp_path / "device.tpm")
    # TPMA_OBJECT without noDA: a storage key, but not the one of the template.
    transient = own_tpm.create_primary(SRK_TEMPLATE.replace(b"\x00\x03\x04\x72", b"\x00\x03\x00\x72"))
    own_tpm.keep(transient, 0x81000001)
    own_tpm.flush(transient)
    assert agrees(key)
    assert agrees(make(own_tpm, backend, tmp_path / "second.tpm"))
    first, second = (TpmKeyFile.load(tmp_path / name) for name in ("device.tpm", "second.tpm"))
    assert first.parent == second.parent


def test_the_key_is_made_as_it_must_be(tpm: Simulator, backend: str, tmp_path: Path) -> None:
    for pin, attributes in ((None, 0x000604B2), (b"1", 0x000600B2)):
        path = tmp_path / f"{attributes}.tpm"
        make(tpm, backend, path, pin)
        # ECC, SHA-256; fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, decrypt, sign; noDA without PIN.
        assert TpmKeyFile.load(path).public[2:10] == bytes.fromhex("0023000b") + attributes.to_bytes(4, "big")


def test_the_key_file_is_public_and_never_overwritten(tpm: Simulator, backend: str, tmp_path: Path) -> None:
    path = tmp_path / "device.tpm"
    make(tpm, backend, path)
    before = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    with pytest.raises(OutputError, match="exists already"):
        make(tpm, backend, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_representations_show_the_thumbprint_only(tpm: Simulator, backend: str, tmp_path: Path) -> None:
    key = make(tpm, backend, tmp_path / "device.tpm", b"4711")
    assert repr(key) == str(key) == f"TpmDeviceKey(thumbprint='{key.public.thumbprint}')"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds secrets"):
            leak(key)


def test_a_peer_on_another_curve_is_refused(key: TpmDeviceKey) -> None:
    with pytest.raises(DeviceKeyError, match="secp384r1, expected P-256"):
        key.exchange(generate_private_key(SECP384R1()).public_key())


class OffCurve:
    """What `cryptography` never gives: a public key that is no point of its curve."""

    curve = SECP256R1()

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def public_numbers(self) -> EllipticCurvePublicNumbers:
        return EllipticCurvePublicNumbers(self.x, self.y, self.curve)


@pytest.mark.parametrize(("x", "y"), [(1, 1), (0, 0), (5, 2**256 - 1)])
def test_a_peer_off_the_curve_is_refused_by_the_tpm(key: TpmDeviceKey, x: int, y: int) -> None:
    with pytest.raises(DeviceKeyError, match="the TPM refuses") as caught:
        key.exchange(OffCurve(x, y))  # type: ignore[arg-type]
    assert type(caught.value) is DeviceKeyError and caught.value.hint
    assert agrees(key)


def test_the_policy_is_all_that_authorizes_the_key(tpm: Simulator, backend: str, tmp_path: Path) -> None:
    make(tpm, backend, tmp_path / "device.tpm")
    file = TpmKeyFile.load(tmp_path / "device.tpm")
    with (
        connected(TpmAccess(tpm.tcti, backend)) as connection,
        storage_root(connection, file.parent) as root,
        flushed(connection, connection.load(root, file.private, file.public)) as loaded,
        hmac_session(connection, root) as session,
    ):
        connection.set_attributes(session, CONTINUE_SESSION)
        # TPM_RC_AUTH_UNAVAILABLE: no password, the empty one included.
        with pytest.raises(TpmResponseError, match="0x0000012f"):
            connection.sign(loaded, session, bytes(32))
