"""Time tokens: an issuer tells one device the time, once, where the device's own memory of it went wrong.

The device asks with a request, which names it and the nonce of its state:

    {"keylatch": "time-request/1", "device": thumbprint, "nonce": …}

The token answers that request alone. The nonce changes with every write of the state, so that a token cannot be used
twice, or kept for later.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from keylatch.errors import ClockError, FormatError
from keylatch.keys._encoding import canonical_json, parse_json_object
from keylatch.keys._files import PUBLIC_MODE, read_public_file, write_file
from keylatch.keys._issuer_key import IssuerKey
from keylatch.keys._signed_token import TokenType
from keylatch.keys._statement import MAX_STATEMENT_BYTES, StatementType, sign_statement, verify_statement
from keylatch.keys._trust import Trust
from keylatch.keys._value_rules import NONCE, THUMBPRINT, check_values

TIME_TOKEN = TokenType("keylatch-time+jwt", "time token")
AUDIENCE = "keylatch-device"
REQUEST_VERSION = "time-request/1"
MAX_REQUEST_BYTES = 1024

_HINT = "make a new time request on the device"


def _is_confirmation(value: object) -> bool:
    # RFC 7800 with RFC 9449's jkt, as in a license, of exactly one device.
    if not isinstance(value, dict) or set(value) != {"jkt"}:
        return False
    devices = value["jkt"]
    return isinstance(devices, list) and len(devices) == 1 and THUMBPRINT[0](devices[0])


_KIND = StatementType(TIME_TOKEN, AUDIENCE, {"cnf": (_is_confirmation, "the list of one device"), "nonce": NONCE})


@dataclass(frozen=True, slots=True)
class TimeRequest:
    """What a device asks with. It proves nothing: a token for another device or nonce is useless there.

    Args:
        device: Thumbprint of the device key.
        nonce: Of the device's state, 32 bytes in base64url.

    Raises:
        FormatError: A value of another form.
    """

    device: str
    nonce: str

    def __post_init__(self) -> None:
        check_values(asdict(self), {"device": THUMBPRINT, "nonce": NONCE}, "time request", hint=_HINT)

    def serialize(self) -> bytes:
        """Returns one line of canonical JSON; `parse_time_request` reads it back."""
        return canonical_json({"keylatch": REQUEST_VERSION, **asdict(self)}) + b"\n"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a time request file.

        Raises:
            FormatError: Missing, too large, or no time request.
        """
        return cls(**_parse_request(read_public_file(Path(path), what="time request", max_bytes=MAX_REQUEST_BYTES)))

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes a time request file; it holds no secret.

        Raises:
            OutputError: The file exists (and `overwrite` is off), or it cannot be written.
        """
        write_file(Path(path), self.serialize(), what="time request", mode=PUBLIC_MODE, overwrite=overwrite)


@dataclass(frozen=True, slots=True)
class TimeToken:
    """A time under a trusted issuer's signature, for one request. Only `verify_time_token` returns one.

    Args:
        issuer: Thumbprint of the issuer key.
        issued_at: Seconds since the epoch, by the issuer's clock.
    """

    issuer: str
    issued_at: int


def parse_time_request(data: bytes) -> TimeRequest:
    """Reads a time request.

    Raises:
        FormatError: Too large, not strict JSON, another version, or missing, unknown or malformed members.
    """
    return TimeRequest(**_parse_request(data))


def sign_time_token(*, issuer: IssuerKey, request: TimeRequest, issued_at: int) -> bytes:
    """Returns a token that tells the device of `request` the time, once.

    Args:
        issuer: Signs the token.
        request: From the device.
        issued_at: Now, seconds since the epoch, by a clock that the issuer believes.

    Raises:
        FormatError: `issued_at` is out of range.
    """
    values = {"cnf": {"jkt": [request.device]}, "nonce": request.nonce}
    return sign_statement(values, issuer=issuer, issued_at=issued_at, kind=_KIND)


def verify_time_token(data: bytes, trust: Trust, request: TimeRequest) -> TimeToken:
    """Returns the time that an issuer key of `trust` signed for `request`, one that is not retired.

    Raises:
        LicenseRequiredError: No trusted issuer was given.
        SignatureError: Unsigned, signed in another way, by another issuer or by a retired key; no time token; or
            altered.
        FormatError: Too large; or signed, and not a time token in this version.
        ClockError: For another device, or for an earlier request of this one.
    """
    stated = verify_statement(data, trust, _KIND)
    (device,) = stated["cnf"]["jkt"]
    if device != request.device:
        found = f"time token is for device {device}, expected {request.device}"
        raise ClockError(found, hint="give the token that the issuer made for this device's request")
    if stated["nonce"] != request.nonce:
        found = "time token answers an earlier request: it was used, or the device has remembered something since"
        raise ClockError(found, hint="make a new time request, and use the issuer's answer at once")
    return TimeToken(stated["iss"], stated["iat"])


def read_time_token(path: str | os.PathLike[str]) -> bytes:
    """Reads a time token file; nothing in it is verified.

    Raises:
        FormatError: Missing or too large.
    """
    # One byte more for the newline that an editor or a shell leaves.
    return read_public_file(Path(path), what="time token", max_bytes=MAX_STATEMENT_BYTES + 1).removesuffix(b"\n")


def write_time_token(path: str | os.PathLike[str], data: bytes, *, overwrite: bool = False) -> None:
    """Writes a time token file.

    Raises:
        OutputError: The file exists (and `overwrite` is off), or it cannot be written.
    """
    write_file(Path(path), data, what="time token", mode=PUBLIC_MODE, overwrite=overwrite)


def _parse_request(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_REQUEST_BYTES:
        found = f"time request has {len(data)} bytes, expected at most {MAX_REQUEST_BYTES}"
        raise FormatError(found, hint=_HINT)
    value = parse_json_object(data, "time request")
    version = value.pop("keylatch", None)
    if version != REQUEST_VERSION:
        found = f"time request has version {version!a:.20}, expected {REQUEST_VERSION}"
        raise FormatError(found, hint="upgrade keylatch, or make the request with this version")
    if set(value) != {"device", "nonce"}:
        raise FormatError("time request has missing or unknown members", hint=_HINT)
    return value
