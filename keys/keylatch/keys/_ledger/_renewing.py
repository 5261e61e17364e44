"""Renewing: the same model, devices, customer and conditions again, until later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from keylatch.errors import LedgerError
from keylatch.keys._claims import UnverifiedClaims
from keylatch.keys._cosignature import CosignerKey
from keylatch.keys._device_key import DevicePublicKey
from keylatch.keys._device_secret import AnyDevicePublicKey
from keylatch.keys._encoding import parse_json_object
from keylatch.keys._fingerprint import Fingerprint
from keylatch.keys._hybrid_key import KEY_TYPE, HybridPublicKey
from keylatch.keys._issuer_key import IssuerKey
from keylatch.keys._ledger._entries import LedgerEntry, entry_in, license_in
from keylatch.keys._ledger._issuing import KnownDevice, LicensedModel, LicenseTerms, issue_in
from keylatch.keys._ledger._revoking import revoke_in
from keylatch.keys._license import License
from keylatch.keys._tensors import Array
from keylatch.keys._token import read_claims_unverified

if TYPE_CHECKING:
    import sqlite3

    from keylatch.keys._ledger._ledger import Ledger


def renew_license(
    ledger: Ledger,
    license_id: str,
    *,
    issuer: IssuerKey,
    secret_values: Mapping[str, Array],
    not_before: int,
    expires_at: int,
    cosigner: CosignerKey | None = None,
    revoke: bool = False,
    fingerprint: Fingerprint | None = None,
) -> License:
    """Issues a license with the terms of one in the ledger and a time of its own, and records which one it renews.

    Args:
        ledger: The ledger.
        license_id: The license to renew; it stays valid until its end.
        issuer: Signs the new license.
        secret_values: The model's gate tensors, for the domains of the license to renew, which stay.
        not_before: First second of the new license, seconds since the epoch.
        expires_at: First second after it.
        cosigner: Signs it too; needed if the license to renew was cosigned.
        revoke: Also revoke the license to renew, in the same transaction.
        fingerprint: Marks the license with the word of the first one in the chain of renewals: whoever mixes the
            copies that came with each renewal gains nothing.

    Raises:
        LedgerError: The license was revoked, or needs a cosigner; or as `issue_and_record`.
        FormatError: An argument that no license can carry.
    """
    with ledger.writing() as db:
        entry = entry_in(db, license_id)
        claims = _check_renewable(db, entry, cosigner)
        license = issue_in(
            db,
            issuer=issuer,
            model=LicensedModel(
                model_id=entry.model_id,
                name=entry.model_name,
                secret_values=secret_values,
                fingerprint=fingerprint,
                domains=claims.domains,
            ),
            devices=[_known_device(db, thumbprint) for thumbprint in entry.devices],
            terms=LicenseTerms(
                customer=entry.customer, not_before=not_before, expires_at=expires_at, max_list_age=entry.max_list_age
            ),
            cosigner=cosigner,
            renews=license_id,
        )
        if revoke:
            revoke_in(db, license_id, "renewed")
        return license


def _check_renewable(db: sqlite3.Connection, entry: LedgerEntry, cosigner: CosignerKey | None) -> UnverifiedClaims:
    if entry.revoked_at is not None:
        found = f"license {entry.license_id} was revoked, and a revoked license is not renewed"
        raise LedgerError(found, hint="issue a new one with keylatch license issue")
    claims = read_claims_unverified(license_in(db, entry.license_id).jwt)
    if claims.cosignature_sha256 is not None and cosigner is None:
        found = f"license {entry.license_id} is cosigned, and its devices may demand that of the next one"
        raise LedgerError(found, hint="give the cosigner key with --cosign")
    return claims


def _known_device(db: sqlite3.Connection, thumbprint: str) -> KnownDevice:
    row = db.execute("SELECT public_key FROM devices WHERE thumbprint = ?", (thumbprint,)).fetchone()
    return KnownDevice(_public_key(parse_json_object(row["public_key"].encode(), "device key in the ledger")))


def _public_key(jwk: Mapping[str, object]) -> AnyDevicePublicKey:
    return HybridPublicKey.from_jwk(jwk) if jwk.get("kty") == KEY_TYPE else DevicePublicKey.from_jwk(jwk)
