"""Every way to read what holds keys or is bound to one: public keys, trust, states, vaults, private key files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keylatch.keys import (
    DevicePublicKey,
    DeviceState,
    HybridPublicKey,
    Trust,
    canonical_json,
    parse_json_object,
    read_vault,
)
from keylatch.keys._device_secret import derive_device_secret
from keylatch.keys._enrollment import load_device
from keylatch.keys._state_file import MAC_KEY_INFO, parse_state
from keylatch.runtime._credentials import load_trust
from vectors import reading as r
from vectors.named_keys import issuer
from vectors.value_headers import value_headers
from vectors.vector_file import Vector

Values = dict[str, Any]


def public_key_bytes(vector: Vector, folder: Path) -> Values:
    jwk = parse_json_object(vector.body, "device public key")
    kind = HybridPublicKey if jwk.get("kty") == "AKP" else DevicePublicKey
    return {"thumbprint": [kind.from_jwk(jwk).thumbprint]}


def public_key_file(vector: Vector, folder: Path) -> Values:
    return {"thumbprint": [load_device(r.written(vector, folder)).thumbprint]}


def _holds(trust: Trust) -> Values:
    issuers = [
        f"{key.thumbprint} until {trust.until[key.thumbprint]}" if key.thumbprint in trust.until else key.thumbprint
        for key in trust.issuers
    ]
    return {"holds": sorted([*issuers, *(key.thumbprint for key in trust.cosigners)])}


def trust_bytes(vector: Vector, folder: Path) -> Values:
    return _holds(Trust.parse(vector.body))


def trust_from_file(vector: Vector, folder: Path) -> Values:
    return _holds(Trust.load(r.written(vector, folder)))


def trust_runtime(vector: Vector, folder: Path) -> Values:
    return _holds(load_trust([str(r.written(vector, folder))]))


def trust_saved(vector: Vector, folder: Path) -> Values:
    """Read, written and read again."""
    path = folder / "saved.json"
    Trust.parse(vector.body).save(path)
    return _holds(Trust.load(path))


def _record(record: Any) -> Values:
    return {"record": [canonical_json(record.values()).decode()]}


def state_bytes(vector: Vector, folder: Path) -> Values:
    key = r.device_key(vector)
    return _record(parse_state(vector.body, derive_device_secret(key, MAC_KEY_INFO), key.public.thumbprint))


def state_from_file(vector: Vector, folder: Path) -> Values:
    path = r.written(vector, folder)
    counter = r.Counter(vector.number("counter", 0)) if vector.all("counter") else None
    return _record(DeviceState.open(path, r.device_key(vector), counter).read())


def _passphrase(vector: Vector) -> Any:
    given = vector.all("passphrase")
    return (lambda _: given[0].encode()) if given else None


def vault_file(vector: Vector, folder: Path) -> Values:
    key = issuer(vector.one("issuer")) if vector.all("issuer") else None
    vault = read_vault(r.written(vector, folder), passphrase=_passphrase(vector), issuer=key)
    tensors = {f"{section}/{name}": value for section, found in vault.sections.items() for name, value in found.items()}
    return {"value": [text for _, text in value_headers(tensors)]}


def loaded_by(kind: Any) -> r.Reader:
    def read(vector: Vector, folder: Path) -> Values:
        return {"thumbprint": [kind.load(r.written(vector, folder), _passphrase(vector)).public.thumbprint]}

    return read


def opened_by(scheme: str, open_key: Any) -> r.Reader:
    def read(vector: Vector, folder: Path) -> Values:
        uri = f"{scheme}:{r.written(vector, folder)}"
        return {"thumbprint": [open_key(uri, passphrase=_passphrase(vector)).public.thumbprint]}

    return read
