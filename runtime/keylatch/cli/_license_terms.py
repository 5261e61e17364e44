"""What issuing and renewing share: the time, the secret values, and writing what the ledger has recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from keylatch.cli._output import note_console
from keylatch.errors import FormatError, OutputError
from keylatch.keys import (
    CosignerKey,
    Fingerprint,
    IssuerKey,
    Ledger,
    License,
    PassphraseCallback,
    current_time,
    domains_of,
    open_issuer_key,
    read_claims_unverified,
    read_vault,
    trust_of_ledger,
    write_license,
)

DAY_SECONDS = 86_400
_LATEST = 253_402_300_799  # the end of 9999, the last second that a license can name


def seconds_of(days: float, option: str) -> int:
    """Days as whole seconds."""
    if not math.isfinite(days):
        raise typer.BadParameter(f"{option} is a number of days")
    return int(days * DAY_SECONDS)


def period(not_before: datetime | None, days: float) -> tuple[int, int]:
    """First second of validity, and the first after it."""
    start = current_time() if not_before is None else int(not_before.replace(tzinfo=UTC).timestamp())
    end = start + seconds_of(days, "--days")
    if end <= max(start, current_time()):
        raise OutputError("license expires before it becomes valid", hint="give more --days, or a later --not-before")
    if end > _LATEST:
        raise OutputError("license ends after the year 9999", hint="give fewer --days")
    return start, end


def read_secret_values(
    vault: Path,
    model_id: str,
    issuer: IssuerKey,
    vault_key: str | None,
    ask: PassphraseCallback,
    domains: Sequence[str] = (),
) -> tuple[Mapping[str, Any], Fingerprint | None, tuple[str, ...] | None]:
    """A model's secret values out of a vault, as a license carries them, what marks each license, and its domains.

    Args:
        vault: The vault's file.
        model_id: Of the model.
        issuer: The issuer key, which may open the vault.
        vault_key: Another key that it is sealed under.
        ask: For passphrases.
        domains: What the license is for; the domains come back as its claims have them, None for a model without any.

    Raises:
        FormatError: The vault has none for this model.
        DeviceKeyError: The vault is sealed under another key.
    """
    from keylatch.runtime import values_to_license

    opener = issuer if vault_key is None else open_issuer_key(vault_key, passphrase=ask)
    section = read_vault(vault, issuer=opener, passphrase=ask).sections.get(model_id)
    if section is None:
        raise FormatError(
            f"the vault {vault} holds no secrets for model {model_id[:8]}…",
            hint="give the vault that this model was exported with",
        )
    paid = tuple(sorted(set(domains))) if domains_of(section) else None
    return values_to_license(section, domains), Fingerprint.from_arrays(section), paid


def load_cosigner(path: Path | None, ledger: Ledger, ask: PassphraseCallback) -> CosignerKey | None:
    """The cosigner key, if one is named; without one, says so where devices will ask for it."""
    if path is not None:
        return CosignerKey.load(path, passphrase=ask)
    if trust_of_ledger(ledger).cosigners:
        note_console().print("note: no --cosign, and devices with this ledger's trust file take only cosigned licenses")
    return None


def write_recorded(out: Path, license: License) -> None:
    """Write a license that the ledger has.

    Raises:
        OutputError: It cannot be written; says how to do it later.
    """
    try:
        write_license(out, license)
    except OutputError as error:
        license_id = read_claims_unverified(license).license_id
        hint = f"it is in the ledger; write it with keylatch license show {license_id} --out FILE"
        raise OutputError(error.message, hint=hint) from None
