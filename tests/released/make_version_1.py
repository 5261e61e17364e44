"""Made the files in 1/, once: `python tests/released/make_version_1.py`. They are kept, so it refuses to run again.

Keys, nonces and the lock are random: another run would make other files, which prove nothing about the old ones.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "1"
ISSUED_AT = 1_795_132_800  # 2026-11-20
EXPIRES_AT = 253_402_300_799  # 9999-12-31
PASSPHRASE = b"released files, version 1"


def main() -> None:
    if FOLDER.exists():
        sys.exit(f"{FOLDER} stands there already, and is never made again")
    FOLDER.mkdir()
    section, secret = _make_model()
    _make_keys()
    _make_vaults({"lock": secret, **section})
    _make_licenses(section)
    _make_other_files()
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(FOLDER)}\n" for path in _files()]
    (FOLDER / "SHA256SUMS").write_text("".join(sums))


def _files() -> list[Path]:
    return sorted(path for path in FOLDER.rglob("*") if path.is_file())


def _make_model() -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Locks and exports the smallest network there is a lock for; keeps what it answers, opened and locked."""
    import torch
    from torch import nn

    from keylatch.exporters import export
    from keylatch.locks import InputSpec, code_lock, sample_images

    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 20)).eval()
    spec = InputSpec(3, 32, 32)
    locked = code_lock(network, spec, patch_size=8, minimum_channels=16)
    exported = export(locked.module, locked.secret, FOLDER / "tiny.latch")
    pixels = sample_images(2, 3, 32, 32)
    images = spec.from_pixels(pixels)
    with torch.no_grad():
        np.save(FOLDER / "locked.npy", locked.module(images).numpy())
        with locked.module.opened(locked.secret):
            np.save(FOLDER / "keyed.npy", locked.module(images).numpy())
    np.save(FOLDER / "pixels.npy", pixels.numpy())
    return {exported.model_id: dict(exported.secret_values)}, dict(locked.secret.to_arrays())


def _make_keys() -> None:
    from keylatch.keys import CosignerKey, FileDeviceKey, FileIssuerKey, HybridDeviceKey, Trust

    issuer, cosigner, retired = FileIssuerKey.generate(), CosignerKey.generate(), FileIssuerKey.generate()
    issuer.save(FOLDER / "issuer.key")
    issuer.public.save(FOLDER / "issuer.pub")
    cosigner.save(FOLDER / "cosigner.key", lambda _: PASSPHRASE)
    cosigner.public.save(FOLDER / "cosigner.pub")
    until = {retired.public.thumbprint: ISSUED_AT}
    Trust([issuer.public, retired.public], [cosigner.public], until).save(FOLDER / "acme.trust")
    FileDeviceKey.generate(FOLDER / "device.key").public.save(FOLDER / "device.pub")
    HybridDeviceKey.generate(FOLDER / "hybrid.key").public.save(FOLDER / "hybrid.pub")
    FileDeviceKey.generate(FOLDER / "sealed.key", lambda _: PASSPHRASE).public.save(FOLDER / "sealed.pub")


def _make_vaults(sections: dict[str, dict[str, np.ndarray]]) -> None:
    from keylatch.keys import FileIssuerKey, Vault, write_vault

    write_vault(FOLDER / "issuer.secret", Vault(sections), issuer=FileIssuerKey.load(FOLDER / "issuer.key"))
    write_vault(FOLDER / "passphrase.secret", Vault(sections), passphrase=lambda _: PASSPHRASE)


def _make_licenses(section: dict[str, dict[str, np.ndarray]]) -> None:
    from keylatch.keys import CosignerKey, FileIssuerKey, issue_license, write_license
    from keylatch.keys._enrollment import load_device
    from keylatch.runtime import values_to_license

    ((model_id, values),) = section.items()
    terms = {"model_id": model_id, "customer": "Ångström AB", "not_before": ISSUED_AT, "issued_at": ISSUED_AT}
    issuer, devices = FileIssuerKey.load(FOLDER / "issuer.key"), [FOLDER / "device.pub", FOLDER / "hybrid.pub"]
    for name, count, cosigner in (
        ("acme.license", 1, None),
        ("cosigned.license", 2, CosignerKey.load(FOLDER / "cosigner.key", lambda _: PASSPHRASE)),
    ):
        license = issue_license(
            issuer=issuer,
            devices=[load_device(path) for path in devices[:count]],
            secret_values=values_to_license(values),
            expires_at=EXPIRES_AT,
            seq=count,
            cosigner=cosigner,
            **terms,
        )
        write_license(FOLDER / name, license)


def _make_other_files() -> None:
    from keylatch.keys import (
        DeviceState,
        FileDeviceKey,
        FileIssuerKey,
        sign_revocation_list,
        sign_time_token,
        write_revocation_list,
    )
    from keylatch.keys._enrollment import make_enrollment_request, write_enrollment_request
    from keylatch.keys._time_token import write_time_token

    issuer, device = FileIssuerKey.load(FOLDER / "issuer.key"), FileDeviceKey.load(FOLDER / "device.key")
    request = make_enrollment_request(device, {"hostname": "edge-7"}, created_at=ISSUED_AT)
    write_enrollment_request(FOLDER / "request.json", request)
    ids = ["0b5fc0a5-8b7d-4f55-9d0a-0d0c1f6f3b11", "e2a9d7c4-15a3-4b0e-8f43-7c1d2b9a6e50"]
    listed = sign_revocation_list(issuer=issuer, seq=1, license_ids=ids, issued_at=ISSUED_AT, max_age=86_400)
    write_revocation_list(FOLDER / "acme.revocations", listed)
    state = DeviceState.create(FOLDER / "device.state", device, now=ISSUED_AT)
    asked = state.time_request()
    asked.save(FOLDER / "time.request")
    write_time_token(FOLDER / "time.token", sign_time_token(issuer=issuer, request=asked, issued_at=ISSUED_AT))
    for lock_file in FOLDER.glob("device.state.*"):
        lock_file.unlink()


if __name__ == "__main__":
    main()
