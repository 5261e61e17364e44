"""Opening a license, in two halves: first what the signature proves, then, once the model is checked, the secrets.

The numbers are those of the whole opening; 5 to 7 and 11 on belong to the runtime, which knows the model.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keylatch.errors import (
    IntegrityError,
    LicenseExpiredError,
    LicenseNotYetValidError,
    LicensePartsError,
)
from keylatch.keys._claims import Claims, UnverifiedClaims
from keylatch.keys._clock import clock_floor, format_duration, format_time
from keylatch.keys._device_secret import AnyDeviceKey
from keylatch.keys._issue import NONCE_BYTES, blob_associated_data
from keylatch.keys._license import License
from keylatch.keys._recipients import read_recipients, unwrap_content_key
from keylatch.keys._secret_bytes import SecretBytes
from keylatch.keys._tensors import Array, parse_tensors
from keylatch.keys._token import read_claims_unverified as read_token_claims
from keylatch.keys._token import verify_claims
from keylatch.keys._trust import Trust


def verify_license(license: License, trust: Trust, *, now: int) -> Claims:
    """Returns a license's claims if a trusted issuer made them and they hold now: steps 2 to 4 of opening.

    Args:
        license: From `parse_license`, which is step 1.
        trust: Pinned keys; any of its issuers may have signed.
        now: Seconds since the epoch, usually `current_time`.

    Raises:
        LicenseRequiredError: `trust` has no issuer.
        SignatureError: Unsigned, signed in another way or by another issuer, or altered.
        CosignatureError: The second signature that `trust` demands is missing or wrong.
        FormatError: Signed, and not claims in this version.
        LicenseExpiredError: Past its end.
        LicenseNotYetValidError: Before its start.
    """
    # 2. and 3. The signature, and what the signed token is.
    claims = verify_claims(license.jwt, trust)
    # 4. The time.
    check_validity(claims, now=now)
    return claims


def check_validity(claims: Claims, *, now: int) -> None:
    """Judges a license's time against the clock floor; to be repeated while the model runs.

    Args:
        claims: Verified claims.
        now: Seconds since the epoch.

    Raises:
        LicenseExpiredError: At or after `expires_at` (RFC 7519 section 4.1.4).
        LicenseNotYetValidError: Before `not_before` (section 4.1.5).
    """
    moment = clock_floor(now, claims.issued_at)
    if moment >= claims.expires_at:
        ago = format_duration(moment - claims.expires_at)
        message = f"license expired {format_time(claims.expires_at)}, {ago} ago"
        raise LicenseExpiredError(message, hint="ask the issuer to renew it")
    if moment < claims.not_before:
        ahead = format_duration(claims.not_before - moment)
        message = f"license is valid from {format_time(claims.not_before)}, in {ahead}"
        raise LicenseNotYetValidError(message, hint="wait until then, or check this machine's clock")


def decrypt_license(license: License, claims: Claims, device_key: AnyDeviceKey) -> dict[str, Array]:
    """Returns the secret values of a verified license: steps 8 to 10 of opening.

    Args:
        license: The license that `claims` were verified from.
        claims: What `verify_license` returned.
        device_key: The key of one of the license's devices.

    Returns:
        Gate tensor name to secret value. The arrays are ordinary memory: drop them as soon as they are in place.

    Raises:
        LicensePartsError: The JWE or the blob is not the one that was signed.
        WrongDeviceError: Not issued to this device.
        IntegrityError: Anything that fails from the key agreement on.
    """
    # 8. The parts are those that were signed. Before this, nothing in them is parsed.
    _check_digest("JWE", license.jwe, claims.jwe_sha256)
    _check_digest("blob", license.blob, claims.blob_sha256)
    # 9. Our recipient, one key agreement, unwrap.
    content_key = unwrap_content_key(license.jwe, claims, device_key)
    # 10. The secret values.
    try:
        return _decrypt_values(license.blob, content_key, claims.license_id)
    finally:
        content_key.wipe()


def read_claims_unverified(license: License) -> UnverifiedClaims:
    """Reads what a license says about itself, with no key and no trust: for showing, never for deciding.

    Raises:
        SignatureError: The token's form or header is not the accepted one.
        FormatError: Not claims in this version.
    """
    return read_token_claims(license.jwt)


def read_recipients_unverified(license: License) -> tuple[str, ...]:
    """Returns the thumbprints of the devices a license's JWE is wrapped for; nothing is verified.

    Raises:
        FormatError: Not a JWE of this form.
    """
    return read_recipients(license.jwe)


def _check_digest(name: str, part: bytes, expected: str) -> None:
    # Both sides are public; compare_digest costs nothing and keeps the habit.
    if not hmac.compare_digest(hashlib.sha256(part).hexdigest(), expected):
        hint = "get an undamaged copy of the license, or ask the issuer for one"
        raise LicensePartsError(f"license {name} is not the one that was signed", hint=hint)


def _decrypt_values(blob: bytes, content_key: SecretBytes, license_id: str) -> dict[str, Array]:
    nonce, ciphertext = blob[:NONCE_BYTES], blob[NONCE_BYTES:]
    try:
        plaintext = AESGCM(content_key.reveal()).decrypt(nonce, ciphertext, blob_associated_data(license_id))
        return parse_tensors(plaintext)
    except (InvalidTag, ValueError):  # ValueError: a nonce cut short, or no safetensors (FormatError is one)
        raise IntegrityError from None
