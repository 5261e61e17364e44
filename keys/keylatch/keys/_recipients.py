"""The encrypted half of a license: the content key wrapped for each device, as a JWE (RFC 7516, RFC 7518).

General JSON serialization, A256GCM, and for each recipient one of two algorithms: ECDH-ES+A256KW on P-256, with apu the
issuer and apv the license id (RFC 7518 section 4.6.1.2), or HPKE with ML-KEM-768 and X25519 in `_hybrid_recipients`. A
wrapped key taken into another license does not unwrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc.errors import InvalidExchangeKeyError, JoseError
from joserfc.jwe import (
    GeneralJSONEncryption,
    GeneralJSONSerialization,
    JWERegistry,
    decrypt_json,
    encrypt_json,
)
from joserfc.jwk import ECKey

from keylatch.errors import FormatError, IntegrityError, WrongDeviceError
from keylatch.keys._claims import MAX_DEVICES, Claims, UnverifiedClaims
from keylatch.keys._device_key import DeviceKey
from keylatch.keys._device_secret import AnyDeviceKey, AnyDevicePublicKey
from keylatch.keys._encoding import canonical_json, decode_base64url, encode_base64url, parse_json_object
from keylatch.keys._hybrid_key import HybridDeviceKey, HybridPublicKey
from keylatch.keys._hybrid_recipients import HYBRID_ALGORITHM, HybridKeyEncryption, HybridRecipientKey, hpke_info
from keylatch.keys._secret_bytes import SecretBytes

KEY_ALGORITHM = "ECDH-ES+A256KW"
CONTENT_ALGORITHM = "A256GCM"
WRAPPED_TYPE = "keylatch-secrets+jwe"
CONTENT_KEY_BYTES = 32
IV_BYTES = 12
TAG_BYTES = 16

_PROTECTED = {"enc": CONTENT_ALGORITHM, "typ": WRAPPED_TYPE}
_HINT = "ask the issuer for a fresh license"


class _SmallRegistry(JWERegistry):
    # joserfc 1.8 allows 64 KiB of ciphertext and 16 recipients. Here the content is one key, and before joserfc sees
    # a JWE all recipients but ours are taken out.
    max_protected_header_length = 128
    max_encrypted_key_length = 64
    max_initialization_vector_length = 16
    max_ciphertext_length = 64
    max_auth_tag_length = 32
    max_recipients = 1
    algorithms: Any = {  # noqa: RUF012 - joserfc's name, made once and never changed
        **JWERegistry.algorithms,
        "alg": {**JWERegistry.algorithms["alg"], HYBRID_ALGORITHM: HybridKeyEncryption()},
    }


# Passing algorithms= to encrypt_json or decrypt_json would replace the registry, and its limits with it.
_REGISTRY = _SmallRegistry(algorithms=[KEY_ALGORITHM, HYBRID_ALGORITHM, CONTENT_ALGORITHM])


class _DeviceECKey(ECKey):
    """joserfc's key type with the private operation handed to a `DeviceKey`, which may be hardware."""

    device: DeviceKey

    @classmethod
    def for_device(cls, device: DeviceKey) -> _DeviceECKey:
        key = cls.import_key(device.public.key)
        key.device = device
        return key

    def exchange_derive_key(self, key: ECKey) -> bytes:
        # joserfc imported the ephemeral key through cryptography, which refuses points off the curve; P-256 has no
        # points of low order, so the curve is all that is left to check.
        if key.curve_name != "P-256":
            raise InvalidExchangeKeyError
        return self.device.exchange(key.public_key).reveal()


def wrap_content_key(
    content_key: SecretBytes, devices: Sequence[AnyDevicePublicKey], *, issuer: str, license_id: str
) -> bytes:
    """Returns the JWE that gives `content_key` to each of `devices`."""
    jwe = GeneralJSONEncryption(dict(_PROTECTED), content_key.reveal())
    for device in devices:
        # joserfc types keys as its own; a hybrid one reaches only HybridKeyEncryption.
        key: Any = HybridRecipientKey(device) if isinstance(device, HybridPublicKey) else ECKey.import_key(device.key)
        jwe.add_recipient(_recipient_header(device.thumbprint, _algorithm(device), issuer, license_id), key)
    return canonical_json(encrypt_json(jwe, None, registry=_REGISTRY))


def read_recipients(jwe: bytes) -> tuple[str, ...]:
    """Returns the thumbprints a JWE says it is for; nothing is verified.

    Raises:
        FormatError: Not a JWE of this form.
    """
    return tuple(_key_id(recipient) for recipient in _parse_jwe(jwe)["recipients"])


def unwrap_content_key(jwe: bytes, claims: Claims, device_key: AnyDeviceKey) -> SecretBytes:
    """Finds this device among the recipients and unwraps the content key: step 9 of opening a license.

    Args:
        jwe: The license's JWE, its digest already compared with the claims.
        claims: The license's verified claims.
        device_key: Used for one key agreement.

    Raises:
        WrongDeviceError: Not issued to this device.
        FormatError: Not a JWE of this form.
        IntegrityError: Anything from the key agreement on.
    """
    thumbprint = device_key.public.thumbprint
    if thumbprint not in claims.devices:
        raise _wrong_device(thumbprint, claims)
    parsed = _parse_jwe(jwe)
    ours = [recipient for recipient in parsed["recipients"] if _key_id(recipient) == thumbprint]
    if len(ours) != 1:
        raise FormatError(f"license names device {thumbprint} {len(ours)} times, expected once", hint=_HINT)
    _check_recipient(ours[0], device_key.public, claims)
    # joserfc 1.8 wants a key for every recipient by default: leave ours alone, and the others unparsed.
    if isinstance(device_key, HybridDeviceKey):
        return _decrypt_hybrid(parsed, ours[0], device_key)
    return _decrypt(cast(GeneralJSONSerialization, {**parsed, "recipients": ours}), device_key)


