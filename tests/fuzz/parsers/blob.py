"""The blob, as it is read after the signature, and the safetensors in it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fuzz.attempts import REFUSED, attempt, must_refuse, require
from fuzz.byte_source import ByteSource
from fuzz.harnesses import DECISIONS, Harness
from fuzz.mutations import changed, changed_tensors
from fuzz.originals import DEVICE, NOW, TRUST, original
from keylatch.errors import FormatError, IntegrityError
from keylatch.keys import decrypt_license, parse_license, verify_license
from keylatch.keys._issue import NONCE_BYTES, blob_associated_data
from keylatch.keys._open import _decrypt_values
from keylatch.keys._recipients import unwrap_content_key
from keylatch.keys._tensors import parse_tensors, serialize_tensors

_LICENSE, _OTHER = (parse_license(original(name)) for name in ("license", "license.other"))
_CLAIMS = verify_license(_LICENSE, TRUST, now=NOW)
_KEY = unwrap_content_key(_LICENSE.jwe, _CLAIMS, DEVICE)
_TENSORS = [original(name) for name in ("tensors", "tensors.other")]
# Types that safetensors has and numpy has not, or that are not stored here.
_FOREIGN_TYPES = tuple(
    len(header).to_bytes(8, "little") + header
    for header in (
        b'{"a":{"dtype":"%s","shape":[0],"data_offsets":[0,0]}}' % name
        for name in (b"BF16", b"F8_E4M3", b"F8_E8M0", b"C64", b"F4", b"I128")
    )
)


def decrypt_any(data: bytes) -> None:
    must_refuse(attempt(_decrypt_values, data, _KEY, _CLAIMS.license_id, errors=IntegrityError), data, {_LICENSE.blob})


def decrypt_changed(data: bytes) -> None:
    source = ByteSource(data)
    blob = changed(source, _LICENSE.blob, _OTHER.blob)
    decrypt_any(blob)


def decrypt_signed(data: bytes) -> None:
    """All the way, the changed digest in the claims."""
    source = ByteSource(data)
    blob = changed(source, _LICENSE.blob, _OTHER.blob)
    if blob:
        claims = replace(_CLAIMS, blob_sha256=hashlib.sha256(blob).hexdigest())
        outcome = attempt(decrypt_license, replace(_LICENSE, blob=blob), claims, DEVICE, errors=IntegrityError)
        must_refuse(outcome, blob, {_LICENSE.blob})


def decrypt_tensors(data: bytes) -> None:
    """Any plaintext under the real content key."""
    nonce = bytes(NONCE_BYTES)
    blob = nonce + AESGCM(_KEY.reveal()).encrypt(nonce, data, blob_associated_data(_CLAIMS.license_id))
    outcome = attempt(_decrypt_values, blob, _KEY, _CLAIMS.license_id, errors=IntegrityError)
    parsed = attempt(parse_tensors, data, errors=FormatError)
    require((outcome is REFUSED) == (parsed is REFUSED), "a blob's tensors are judged otherwise than tensors alone")
    if parsed is not REFUSED:
        _check_round_trip(data)


def decrypt_changed_tensors(data: bytes) -> None:
    source = ByteSource(data)
    decrypt_tensors(changed_tensors(source, source.choose(_TENSORS), source.choose(_TENSORS)))


def _check_round_trip(data: bytes) -> None:
    tensors = parse_tensors(data)
    again = parse_tensors(serialize_tensors(tensors))
    require(tensors.keys() == again.keys(), "tensors change their names")
    for name, tensor in tensors.items():
        same = (tensor.dtype, tensor.shape, tensor.tobytes()) == (
            again[name].dtype,
            again[name].shape,
            again[name].tobytes(),
        )
        require(same, "a tensor changes when it is stored and read")


HARNESS = Harness(
    attacks=(decrypt_any, decrypt_changed, decrypt_signed, decrypt_tensors, decrypt_changed_tensors),
    seeds=((_LICENSE.blob,), DECISIONS, DECISIONS[:2], (*_TENSORS, *_FOREIGN_TYPES), DECISIONS),
    words=(b'"dtype"', b'"shape"', b'"data_offsets"', b'"BF16"', b'"F8_E4M3"', b'"BOOL"', b'"__metadata__"', b"[0]",
           b"18446744073709551615", b"9223372036854775807", b"[]", b'"U64"', b'"F4"', b'"C64"', b'"F32"'),
)  # fmt: skip
