"""Every way to read each kind of vector: from bytes, from files, with trust as objects or a file, as the runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keylatch.keys import (
    CosignerKey,
    FileDeviceKey,
    FileIssuerKey,
    HybridDeviceKey,
    Trust,
    check_revocations,
    check_validity,
    decrypt_license,
    open_device_key,
    open_issuer_key,
    parse_license,
    parse_time_request,
    read_license,
    read_revocation_list,
    read_time_token,
    verify_license,
    verify_revocation_list,
)
from keylatch.keys._enrollment import EnrollmentRequest, load_enrollment, parse_enrollment_request
from keylatch.keys._time_token import TimeRequest, verify_time_token
from keylatch.runtime import GateTensor
from keylatch.runtime._credentials import Credentials, Sources, load_revocations, load_trust
from keylatch.runtime._opening import open_license
from vectors import key_readers as k
from vectors import reading as r
from vectors.base_originals import GATE, MODEL_ID
from vectors.value_headers import value_headers
from vectors.vector_file import Vector

Values = dict[str, Any]


def _headers_of(values: Any) -> list[str]:
    return [text for _, text in value_headers({name: np.asarray(value) for name, value in values.items()})]


def _open(vector: Vector, folder: Path, parsed: Any, trust: Trust) -> Values:
    now = vector.number("now", 0)
    claims = verify_license(parsed, trust, now=now)
    state, revocations = r.device_state(vector, folder), r.verified_list(vector, trust)
    moment = now if state is None else state.check(claims, revocations, now=now)
    check_revocations(claims, revocations, now=moment)
    check_validity(claims, now=moment)
    return {"value": _headers_of(decrypt_license(parsed, claims, r.device_key(vector)))}


def license_bytes(vector: Vector, folder: Path) -> Values:
    return _open(vector, folder, parse_license(vector.body), r.trust_objects(vector))


def license_file(vector: Vector, folder: Path) -> Values:
    return _open(vector, folder, read_license(r.written(vector, folder)), r.trust_objects(vector))


def license_trust_file(vector: Vector, folder: Path) -> Values:
    return _open(vector, folder, parse_license(vector.body), Trust.load(r.trust_file(vector, folder)))


def license_runtime(vector: Vector, folder: Path) -> Values:
    """As `InferenceSession` opens it, everything from files."""
    data = r.listed(vector)
    sources = Sources(
        license=r.written(vector, folder),
        key=r.device_key(vector),
        trust=[r.trust_file(vector, folder)],
        revocations=data,
        state=r.state_file(vector, folder),
    )
    credentials = Credentials.load(sources)
    own = [(name, value.dtype.name, value.shape) for name, value in GATE.items()]
    gate = [GateTensor(*part) for part in r.gate(vector) or own]
    (model_id,) = vector.all("model") or [MODEL_ID]
    opened = open_license(credentials, model_id, gate, now=vector.number("now", 0))
    return {"value": sorted(_headers_of(opened.values) + _headers_of(opened.known_answer))}


def _list(vector: Vector, folder: Path, data: bytes, trust: Trust) -> Values:
    found = verify_revocation_list(data, trust)
    state = r.device_state(vector, folder)
    if state is not None:
        state.remember_list(found, now=vector.number("now", 0))
    return {"seq": [str(found.seq)], "revoked": sorted(found.license_ids)}


def list_bytes(vector: Vector, folder: Path) -> Values:
    return _list(vector, folder, vector.body, r.trust_objects(vector))


def list_file(vector: Vector, folder: Path) -> Values:
    return _list(vector, folder, read_revocation_list(r.written(vector, folder)), r.trust_objects(vector))


def list_trust_file(vector: Vector, folder: Path) -> Values:
    return _list(vector, folder, vector.body, Trust.load(r.trust_file(vector, folder)))


def list_runtime(vector: Vector, folder: Path) -> Values:
    trust = load_trust([r.trust_file(vector, folder)])
    found = load_revocations(r.written(vector, folder), trust)
    state = r.device_state(vector, folder)
    if state is not None:
        state.remember_list(found, now=vector.number("now", 0))
    return {"seq": [str(found.seq)], "revoked": sorted(found.license_ids)}


def _time(vector: Vector, data: bytes, trust: Trust) -> Values:
    request = TimeRequest(r.device_key(vector).public.thumbprint, vector.one("nonce"))
    return {"issued_at": [str(verify_time_token(data, trust, request).issued_at)]}


def time_bytes(vector: Vector, folder: Path) -> Values:
    return _time(vector, vector.body, r.trust_objects(vector))


def time_file(vector: Vector, folder: Path) -> Values:
    return _time(vector, read_time_token(r.written(vector, folder)), r.trust_objects(vector))


def time_trust_file(vector: Vector, folder: Path) -> Values:
    return _time(vector, vector.body, Trust.load(r.trust_file(vector, folder)))


def time_state(vector: Vector, folder: Path) -> Values:
    """As a device applies it: its state asked, and takes the answer once."""
    state = r.device_state(vector, folder)
    assert state is not None
    state.apply_time_token(vector.body, r.trust_objects(vector), now=vector.number("now", 0))
    return {"issued_at": [str(state.read().high_water)]}


def _time_request(request: TimeRequest) -> Values:
    return {"thumbprint": [request.device], "nonce": [request.nonce]}


def time_request_bytes(vector: Vector, folder: Path) -> Values:
    return _time_request(parse_time_request(vector.body))


def time_request_file(vector: Vector, folder: Path) -> Values:
    return _time_request(TimeRequest.load(r.written(vector, folder)))


def _enrollment(request: EnrollmentRequest) -> Values:
    facts = [f"{name}={value}" for name, value in request.facts.items()]
    return {"thumbprint": [request.public.thumbprint], "fact": sorted(facts)}


def enrollment_bytes(vector: Vector, folder: Path) -> Values:
    return _enrollment(parse_enrollment_request(vector.body))


def enrollment_file(vector: Vector, folder: Path) -> Values:
    public, facts = load_enrollment(r.written(vector, folder))
    return {"thumbprint": [public.thumbprint], "fact": sorted(f"{name}={value}" for name, value in facts.items())}


WAYS: dict[str, dict[str, r.Reader]] = {
    "license": {
        "bytes": license_bytes,
        "file": license_file,
        "trust file": license_trust_file,
        "runtime": license_runtime,
    },
    "revocation list": {
        "bytes": list_bytes,
        "file": list_file,
        "trust file": list_trust_file,
        "runtime": list_runtime,
    },
    "time token": {"bytes": time_bytes, "file": time_file, "trust file": time_trust_file, "state": time_state},
    "time request": {"bytes": time_request_bytes, "file": time_request_file},
    "enrollment request": {"bytes": enrollment_bytes, "file": enrollment_file},
    "device public key": {"bytes": k.public_key_bytes, "file": k.public_key_file},
    "trust": {"bytes": k.trust_bytes, "file": k.trust_from_file, "runtime": k.trust_runtime, "saved": k.trust_saved},
    "device state": {"bytes": k.state_bytes, "file": k.state_from_file},
    "vault": {"file": k.vault_file},
    "device key file": {"file": k.loaded_by(FileDeviceKey), "uri": k.opened_by("file", open_device_key)},
    "hybrid device key file": {"file": k.loaded_by(HybridDeviceKey), "uri": k.opened_by("hybrid", open_device_key)},
    "issuer key file": {"file": k.loaded_by(FileIssuerKey), "uri": k.opened_by("file", open_issuer_key)},
    "cosigner key file": {"file": k.loaded_by(CosignerKey)},
}


def ways_of(vector: Vector) -> dict[str, r.Reader]:
    """Returns every way in which a vector can be read: one that only some readers can judge goes to those."""
    ways = WAYS[vector.kind]
    if vector.all("model"):
        return {"runtime": ways["runtime"]}
    return {name: ways[name] for name in vector.all("way")} or ways
