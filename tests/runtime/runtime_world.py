"""One tiny locked model, its issuer and devices, and the means to license, forge and open it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from keylatch.keys import (
    FileDeviceKey,
    IssuerKey,
    License,
    canonical_json,
    current_time,
    issue_license,
    read_claims_unverified,
)
from keylatch.runtime import MANIFEST_NAME, InferenceSession, model_id_of, read_manifest, values_to_license
from keylatch.runtime._credentials import Credentials, Sources
from keylatch.runtime._opening import Opened, open_license

DAY = 86_400
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class LockedModel:
    """A locked model on disk with everything that opens it.

    Attributes:
        path: The artifact's directory.
        section: Its section of the vault: secret values and the known answer.
        defaults: The locked defaults of the gate tensors.
        images, keyed, locked: A batch, and what the PyTorch module makes of it, opened and locked.
    """

    path: Path
    model_id: str
    section: Mapping[str, Array]
    defaults: Mapping[str, Array]
    images: Array
    keyed: Array
    locked: Array
    issuer: IssuerKey
    foreign_issuer: IssuerKey
    device: FileDeviceKey
    foreign_device: FileDeviceKey

    def values(self) -> dict[str, Array]:
        """What a license carries: secret values and the sealed known answer."""
        return values_to_license(self.section)

    def license(self, **changes: Any) -> License:
        now = current_time()
        arguments: dict[str, Any] = {
            "issuer": self.issuer,
            "devices": [self.device.public],
            "model_id": self.model_id,
            "secret_values": self.values(),
            "customer": "ACME Vision",
            "not_before": now - DAY,
            "expires_at": now + DAY,
            "issued_at": now - 3 * DAY,
        }
        return issue_license(**{**arguments, **changes})

    def credentials(self, **changes: Any) -> dict[str, Any]:
        given = {"license": self.license(), "key": self.device, "trust": self.issuer.public}
        return {**given, **changes}

    def open(self, **changes: Any) -> InferenceSession:
        return InferenceSession(self.path, **self.credentials(**changes))

    def loaded(self, license: License | bytes | None = None) -> Credentials:
        """Credentials as the session loads them."""
        given = self.license() if license is None else license
        return Credentials.load(Sources(license=given, key=self.device, trust=self.issuer.public))

    def opened(self, license: License | bytes | None = None, model_id: str | None = None) -> Opened:
        """A license taken through every step before the session is made."""
        gate = read_manifest(self.path)[0].gate
        return open_license(self.loaded(license), model_id or self.model_id, gate, now=current_time())

    def feed(self) -> dict[str, Array]:
        return {"image": self.images}

    def sign(self, header: dict[str, Any], payload: dict[str, Any]) -> bytes:
        """A JWT that the issuer really signed, whatever it says."""
        signed = b".".join(unpadded(json.dumps(part).encode()) for part in (header, payload))
        return signed + b"." + unpadded(self.issuer.sign(signed))

    def header(self) -> dict[str, Any]:
        return {"alg": "Ed25519", "typ": "keylatch-license+jwt", "kid": self.issuer.public.thumbprint}

    def payload(self, license: License) -> dict[str, Any]:
        return read_claims_unverified(license).to_payload()

    def manifest(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads((self.path / MANIFEST_NAME).read_bytes())
        return fields

    def rewrite(self, **files: bytes) -> LockedModel:
        """Replaces files (`model_onnx`, `gate_bin`) and writes the manifest that a dishonest issuer would."""
        fields = self.manifest()
        for key, data in files.items():
            name = key.replace("_", ".")
            (self.path / name).write_bytes(data)
            fields["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        return self.write_manifest(canonical_json(fields))

    def write_manifest(self, data: bytes) -> LockedModel:
        (self.path / MANIFEST_NAME).write_bytes(data)
        return replace(self, model_id=model_id_of(data))


def unpadded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def listing(*folders: Path) -> dict[str, str]:
    """Every path below some folders, with what it is and a digest of what is in it."""
    found = {}
    for folder in folders:
        for path in sorted([folder, *folder.rglob("*")]):
            status = path.lstat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
            target = path.readlink() if path.is_symlink() else ""
            found[str(path)] = f"{status.st_mode:o} {status.st_size} {content} {target}"
    return found


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def same(output: Array, expected: Array) -> bool:
    """Whether two outputs agree to a ten-thousandth of the range: onnxruntime and PyTorch add in other orders."""
    return bool(output.shape == expected.shape and np.abs(output - expected).max() <= 1e-4 * np.ptp(expected))


def gate_layout(model: LockedModel) -> Mapping[str, tuple[str, tuple[int, ...]]]:
    return {entry["name"]: (entry["dtype"], tuple(entry["shape"])) for entry in model.manifest()["gate"]}


def run_calls(session: InferenceSession, feed: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Every way to run a session, by name."""
    value = onnxruntime.OrtValue.ortvalue_from_numpy(feed["image"])
    binding = session.io_binding()
    binding.bind_cpu_input("image", feed["image"])
    binding.bind_output("output")
    vectors = onnxruntime.capi.onnxruntime_pybind11_state.OrtValueVector
    feeds, fetches = vectors(), vectors()
    feeds.push_back(value._get_c_value())
    device = onnxruntime.OrtDevice.make("cpu", 0)._get_c_device()
    return {
        "run": lambda: session.run(None, feed),
        "run_async": lambda: session.run_async(None, feed, lambda *_: None, None),
        "run_with_ort_values": lambda: session.run_with_ort_values(None, {"image": value}),
        "run_with_iobinding": lambda: session.run_with_iobinding(binding),
        "run_with_ortvaluevector": lambda: session.run_with_ortvaluevector(
            onnxruntime.RunOptions(), ["image"], feeds, ["output"], fetches, [device]
        ),
    }
