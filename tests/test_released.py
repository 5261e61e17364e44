"""Files that a release once wrote are read for ever, byte for byte as they are; see released/README.md."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keylatch.errors import CosignatureError, KeylatchError, WrongDeviceError
from keylatch.keys import (
    CosignerKey,
    DeviceState,
    FileDeviceKey,
    FileIssuerKey,
    Trust,
    open_device_key,
    open_issuer_key,
    parse_license,
    read_license,
    read_revocation_list,
    read_time_token,
    read_vault,
    verify_license,
    verify_revocation_list,
)
from keylatch.keys._enrollment import load_device, load_enrollment
from keylatch.keys._time_token import TimeRequest, verify_time_token
from keylatch.runtime import InferenceSession, read_manifest

RELEASED = Path(__file__).parent / "released"
PASSPHRASE = b"released files, version 1"
MADE_AT = 1_795_132_800
REVOKED = {"0b5fc0a5-8b7d-4f55-9d0a-0d0c1f6f3b11", "e2a9d7c4-15a3-4b0e-8f43-7c1d2b9a6e50"}
PRIVATE = {".key", ".secret", ".state"}

# License, the keys that open it, and what the device trusts.
LICENSES = [
    ("acme.license", "device.key", "issuer.pub"),
    ("cosigned.license", "device.key", "acme.trust"),
    ("cosigned.license", "hybrid:hybrid.key", "acme.trust"),
    ("cosigned.license", "hybrid:hybrid.key", "issuer.pub"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of version 1, to stand in: git keeps no modes, and a key that others can read is refused."""
    copy = tmp_path / "1"
    shutil.copytree(RELEASED / "1", copy)
    for path in copy.rglob("*"):
        if path.suffix in PRIVATE:
            path.chmod(0o600)
    monkeypatch.chdir(copy)
    return copy


def _same(output: np.ndarray, expected: np.ndarray) -> bool:
    """To a ten-thousandth of the range: what made the file may have added in another order."""
    return output.shape == expected.shape and bool(np.abs(output - expected).max() <= 1e-4 * np.ptp(expected))


