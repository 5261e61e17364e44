"""A license for a device of its own, as a licensee of an exported model has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keylatch.exporters import Exported
from keylatch.keys import FileDeviceKey, FileIssuerKey, current_time, issue_license, write_license
from keylatch.runtime import values_to_license

_LICENSE_SECONDS = 30 * 86_400


def license_to_device(exported: Exported, folder: Path, domains: Sequence[str] = ()) -> dict[str, Any]:
    """Issue a license that any of the next thirty days opens the model with.

    Args:
        exported: The model.
        folder: Where issuer.pub, device.key and model.license are written.
        domains: Those that are paid for.

    Returns:
        As `credentials_in`.
    """
    issuer, device = FileIssuerKey.generate(), FileDeviceKey.generate(folder / "device.key")
    issuer.public.save(folder / "issuer.pub")
    now = current_time()
    license = issue_license(
        issuer=issuer,
        devices=[device.public],
        model_id=exported.model_id,
        secret_values=values_to_license(exported.secret_values, domains),
        customer="benchmark",
        not_before=now,
        expires_at=now + _LICENSE_SECONDS,
        domains=domains,
    )
    write_license(folder / "model.license", license)
    return credentials_in(folder)


def credentials_in(folder: Path) -> dict[str, Any]:
    """Keyword arguments for `InferenceSession`, of files that `license_to_device` wrote."""
    return {
        "license": str(folder / "model.license"),
        "key": f"file:{folder / 'device.key'}",
        "trust": str(folder / "issuer.pub"),
    }
