"""What can be put in the place of something else, each against a whole session, each with an error of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runtime_world import DAY, LockedModel, same, unpadded

from keylatch.errors import (
    CosignatureError,
    DigestError,
    FormatError,
    KeylatchError,
    LicensePartsError,
    LicenseRevokedError,
    OlderLicenseError,
    OlderRevocationListError,
    SignatureError,
    StaleRevocationListError,
    StateEditedError,
    WrongDeviceError,
    WrongModelError,
)
from keylatch.keys import (
    CosignerKey,
    DeviceState,
    License,
    TimeRequest,
    Trust,
    current_time,
    read_claims_unverified,
    sign_revocation_list,
    sign_time_token,
)
from keylatch.runtime import GATE_NAME, GRAPH_NAME, MANIFEST_NAME, WEIGHTS_NAME

Attack = Callable[[LockedModel, Path], dict[str, Any]]
"""Changes the model's files, or returns what is given in the place of the right things."""


def list_of(model: LockedModel, *ids: str, seq: int = 9, age: int = 0) -> bytes:
    at = current_time() - age
    return sign_revocation_list(issuer=model.issuer, seq=seq, license_ids=ids, issued_at=at, max_age=DAY)


def with_header(model: LockedModel, **changes: Any) -> dict[str, Any]:
    license = model.license()
    return {"license": replace(license, jwt=model.sign(model.header() | changes, model.payload(license)))}


def unsigned(model: LockedModel, algorithm: str, signature: bytes) -> dict[str, Any]:
    license = model.license()
    header = unpadded(json.dumps(model.header() | {"alg": algorithm}).encode())
    return {"license": replace(license, jwt=b".".join((header, license.jwt.split(b".")[1], signature)))}


def repeated_key(model: LockedModel) -> dict[str, Any]:
    license = model.license()
    payload = json.dumps(model.payload(license)).replace('"exp":', '"exp": 253402300799, "exp":', 1)
    signed = unpadded(json.dumps(model.header()).encode()) + b"." + unpadded(payload.encode())
    return {"license": replace(license, jwt=signed + b"." + unpadded(model.issuer.sign(signed)))}


def remembered(model: LockedModel, folder: Path, **seen: Any) -> Path:
    state = folder / "device.state"
    DeviceState.create(state, model.device, now=current_time())
    model.open(state=state, **seen)
    return state


def older_license(model: LockedModel, folder: Path) -> dict[str, Any]:
    return {"license": model.license(seq=1), "state": remembered(model, folder, license=model.license(seq=2))}


def older_list(model: LockedModel, folder: Path) -> dict[str, Any]:
    state = remembered(model, folder, revocations=list_of(model, seq=2))
    return {"revocations": list_of(model, seq=1), "state": state}


def revoked(model: LockedModel, _folder: Path) -> dict[str, Any]:
    license = model.license()
    return {"license": license, "revocations": list_of(model, read_claims_unverified(license).license_id)}


def foreign_state(model: LockedModel, folder: Path) -> dict[str, Any]:
    DeviceState.create(folder / "device.state", model.foreign_device, now=current_time())
    return {"state": folder / "device.state"}


def cosigned(model: LockedModel, edit: Callable[[License, License], License]) -> dict[str, Any]:
    cosigner = CosignerKey.generate()
    first, second = (model.license(cosigner=cosigner) for _ in range(2))
    return {"license": edit(first, second), "trust": Trust((model.issuer.public,), (cosigner.public,))}


def exchange_cosignatures(first: License, second: License) -> License:
    return replace(first, jwt=first.jwt.split(b"~")[0] + b"~" + second.jwt.split(b"~")[1])


def edit_file(name: str, edit: Callable[[bytes], bytes]) -> Attack:
    def attack(model: LockedModel, _folder: Path) -> dict[str, Any]:
        path = model.path / name
        path.write_bytes(edit(path.read_bytes()))
        return {}

    return attack


