"""Makes the originals anew, with new keys: `python tests/fuzz/make_originals.py [NAME …]`; with names, only those."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
FOLDER = Path(__file__).parent / "originals"


def main(names: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    if not names:
        (FOLDER / "seed.hex").write_text(os.urandom(32).hex() + "\n")
    for name, make in _makers().items():
        if not names or name in names:
            (FOLDER / name).write_bytes(make())


def _makers() -> dict[str, Callable[[], bytes]]:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    from fuzz import originals as o
    from keylatch.keys import Vault, canonical_json
    from keylatch.keys._enrollment import make_enrollment_request
    from keylatch.keys._revocations import sign_revocation_list
    from keylatch.keys._sealed import seal_with_key
    from keylatch.keys._tensors import serialize_tensors
    from keylatch.keys._time_token import TimeRequest, sign_time_token
    from keylatch.keys._vault import _serialize

    der_private = (Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    public_pem = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    ids = [f"{number:08x}-1111-4111-8111-111111111111" for number in (7, 1, 3)]
    request = TimeRequest(o.DEVICE.public.thumbprint, "n" * 43)
    later = TimeRequest(o.DEVICE.public.thumbprint, "m" * 43)
    trust = {
        "keylatch": "trust/1",
        "issuers": [
            {"jwk": o.ISSUER.public.to_jwk(), "until": None},
            {"jwk": o.FOREIGN_ISSUER.public.to_jwk(), "until": o.NOW},
        ],
        "cosigners": [],
    }

    def vault(section: str) -> bytes:
        sections = {section: {"code": np.arange(8, dtype=np.uint8)}, o.MODEL_ID: {"gate.patch": np.ones((2, 2))}}
        key, thumbprint = o.ISSUER.vault_key(), o.ISSUER.public.thumbprint
        return seal_with_key(_serialize(Vault(sections)), kind="vault", key=key, thumbprint=thumbprint)

    def revocations(seq: int) -> bytes:
        return sign_revocation_list(
            issuer=o.ISSUER, seq=seq, license_ids=ids[:seq], issued_at=o.NOW - seq, max_age=o.DAY * seq
        )

    def time_token(asked: TimeRequest) -> bytes:
        return sign_time_token(issuer=o.ISSUER, request=asked, issued_at=o.NOW)

    return {
        "license": lambda: _license(),
        "license.other": lambda: _license(model_id=o.OTHER_MODEL_ID, customer="Ängström", seq=9, max_list_age=60),
        "license.shared": lambda: _license(devices=[o.DEVICE.public, o.OTHER_DEVICE.public, o.HYBRID_DEVICE.public]),
        "license.foreign": lambda: _license(issuer=o.FOREIGN_ISSUER),
        "license.hybrid": lambda: _license(devices=[o.HYBRID_DEVICE.public]),
        "license.hybrid.other": lambda: _license(devices=[o.HYBRID_DEVICE.public], customer="other"),
        "license.cosigned": lambda: _license(cosigner=o.COSIGNER),
        "license.cosigned.other": lambda: _license(cosigner=o.COSIGNER, customer="other"),
        "license.cosigned.foreign": lambda: _license(cosigner=o.FOREIGN_COSIGNER),
        "tensors": lambda: serialize_tensors({"a": np.ones((2, 3), np.float32), "b": np.array(True), "c": np.zeros(0)}),
        "tensors.other": lambda: serialize_tensors({"gate": np.arange(6, dtype=np.int64).reshape(3, 2)}),
        "manifest.json": lambda: _manifest("small", ("gate.patch",)),
        "manifest.other.json": lambda: _manifest("other", ("gate.patch", "gate.norm"), algorithm="sha256"),
        "manifest.sealed.json": lambda: _manifest("sealed", ("gate.patch",), sealed=True),
        "model.onnx": lambda: _graph("model.onnx.data"),
        "model.other.onnx": lambda: _graph("gate.bin", sparse=True),
        "vault": lambda: vault("lock"),
        "vault.other": lambda: vault(o.OTHER_MODEL_ID),
        "sealed.key": lambda: _sealed_under_passphrase(o.DEVICE._key.private_bytes(*der_private)),
        "sealed.other.key": lambda: _sealed_under_passphrase(o.OTHER_DEVICE._key.private_bytes(*der_private)),
        "device.key": lambda: _private_pem(o.DEVICE._key),
        "issuer.key": lambda: _private_pem(o.ISSUER._key),
        "cosigner.key": lambda: _private_pem(o.COSIGNER._key),
        "hybrid.key": lambda: _private_pem(o.HYBRID_DEVICE._mlkem) + _private_pem(o.HYBRID_DEVICE._x25519),
        "issuer.pub": lambda: o.ISSUER.public.key.public_bytes(*public_pem),
        "device.pem": lambda: o.DEVICE.public.key.public_bytes(*public_pem),
        "cosigner.pub": lambda: o.COSIGNER.public.key.public_bytes(*public_pem),
        "device.jwk": lambda: canonical_json(o.DEVICE.public.to_jwk()),
        "device.other.jwk": lambda: canonical_json(o.OTHER_DEVICE.public.to_jwk()),
        "hybrid.jwk": lambda: canonical_json(o.HYBRID_DEVICE.public.to_jwk()),
        "issuer.jwk": lambda: canonical_json(o.ISSUER.public.to_jwk()),
        "cosigner.jwk": lambda: canonical_json(o.COSIGNER.public.to_jwk()),
        "trust.json": lambda: canonical_json(trust) + b"\n",
        "trust.cosigned.json": lambda: canonical_json(
            {**trust, "cosigners": [{"jwk": o.COSIGNER.public.to_jwk()}]}
        ),
        "enrollment.json": lambda: make_enrollment_request(
            o.DEVICE, {"hostname": "edge-7", "tpm.vendor": "Å"}, created_at=o.NOW
        ),
        "enrollment.other.json": lambda: make_enrollment_request(o.OTHER_DEVICE, {}, created_at=o.NOW),
        "revocations": lambda: revocations(2),
        "revocations.other": lambda: revocations(3),
        "time.request": request.serialize,
        "time.other.request": later.serialize,
        "time.token": lambda: time_token(request),
        "time.other.token": lambda: time_token(later),
        "device.state": lambda: _state({o.MODEL_ID: 7}, None),
        "device.other.state": lambda: _state({o.MODEL_ID: 8, o.OTHER_MODEL_ID: 9}, 5),
        "tpm.key": lambda: _tpm_key(pin=False),
        "tpm.other.key": lambda: _tpm_key(pin=True),
    }  # fmt: skip


def _license(**changes: Any) -> bytes:
    from fuzz import originals as o
    from keylatch.keys import issue_license

    arguments: dict[str, Any] = {
        "issuer": o.ISSUER,
        "devices": [o.DEVICE.public],
        "model_id": o.MODEL_ID,
        "secret_values": {name: np.frombuffer(value, np.uint8) for name, value in o.SECRETS.items()},
        "customer": "ACME Vision",
        "not_before": o.NOW - o.DAY,
        "expires_at": o.EXPIRES_AT,
        "issued_at": o.NOW - o.DAY,
        "seq": 7,
    }
    return issue_license(**{**arguments, **changes}).serialize()


def _private_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _sealed_under_passphrase(plaintext: bytes) -> bytes:
    """As `seal_with_passphrase`, with the smallest parameters that a reader takes: a derivation in microseconds."""
    from fuzz import originals as o
    from keylatch.keys import SecretBytes
    from keylatch.keys._encoding import encode_base64url
    from keylatch.keys._passphrase import Argon2Parameters, derive_key
    from keylatch.keys._sealed import SALT_BYTES, _seal

    parameters, salt = Argon2Parameters(1, 8, 1), os.urandom(SALT_BYTES)
    header = {
        "kind": "device key",
        "kdf": "argon2id",
        "salt": encode_base64url(salt),
        "params": asdict(parameters),
    }
    return _seal(plaintext, header, derive_key(SecretBytes(o.PASSPHRASE), salt, parameters))


def _state(seqs: dict[str, int], count: int | None) -> bytes:
    from fuzz import originals as o
    from keylatch.keys._device_secret import derive_device_secret
    from keylatch.keys._state_file import MAC_KEY_INFO, serialize_state
    from keylatch.keys._state_record import StateRecord, new_nonce

    marks = {"high_water": o.NOW, "signed_floor": o.NOW - o.DAY, "list_seq": 3}
    record = StateRecord(device=o.DEVICE.public.thumbprint, nonce=new_nonce(), seqs=seqs, counter=count, **marks)
    return serialize_state(record, derive_device_secret(o.DEVICE, MAC_KEY_INFO))


def _tpm_key(*, pin: bool) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    from keylatch.keys._tpm._key_file import TpmKeyFile
    from keylatch.keys._tpm._structures import PcrSelection, device_key_template, policy_digest, sized

    # A coordinate that starts with a zero has a shorter form, which some TPMs give.
    keys = (generate_private_key(SECP256R1()).public_key().public_numbers() for _ in itertools.count())
    numbers = next(numbers for numbers in keys if numbers.y < 1 << 248)
    unique = b"".join(sized(value.to_bytes(32, "big")) for value in (numbers.x, numbers.y))
    pcrs, digest = PcrSelection.parse("sha256:0,7"), hashlib.sha256(b"pcrs").digest()
    public = device_key_template(policy_digest(pcrs, digest, pin=pin), pin=pin, unique=unique)
    return TpmKeyFile(public, sized(bytes(96)), bytes(34), pcrs, digest, pin).to_bytes()


def _manifest(
    name: str, gate: tuple[str, ...], *, sealed: bool = False, algorithm: Literal["sha256", "blake3"] = "blake3"
) -> bytes:
    from keylatch.runtime import FileDigest, GateTensor, Manifest, SealedWeights

    described = {"name": name, "precision": "float32", "input": {"shape": ["N", 3, 8, 8], "mean": [0.5, 0.25, 0.1]}}
    hashed = ("model.onnx", "gate.bin") if sealed else ("model.onnx", "gate.bin", "model.onnx.data")
    files = {file: FileDigest(4096, "ab" * 32, algorithm) for file in hashed}
    weights = SealedWeights.of(4096) if sealed else None
    tensors = tuple(GateTensor(tensor, "float32", (4, 2)) for tensor in gate)
    return Manifest(described, {"kind": "patch", "version": 1}, tensors, files, weights).serialize()


def _graph(location: str, *, sparse: bool = False) -> bytes:
    import onnx
    from onnx import TensorProto, helper

    def external(name: str) -> onnx.TensorProto:
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
        for key, value in (("location", location), ("offset", "0"), ("length", "16")):
            tensor.external_data.add(key=key, value=value)
        return tensor

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    branch = helper.make_graph([helper.make_node("Constant", [], ["k"], value=external("v"))], "b", [], [value])
    attribute = onnx.SparseTensorProto(dims=[8], values=external("s")) if sparse else external("t")
    nodes = [
        helper.make_node("If", ["c"], ["x"], then_branch=branch),
        helper.make_node(
            "Any", ["x", "w"], ["x"], domain="d", a=attribute, bodies=[branch, branch], tensors=[external("u")]
        ),
    ]
    body = helper.make_graph(nodes, "g", [value], [value], [external("w")])
    if sparse:
        body.sparse_initializer.append(attribute)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if sparse:
        model.training_info.add(algorithm=branch, initialization=helper.make_graph([], "i", [], [], [external("z")]))
    model.metadata_props.add(key="keylatch.lock", value=json.dumps({"kind": "patch"}))
    model.functions.append(helper.make_function("d", "Any", ["x"], ["x"], nodes[:1], [helper.make_opsetid("", 17)]))
    return bytes(model.SerializeToString())


if __name__ == "__main__":
    main(sys.argv[1:])
