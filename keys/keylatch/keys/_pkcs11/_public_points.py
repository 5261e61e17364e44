"""Public keys as tokens encode them: CKA_EC_PARAMS and CKA_EC_POINT.

Both attributes are DER, and tokens differ: points come wrapped in an OCTET STRING (as the standard says) or bare;
Ed25519 is named by its OID (RFC 8410) or by the PrintableString of PKCS#11 3.0, which is what SoftHSM answers.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keylatch.errors import DeviceKeyError
from keylatch.keys._device_key import COORDINATE_BYTES, DevicePublicKey
from keylatch.keys._issuer_key import IssuerPublicKey

# OBJECT IDENTIFIER 1.2.840.10045.3.1.7 (RFC 5480 section 2.1.1.1).
P256_PARAMETERS = bytes.fromhex("06082a8648ce3d030107")
# PrintableString "edwards25519" (PKCS#11 3.0, curveName); and OBJECT IDENTIFIER 1.3.101.112.
ED25519_PARAMETERS = b"\x13\x0cedwards25519"
_ED25519_NAMES = (ED25519_PARAMETERS, bytes.fromhex("06032b6570"))

_ED25519_POINT_BYTES = 32
_P256_POINT_BYTES = 1 + 2 * COORDINATE_BYTES
_OCTET_STRING = 0x04


def parse_device_point(parameters: bytes, point: bytes, name: str) -> DevicePublicKey:
    """Reads the public half of the P-256 key `name`.

    Raises:
        DeviceKeyError: Another curve, or no point on it.
    """
    if parameters != P256_PARAMETERS:
        raise DeviceKeyError(f"{name} is on another curve, expected P-256", hint="generate a device key")
    try:
        # Checks that the point is on the curve.
        key = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), _unwrap(point, _P256_POINT_BYTES))
    except ValueError:
        raise _bad_point(name) from None
    return DevicePublicKey(key)


def parse_issuer_point(parameters: bytes, point: bytes, name: str) -> IssuerPublicKey:
    """Reads the public half of the Ed25519 key `name`.

    Raises:
        DeviceKeyError: Another curve, or no point of that length.
    """
    if parameters not in _ED25519_NAMES:
        raise DeviceKeyError(f"{name} is on another curve, expected Ed25519", hint="generate an issuer key")
    try:
        return IssuerPublicKey(Ed25519PublicKey.from_public_bytes(_unwrap(point, _ED25519_POINT_BYTES)))
    except ValueError:
        raise _bad_point(name) from None


def _unwrap(point: bytes, size_bytes: int) -> bytes:
    # By length, not by the first byte: 0x04 also starts an uncompressed point and may start an Ed25519 one.
    wrapped = len(point) == size_bytes + 2 and point[:2] == bytes([_OCTET_STRING, size_bytes])
    return point[2:] if wrapped else point


def _bad_point(name: str) -> DeviceKeyError:
    return DeviceKeyError(f"{name} has a public key object with a damaged point", hint="generate another key")