def _run(session: InferenceSession, folder: Path) -> np.ndarray:
    declared = session.manifest.model["input"]
    mean, std = (np.float64(declared[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    images = (np.load(folder / "pixels.npy") / 255 - mean) / std
    output: np.ndarray = session.run(None, {declared["name"]: images.astype(np.float32)})[0]
    return output


def test_no_byte_was_changed() -> None:
    for version in (path for path in RELEASED.iterdir() if path.name.isdigit()):
        listed = dict(line.split("  ", 1)[::-1] for line in (version / "SHA256SUMS").read_text().splitlines())
        found = {
            str(path.relative_to(version)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in version.rglob("*")
            if path.is_file() and path.name != "SHA256SUMS"
        }
        assert found == listed


def test_the_list_of_digests_is_the_one_that_was_released() -> None:
    digest = hashlib.sha256((RELEASED / "1" / "SHA256SUMS").read_bytes()).hexdigest()
    assert digest == "07d8e5798167ec4dd44fac7afc585fdea23e0ae8fbca43b38bd1c868a404551a"


@pytest.mark.parametrize(("license", "key", "trust"), LICENSES)
def test_a_license_opens_the_model(folder: Path, license: str, key: str, trust: str) -> None:
    session = InferenceSession("tiny.latch", license=license, key=key, trust=trust)
    assert _same(_run(session, folder), np.load(folder / "keyed.npy"))
    assert session.claims is not None and session.claims.customer == "Ångström AB"


def test_without_a_license_the_model_runs_locked(folder: Path) -> None:
    locked = np.load(folder / "locked.npy")
    assert _same(_run(InferenceSession.locked("tiny.latch"), folder), locked)
    assert not _same(locked, np.load(folder / "keyed.npy"))


def test_a_device_remembers_what_the_state_says(folder: Path) -> None:
    session = InferenceSession(
        "tiny.latch", license="cosigned.license", key="device.key", trust="acme.trust", state="device.state"
    )
    assert _same(_run(session, folder), np.load(folder / "keyed.npy"))
    with pytest.raises(KeylatchError, match="this device has seen seq 2"):
        InferenceSession(
            "tiny.latch", license="acme.license", key="device.key", trust="issuer.pub", state="device.state"
        )


def test_licenses_are_refused_where_they_should_be(folder: Path) -> None:
    with pytest.raises(CosignatureError):
        InferenceSession("tiny.latch", license="acme.license", key="device.key", trust="acme.trust")
    with pytest.raises(WrongDeviceError):
        InferenceSession("tiny.latch", license="acme.license", key="hybrid:hybrid.key", trust="issuer.pub")


@pytest.mark.parametrize("name", ["acme.license", "cosigned.license"])
def test_a_license_is_written_as_it_was_read(name: str) -> None:
    data = (RELEASED / "1" / name).read_bytes()
    assert parse_license(data).serialize() == data


def test_claims_are_read(folder: Path) -> None:
    claims = verify_license(read_license("cosigned.license"), Trust.load("acme.trust"), now=MADE_AT)
    assert claims.model_id == read_manifest(folder / "tiny.latch")[1]
    assert (claims.seq, claims.issued_at, claims.expires_at) == (2, MADE_AT, 253_402_300_799)
    assert set(claims.devices) == {load_device(name).thumbprint for name in ("device.pub", "hybrid.pub")}


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("issuer.secret", lambda: {"issuer": FileIssuerKey.load("issuer.key")}),
        ("passphrase.secret", lambda: {"passphrase": lambda _: PASSPHRASE}),
    ],
)
def test_a_vault_opens(folder: Path, name: str, way: Callable[[], dict[str, Any]]) -> None:
    vault = read_vault(name, **way())
    manifest, model_id = read_manifest(folder / "tiny.latch")
    assert set(vault.sections) == {"lock", model_id}
    values = vault.section(model_id)
    for tensor in manifest.gate:
        assert (values[tensor.name].dtype.name, values[tensor.name].shape) == (tensor.dtype, tensor.shape)
    assert vault.section("lock")


def test_keys_fit_their_public_halves(folder: Path) -> None:
    for private, public in {"device.key": "device.pub", "hybrid:hybrid.key": "hybrid.pub"}.items():
        assert open_device_key(private).public.thumbprint == load_device(public).thumbprint
    sealed = FileDeviceKey.load("sealed.key", lambda _: PASSPHRASE)
    assert sealed.public.thumbprint == load_device("sealed.pub").thumbprint
    (issuer,) = Trust.load("issuer.pub").issuers
    (cosigner,) = Trust.load("cosigner.pub").cosigners
    assert open_issuer_key("issuer.key").public.thumbprint == issuer.thumbprint
    assert CosignerKey.load("cosigner.key", lambda _: PASSPHRASE).public.thumbprint == cosigner.thumbprint
    trust = Trust.load("acme.trust")
    assert (trust.active_issuers, trust.cosigners) == ((issuer,), (cosigner,))
    assert list(trust.until.values()) == [MADE_AT]


def test_a_revocation_list_is_read(folder: Path) -> None:
    listed = verify_revocation_list(read_revocation_list("acme.revocations"), Trust.load("acme.trust"))
    assert (listed.seq, listed.issued_at, listed.max_age) == (1, MADE_AT, 86_400)
    assert listed.license_ids == REVOKED


def test_an_enrollment_request_is_read(folder: Path) -> None:
    public, facts = load_enrollment("request.json")
    assert (public, facts) == (load_device("device.pub"), {"hostname": "edge-7"})


def test_a_time_token_answers_its_request(folder: Path) -> None:
    request, trust = TimeRequest.load("time.request"), Trust.load("acme.trust")
    assert verify_time_token(read_time_token("time.token"), trust, request).issued_at == MADE_AT
    state = DeviceState.open("device.state", FileDeviceKey.load("device.key"))
    assert state.time_request() == request
    state.apply_time_token(read_time_token("time.token"), trust, now=MADE_AT + 60)
    assert state.time_request() != request
