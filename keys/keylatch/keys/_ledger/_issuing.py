"""Issuing through the ledger: a license and its row, together or not at all.

In one transaction: take the next number, sign the license, insert its row and its file. The caller writes the file to
disk after that. So a file never exists without its row, and a row without its file can be written again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keylatch.keys._clock import current_time
from keylatch.keys._cosignature import CosignerKey
from keylatch.keys._device_secret import AnyDevicePublicKey
from keylatch.keys._encoding import canonical_json
from keylatch.keys._fingerprint import Fingerprint
from keylatch.keys._issue import issue_license
from keylatch.keys._issuer_key import IssuerKey
from keylatch.keys._ledger._marks import mark_of
from keylatch.keys._ledger._sequence import next_license_seq
from keylatch.keys._ledger._signers import check_active, record_cosigner
from keylatch.keys._license import License
from keylatch.keys._tensors import Array
from keylatch.keys._token import read_claims_unverified

if TYPE_CHECKING:
    import sqlite3

    from keylatch.keys._claims import UnverifiedClaims
    from keylatch.keys._ledger._ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class LicensedModel:
    """What a license opens.

    Args:
        model_id: SHA-256 of the model's manifest, 64 hex digits.
        name: The model's name, for people.
        secret_values: Gate tensor name to secret value; these go into the license and never into the ledger.
        fingerprint: Marks each license; None leaves them all alike.
        domains: What the values were chosen for; None for a model without domains.
    """

    model_id: str
    name: str
    secret_values: Mapping[str, Array] = field(repr=False)
    fingerprint: Fingerprint | None = None
    domains: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device that a license is for.

    Args:
        public: Its public key.
        facts: What it said of itself when it enrolled; kept for people, decides nothing.
    """

    public: AnyDevicePublicKey
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LicenseTerms:
    """Whom a license is for, and when and how it opens; as `issue_license` takes them.

    Args:
        customer: Whom it is sold to, printable text.
        not_before: First second of validity, seconds since the epoch.
        expires_at: First second after validity.
        max_list_age: Refuse to open without a revocation list at most this old, in seconds; None asks for no list.
    """

    customer: str
    not_before: int
    expires_at: int
    max_list_age: int | None = None


def issue_and_record(
    ledger: Ledger,
    *,
    issuer: IssuerKey,
    model: LicensedModel,
    devices: Sequence[KnownDevice],
    terms: LicenseTerms,
    cosigner: CosignerKey | None = None,
) -> License:
    """Issues a license and records it; when it returns, the license is in the ledger and on its disk.

    Raises:
        LedgerError: The issuer key is retired or not in this ledger, or the ledger cannot be written.
        FormatError: An argument that no license can carry.
    """
    with ledger.writing() as db:
        return issue_in(db, issuer=issuer, model=model, devices=devices, terms=terms, cosigner=cosigner)


def issue_in(
    db: sqlite3.Connection,
    *,
    issuer: IssuerKey,
    model: LicensedModel,
    devices: Sequence[KnownDevice],
    terms: LicenseTerms,
    cosigner: CosignerKey | None,
    renews: str | None = None,
) -> License:
    """Issues and records a license inside a transaction; raises as `issue_and_record` does."""
    check_active(db, issuer.public)
    # Under the lock, although only the signature needs the number: 0.3 ms, about as long as the commit's fsync.
    license = issue_license(
        issuer=issuer,
        devices=[device.public for device in devices],
        model_id=model.model_id,
        secret_values=model.secret_values,
        customer=terms.customer,
        not_before=terms.not_before,
        expires_at=terms.expires_at,
        issued_at=current_time(),
        seq=next_license_seq(db),
        max_list_age=terms.max_list_age,
        cosigner=cosigner,
        fingerprint=model.fingerprint,
        mark=None if renews is None else mark_of(db, renews),
        domains=model.domains,
    )
    claims = read_claims_unverified(license.jwt)
    _record_parties(db, claims, model, devices, cosigner)
    _record_license(db, claims, license.serialize(), renews)
    return license


def _record_parties(
    db: sqlite3.Connection,
    claims: UnverifiedClaims,
    model: LicensedModel,
    devices: Sequence[KnownDevice],
    cosigner: CosignerKey | None,
) -> None:
    now = claims.issued_at
    db.execute("INSERT INTO models VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (model.model_id, model.name, now))
    db.execute("INSERT INTO customers VALUES (?) ON CONFLICT DO NOTHING", (claims.customer,))
    for device in devices:
        _record_device(db, device, now)
    if cosigner is not None:
        record_cosigner(db, cosigner.public, now)


def _record_device(db: sqlite3.Connection, device: KnownDevice, now: int) -> None:
    jwk, facts = (canonical_json(value).decode() for value in (device.public.to_jwk(), dict(device.facts)))
    db.execute(
        "INSERT INTO devices VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET facts = excluded.facts WHERE excluded.facts != '{}'",
        (device.public.thumbprint, jwk, facts, now),
    )


def _record_license(db: sqlite3.Connection, claims: UnverifiedClaims, file: bytes, renews: str | None) -> None:
    db.execute(
        "INSERT INTO licenses (license_id, seq, model_id, customer, issuer, issued_at, not_before, expires_at, "
        "max_list_age, renews, sha256) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            claims.license_id,
            claims.seq,
            claims.model_id,
            claims.customer,
            claims.issuer,
            claims.issued_at,
            claims.not_before,
            claims.expires_at,
            claims.max_list_age,
            renews,
            hashlib.sha256(file).hexdigest(),
        ),
    )
    db.execute("INSERT INTO license_files VALUES (?, ?)", (claims.license_id, file))
    pairs = [(claims.license_id, device) for device in claims.devices]
    db.executemany("INSERT INTO license_devices VALUES (?, ?)", pairs)