def halves_exchanged(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[middle:] + data[:middle]


def mixed(first: License, second: License, **parts: str) -> License:
    return replace(first, **{part: getattr(second, source) for part, source in parts.items()})


def a_list(model: LockedModel, _folder: Path) -> dict[str, Any]:
    return {"license": replace(model.license(), jwt=list_of(model).split(b"\n")[0])}


def a_time_token(model: LockedModel, _folder: Path) -> dict[str, Any]:
    request = TimeRequest(model.device.public.thumbprint, "A" * 43)
    token = sign_time_token(issuer=model.issuer, request=request, issued_at=current_time())
    return {"license": replace(model.license(), jwt=token)}


MATRIX: dict[str, tuple[type[KeylatchError], Attack]] = {
    "a license for another model": (WrongModelError, lambda m, _: {"license": m.license(model_id="00" * 32)}),
    "a license for another device": (
        WrongDeviceError,
        lambda m, _: {"license": m.license(devices=[m.foreign_device.public])},
    ),
    "another device's key": (WrongDeviceError, lambda m, _: {"key": m.foreign_device}),
    "another issuer's license": (SignatureError, lambda m, _: {"license": m.license(issuer=m.foreign_issuer)}),
    "an older license": (OlderLicenseError, older_license),
    "an older list": (OlderRevocationListError, older_list),
    "a list that is too old": (StaleRevocationListError, lambda m, _: {"revocations": list_of(m, age=2 * DAY)}),
    "another issuer's list": (
        SignatureError,
        lambda m, _: {"revocations": list_of(replace(m, issuer=m.foreign_issuer))},
    ),
    "a license on the list": (LicenseRevokedError, revoked),
    "another device's state": (StateEditedError, foreign_state),
    "no signature": (SignatureError, lambda m, _: unsigned(m, "Ed25519", b"")),
    "algorithm none": (SignatureError, lambda m, _: unsigned(m, "none", b"")),
    "algorithm HS256": (SignatureError, lambda m, _: unsigned(m, "HS256", unpadded(bytes(32)))),
    "algorithm EdDSA": (SignatureError, lambda m, _: with_header(m, alg="EdDSA")),
    "a key in the header": (SignatureError, lambda m, _: with_header(m, jwk=m.issuer.public.to_jwk())),
    "a list as a license": (SignatureError, a_list),
    "a time token as a license": (SignatureError, a_time_token),
    "a license as a list": (SignatureError, lambda m, _: {"revocations": m.license().jwt + b"\n"}),
    "a repeated claim": (FormatError, lambda m, _: repeated_key(m)),
    "a cosignature taken off": (
        CosignatureError,
        lambda m, _: cosigned(m, lambda first, _second: replace(first, jwt=first.jwt.split(b"~")[0])),
    ),
    "another license's cosignature": (CosignatureError, lambda m, _: cosigned(m, exchange_cosignatures)),
    "another license's JWE": (LicensePartsError, lambda m, _: {"license": mixed(m.license(), m.license(), jwe="jwe")}),
    "another license's blob": (
        LicensePartsError,
        lambda m, _: {"license": mixed(m.license(), m.license(), blob="blob")},
    ),
    "JWE and blob exchanged": (
        LicensePartsError,
        lambda m, _: {"license": mixed(m.license(), m.license(), jwe="blob", blob="jwe")},
    ),
    "a license cut short": (FormatError, lambda m, _: {"license": m.license().serialize()[:-1]}),
    "a license with more": (FormatError, lambda m, _: {"license": m.license().serialize() + b"\0"}),
    "weights in another order": (DigestError, edit_file(WEIGHTS_NAME, halves_exchanged)),
    "a gate in another order": (DigestError, edit_file(GATE_NAME, halves_exchanged)),
    "a graph cut short": (DigestError, edit_file(GRAPH_NAME, lambda data: data[:-1] + b"\0")),
    "a manifest with a repeated key": (
        FormatError,
        edit_file(MANIFEST_NAME, lambda data: data.replace(b'"format":', b'"format":"keylatch/1","format":', 1)),
    ),
}


@pytest.mark.parametrize("row", MATRIX)
def test_a_substitution_is_refused_with_its_own_error(model: LockedModel, tmp_path: Path, row: str) -> None:
    error, attack = MATRIX[row]
    given = attack(model, tmp_path)
    with pytest.raises(KeylatchError) as caught:
        model.open(**given)
    assert type(caught.value) is error
    assert caught.value.hint


def test_the_right_things_open(model: LockedModel, tmp_path: Path) -> None:
    """The control: what every row changes one part of."""
    cosigner = CosignerKey.generate()
    state = remembered(model, tmp_path, license=model.license(seq=1))
    session = model.open(
        license=model.license(seq=2, cosigner=cosigner),
        trust=Trust((model.issuer.public,), (cosigner.public,)),
        revocations=list_of(model),
        state=state,
    )
    assert same(session.run(None, model.feed())[0], model.keyed)
