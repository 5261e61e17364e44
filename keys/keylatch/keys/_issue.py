"""Issuing a license: wrap the secrets, bind everything in claims, sign."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keylatch.errors import FormatError
from keylatch.keys._claims import MAX_DEVICES, UnverifiedClaims
from keylatch.keys._clock import current_time
from keylatch.keys._cosignature import CosignerKey
from keylatch.keys._device_secret import AnyDevicePublicKey
from keylatch.keys._fingerprint import Fingerprint
from keylatch.keys._issuer_key import IssuerKey
from keylatch.keys._license import MAX_BLOB_BYTES, License
from keylatch.keys._recipients import CONTENT_KEY_BYTES, wrap_content_key
from keylatch.keys._secret_bytes import SecretBytes
from keylatch.keys._tensors import Array, serialize_tensors
from keylatch.keys._token import sign_claims

NONCE_BYTES = 12
TAG_BYTES = 16


def issue_license(
    *,
    issuer: IssuerKey,
    devices: Sequence[AnyDevicePublicKey],
    model_id: str,
    secret_values: Mapping[str, Array],
    customer: str,
    not_before: int,
    expires_at: int,
    issued_at: int | None = None,
    seq: int | None = None,
    max_list_age: int | None = None,
    cosigner: CosignerKey | None = None,
    fingerprint: Fingerprint | None = None,
    mark: str | None = None,
    domains: Collection[str] | None = None,
) -> License:
    """Issues a license that opens one model on some devices for some time.

    Args:
        issuer: Signs the license.
        devices: Devices it is for, 1 to `MAX_DEVICES`; naming one twice counts once.
        model_id: SHA-256 of the model's manifest, 64 hex digits.
        secret_values: Gate tensor name to secret value; bool, integer or float arrays of any shape.
        customer: Whom it is sold to, printable text.
        not_before: First second of validity, seconds since the epoch.
        expires_at: First second after validity.
        issued_at: Seconds since the epoch; now by default.
        seq: Position in the issuer's order; by default milliseconds since the epoch, as in a ledger.
        max_list_age: Refuse to open without a revocation list at most this old, in seconds; None asks for no list.
        cosigner: Signs the license too, with ML-DSA-65.
        fingerprint: Moves some of the secret values by this license's word, so that a leaked model can be traced.
        mark: Whose word it carries; by default the license's own id.
        domains: What `secret_values` were chosen for with `for_domains`; None for a model without domains.

    Raises:
        FormatError: An argument that no license can carry.
    """
    recipients = _sorted_devices(devices)
    license_id = str(uuid.uuid4())
    if fingerprint is not None:
        secret_values = fingerprint.marked(secret_values, mark or license_id)
    content_key = SecretBytes(os.urandom(CONTENT_KEY_BYTES))
    jwe = wrap_content_key(content_key, recipients, issuer=issuer.public.thumbprint, license_id=license_id)
    blob = _encrypt_values(secret_values, content_key, license_id)
    content_key.wipe()
    claims = UnverifiedClaims(
        issuer=issuer.public.thumbprint,
        customer=customer,
        issued_at=current_time() if issued_at is None else issued_at,
        not_before=not_before,
        expires_at=expires_at,
        license_id=license_id,
        seq=time.time_ns() // 1_000_000 if seq is None else seq,
        devices=tuple(device.thumbprint for device in recipients),
        model_id=model_id,
        jwe_sha256=hashlib.sha256(jwe).hexdigest(),
        blob_sha256=hashlib.sha256(blob).hexdigest(),
        max_list_age=max_list_age,
        domains=None if domains is None else tuple(sorted(set(domains))),
    )
    return License(sign_claims(claims, issuer, cosigner), jwe, blob)


def blob_associated_data(license_id: str) -> bytes:
    """Returns what binds a blob to its license, besides the digest in the claims."""
    return b"keylatch/1 secrets" + license_id.encode("ascii")


def _sorted_devices(devices: Sequence[AnyDevicePublicKey]) -> list[AnyDevicePublicKey]:
    by_thumbprint = {device.thumbprint: device for device in devices}
    if not 1 <= len(by_thumbprint) <= MAX_DEVICES:
        found = f"a license is for 1 to {MAX_DEVICES} devices, got {len(by_thumbprint)}"
        raise FormatError(found, hint="give the public keys of the devices")
    return [by_thumbprint[thumbprint] for thumbprint in sorted(by_thumbprint)]


def _encrypt_values(secret_values: Mapping[str, Array], content_key: SecretBytes, license_id: str) -> bytes:
    if not secret_values:
        raise FormatError("a license carries one secret value or more, got none", hint="give the gate tensors' values")
    _check_size(secret_values)
    nonce = os.urandom(NONCE_BYTES)
    plaintext = serialize_tensors(secret_values)
    return nonce + AESGCM(content_key.reveal()).encrypt(nonce, plaintext, blob_associated_data(license_id))


def _check_size(secret_values: Mapping[str, Array]) -> None:
    size_bytes = sum(np.asarray(value).nbytes for value in secret_values.values())
    if size_bytes > MAX_BLOB_BYTES:
        found = f"secret values take {size_bytes} bytes, and a license carries {MAX_BLOB_BYTES}"
        raise FormatError(found, hint="withhold fewer weights")
