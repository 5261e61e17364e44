"""How a file's data key is wrapped: the part of the sealed header that KMS is asked with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from keylatch.errors import FormatError
from keylatch.keys._encoding import decode_base64url, encode_base64url

# AWS's ciphertext of a 32-byte data key has 184 bytes. All fields at their longest still fit a sealed header.
MAX_WRAPPED_KEY_BYTES = 384

_ARN = re.compile(r"arn:aws[a-z-]{0,16}:kms:([a-z]{2}[a-z0-9-]{1,30}):[0-9]{12}:key/[A-Za-z0-9-]{1,64}")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")
_HINT = "get an undamaged copy of the file"


@dataclass(frozen=True, slots=True)
class Wrapping:
    """A data key as KMS returned it, and what it is bound to.

    Args:
        key_arn: The KMS key's ARN, with its region; never an alias, which could move to another key.
        data_key: KMS's ciphertext of the data key.
        thumbprint: The device key inside.

    Raises:
        FormatError: A field is malformed or too long.
    """

    key_arn: str
    data_key: bytes
    thumbprint: str

    def __post_init__(self) -> None:
        if not _ARN.fullmatch(self.key_arn):
            raise FormatError("the file's KMS key is not named by an ARN", hint=_HINT)
        if not 1 <= len(self.data_key) <= MAX_WRAPPED_KEY_BYTES:
            found = f"the file's wrapped data key has {len(self.data_key)} bytes"
            raise FormatError(f"{found}, expected 1 to {MAX_WRAPPED_KEY_BYTES}", hint=_HINT)
        if not _THUMBPRINT.fullmatch(self.thumbprint):
            raise FormatError("the file's thumbprint is not an RFC 7638 thumbprint", hint=_HINT)

    @property
    def region(self) -> str:
        """The KMS key's region."""
        return self.key_arn.split(":")[3]

    def to_header(self) -> dict[str, str]:
        """Returns the fields for the sealed header."""
        return {"key": self.key_arn, "data_key": encode_base64url(self.data_key), "thumbprint": self.thumbprint}

    @classmethod
    def from_header(cls, fields: object) -> Self:
        """Reads the fields of a sealed header, fresh from JSON.

        Raises:
            FormatError: Missing, unknown or malformed fields.
        """
        if not isinstance(fields, dict) or set(fields) != {"key", "data_key", "thumbprint"}:
            raise FormatError("the file has missing or unknown KMS fields", hint=_HINT)
        key_arn, thumbprint = fields["key"], fields["thumbprint"]
        if not isinstance(key_arn, str) or not isinstance(thumbprint, str):
            raise FormatError("the file has KMS fields of another type than text", hint=_HINT)
        return cls(key_arn, decode_base64url(fields["data_key"], "wrapped data key"), thumbprint)


def encryption_context(thumbprint: str) -> dict[str, str]:
    """Returns what KMS binds a data key to; a key policy may ask for it, and CloudTrail shows it. No secrets."""
    return {"keylatch:purpose": "device key", "keylatch:thumbprint": thumbprint}