def _algorithm(device: AnyDevicePublicKey) -> str:
    return HYBRID_ALGORITHM if isinstance(device, HybridPublicKey) else KEY_ALGORITHM


def _recipient_header(thumbprint: str, algorithm: str, issuer: str, license_id: str) -> dict[str, str]:
    return {
        "alg": algorithm,
        "kid": thumbprint,
        "apu": encode_base64url(issuer.encode("ascii")),
        "apv": encode_base64url(license_id.encode("ascii")),
    }


def _parse_jwe(jwe: bytes) -> dict[str, Any]:
    parsed = parse_json_object(jwe, "license JWE")
    texts, recipients = ("protected", "iv", "ciphertext", "tag"), parsed.get("recipients")
    if set(parsed) != {*texts, "recipients"} or not all(isinstance(parsed[name], str) for name in texts):
        raise FormatError("license JWE has missing or unknown members", hint=_HINT)
    if not isinstance(recipients, list) or not 1 <= len(recipients) <= MAX_DEVICES:
        raise FormatError(f"license JWE does not have 1 to {MAX_DEVICES} recipients", hint=_HINT)
    if parsed["protected"] != encode_base64url(canonical_json(_PROTECTED)):
        raise FormatError(f"license JWE is not {CONTENT_ALGORITHM} of type {WRAPPED_TYPE}", hint=_HINT)
    return parsed


def _key_id(recipient: object) -> str:
    header = recipient.get("header") if isinstance(recipient, dict) else None
    key_id = header.get("kid") if isinstance(header, dict) else None
    if not isinstance(key_id, str):
        raise FormatError("license JWE has a recipient without a kid", hint=_HINT)
    return key_id


def _check_recipient(recipient: dict[str, Any], device: AnyDevicePublicKey, claims: UnverifiedClaims) -> None:
    header = dict(recipient["header"])
    hybrid = isinstance(device, HybridPublicKey)
    # One of the two, by the kind of key: what the sender adds to the agreement.
    ephemeral = header.pop("ek" if hybrid else "epk", None)
    if (
        set(recipient) != {"header", "encrypted_key"}
        or not isinstance(recipient["encrypted_key"], str)
        or header != _recipient_header(device.thumbprint, _algorithm(device), claims.issuer, claims.license_id)
        or not (isinstance(ephemeral, str) if hybrid else _is_ephemeral_key(ephemeral))
    ):
        raise FormatError("license JWE has a recipient that is not in the accepted form", hint=_HINT)


def _is_ephemeral_key(epk: object) -> bool:
    return (
        isinstance(epk, dict)
        and set(epk) == {"kty", "crv", "x", "y"}
        and all(isinstance(value, str) for value in epk.values())
        and epk["kty"] == "EC"
    )


def _decrypt_hybrid(jwe: dict[str, Any], recipient: dict[str, Any], device_key: HybridDeviceKey) -> SecretBytes:
    header = recipient["header"]
    try:
        texts = (header["ek"], recipient["encrypted_key"], jwe["iv"], jwe["ciphertext"], jwe["tag"])
        ek, sealed, iv, ciphertext, tag = (decode_base64url(text, "license JWE") for text in texts)
        _check_lengths(iv, tag)
        info = hpke_info(CONTENT_ALGORITHM, header["apu"], header["apv"])
        key = device_key.open(ek, sealed, info)
        plaintext = AESGCM(key.reveal()).decrypt(iv, ciphertext + tag, jwe["protected"].encode("ascii"))
    except (InvalidTag, ValueError):  # ValueError: a length that AES-GCM refuses (FormatError is one)
        raise IntegrityError from None
    return _content_key(plaintext)


def _decrypt(jwe: GeneralJSONSerialization, device_key: DeviceKey) -> SecretBytes:
    try:
        plaintext = decrypt_json(jwe, _DeviceECKey.for_device(device_key), registry=_REGISTRY).plaintext
    except (JoseError, ValueError, KeyError, TypeError, AssertionError):
        # joserfc lets through KeyError for an unknown curve, ValueError for a bad point, AssertionError for a gap.
        raise IntegrityError from None
    return _content_key(plaintext)


def _check_lengths(iv: bytes, tag: bytes) -> None:
    # Joined, ciphertext and tag would open wherever the boundary between them lay: two forms of one license.
    if (len(iv), len(tag)) != (IV_BYTES, TAG_BYTES):
        raise IntegrityError


def _content_key(plaintext: bytes | None) -> SecretBytes:
    if plaintext is None or len(plaintext) != CONTENT_KEY_BYTES:
        raise IntegrityError
    return SecretBytes(plaintext)


def _wrong_device(thumbprint: str, claims: UnverifiedClaims) -> WrongDeviceError:
    shown = ", ".join(claims.devices[:3]) + (", …" if len(claims.devices) > 3 else "")
    found = f"license was issued to {shown}, but this device is {thumbprint}"
    return WrongDeviceError(found, hint="ask the issuer for a license for this device's public key")
