"""The JWE, as it is read after the signature: whatever stands in it, the one content key comes out or nothing does."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from fuzz.attempts import REFUSED, attempt, require
from fuzz.byte_source import ByteSource
from fuzz.harnesses import DECISIONS, Harness
from fuzz.mutations import changed, changed_json
from fuzz.originals import DEVICE, FOREIGN_DEVICE, HYBRID_DEVICE, ISSUER, NOW, OTHER_DEVICE, SECRETS, TRUST, original
from keylatch.errors import FormatError, IntegrityError, WrongDeviceError
from keylatch.keys import AnyDeviceKey, Claims, License, decrypt_license, parse_license, verify_license
from keylatch.keys._recipients import read_recipients
from keylatch.keys._token import sign_claims

_NAMES = ("license", "license.other", "license.shared", "license.hybrid", "license.hybrid.other")
_LICENSES = [parse_license(original(name)) for name in _NAMES]
_CLAIMS = [verify_license(license, TRUST, now=NOW) for license in _LICENSES]
_DEVICES: tuple[AnyDeviceKey, ...] = (DEVICE, HYBRID_DEVICE, OTHER_DEVICE, FOREIGN_DEVICE)
_ERRORS = (FormatError, WrongDeviceError, IntegrityError)


def parse(data: bytes) -> None:
    """Arbitrary bytes as the signed JWE of a license for one P-256 and one hybrid device."""
    attempt(read_recipients, data, errors=FormatError)
    for device in (DEVICE, HYBRID_DEVICE):
        _open(_LICENSES[2], _CLAIMS[2], data, device)


def open_changed(data: bytes) -> None:
    source = ByteSource(data)
    index = source.below(len(_LICENSES))
    license, other = _LICENSES[index], source.choose(_LICENSES)
    edit = changed if source.below(8) == 0 else changed_json
    jwe = edit(source, license.jwe, other.jwe)
    attempt(read_recipients, jwe, errors=FormatError)
    _open(license, _CLAIMS[index], jwe, _device(source, index))


def open_with_members(data: bytes) -> None:
    """Our recipient's own members changed, the JSON around them sound: what goes down to the key agreement."""
    source = ByteSource(data)
    index = source.below(len(_LICENSES))
    jwe, other = json.loads(_LICENSES[index].jwe), json.loads(source.choose(_LICENSES).jwe)
    device = _device(source, index)
    ours = next((r for r in jwe["recipients"] if r["header"]["kid"] == device.public.thumbprint), jwe["recipients"][0])
    theirs = other["recipients"][0]
    match source.below(6):
        case 0:
            name = source.choose(("iv", "ciphertext", "tag"))
            jwe[name] = _edited(source, jwe[name], other[name])
        case 1:
            ours["encrypted_key"] = _edited(source, ours["encrypted_key"], theirs["encrypted_key"])
        case 2 if "ek" in ours["header"]:
            ours["header"]["ek"] = _edited(source, ours["header"]["ek"], theirs["header"].get("ek", ""))
        case 2 | 3 if "epk" in ours["header"]:
            name = source.choose(("x", "y", "crv"))
            ours["header"]["epk"][name] = _edited(source, ours["header"]["epk"][name], "P-384")
        case 4:
            ours["header"] = {**theirs["header"], "kid": ours["header"]["kid"]}
        case _:
            name = source.choose(("iv", "ciphertext", "tag"))
            jwe[name], ours["encrypted_key"] = other[name], source.choose((ours, theirs))["encrypted_key"]
    _open(_LICENSES[index], _CLAIMS[index], json.dumps(jwe).encode(), device)


def open_signed(data: bytes) -> None:
    """The same, with the changed digest really signed, and everything verified on the way."""
    source = ByteSource(data)
    index = source.below(len(_LICENSES))
    jwe = changed_json(source, _LICENSES[index].jwe, source.choose(_LICENSES).jwe)
    if not jwe:
        return
    claims = replace(_CLAIMS[index], jwe_sha256=hashlib.sha256(jwe).hexdigest())
    license = replace(_LICENSES[index], jwt=sign_claims(claims, ISSUER))
    _open(license, verify_license(license, TRUST, now=NOW), jwe, _device(source, index))


def _device(source: ByteSource, index: int) -> AnyDeviceKey:
    right = HYBRID_DEVICE if _NAMES[index].startswith("license.hybrid") else DEVICE
    return source.choose(_DEVICES) if source.below(4) == 0 else right


def _edited(source: ByteSource, text: str, other: str) -> str:
    return changed(source, text.encode(), other.encode()).decode("utf-8", "replace")


def _open(license: License, claims: Claims, jwe: bytes, device: AnyDeviceKey) -> None:
    if not jwe:
        return
    signed = replace(claims, jwe_sha256=hashlib.sha256(jwe).hexdigest())
    values = attempt(decrypt_license, replace(license, jwe=jwe), signed, device, errors=_ERRORS)
    if values is not REFUSED:
        require(device.public.thumbprint in claims.devices, "a device opened a license that is not for it")
        require({name: value.tobytes() for name, value in values.items()} == SECRETS, "another content key was taken")


HARNESS = Harness(
    attacks=(parse, open_changed, open_with_members, open_signed),
    seeds=(tuple(license.jwe for license in _LICENSES), DECISIONS, DECISIONS, DECISIONS),
    words=(b'"recipients"', b'"header"', b'"epk"', b'"ek"', b'"crv":"P-384"', b'"crv":"X25519"', b'"zip"', b'"crit"',
           b'"alg":"dir"', b'"encrypted_key"', b'"protected"', b'"aad"', b'"unprotected"', b'"apu"', b'"apv"'),
)  # fmt: skip
