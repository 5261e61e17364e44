"""The public file of a device key: the key wrapped by its TPM's storage root key, and what reopening needs.

Useless on any other machine, so it is no secret. All but the wrapped half is checked before the TPM is asked: the
public half must be, byte for byte, the one that the file's other members lead to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers

from keylatch.errors import DeviceKeyError, FormatError
from keylatch.keys._device_key import COORDINATE_BYTES, DevicePublicKey
from keylatch.keys._encoding import canonical_json, decode_base64url, encode_base64url, parse_json_object
from keylatch.keys._files import PUBLIC_MODE, read_public_file, write_file
from keylatch.keys._tpm._structures import (
    PcrSelection,
    device_key_template,
    policy_digest,
    sized,
    take_sized,
)

FORMAT = "keylatch-tpm-key"
VERSION = 1
WHAT = "TPM key file"

# Such a file has about 700 bytes.
MAX_TPM_KEY_BYTES = 4 * 1024
_NAME_BYTES = 34
_DIGEST_BYTES = 32
_HINT = "get an undamaged copy of the file, or generate another key and enroll it"


@dataclass(frozen=True, slots=True)
class TpmKeyFile:
    """What the file of a device key holds.

    Args:
        public: TPM2B_PUBLIC.
        private: TPM2B_PRIVATE: the private half, encrypted and authenticated by the TPM.
        parent: Name of the storage root key that wraps it, 34 bytes: which TPM this is.
        pcrs: The PCRs that the key is bound to.
        pcr_digest: SHA-256 of their values when it was made, 32 bytes.
        pin: Using the key takes a PIN.
    """

    public: bytes
    private: bytes
    parent: bytes
    pcrs: PcrSelection
    pcr_digest: bytes
    pin: bool

    @property
    def device_public(self) -> DevicePublicKey:
        """The public key in `public`.

        Raises:
            FormatError: It is not the public half of a key like ours, with this policy.
        """
        unique = self.public[-2 * (2 + COORDINATE_BYTES) :]
        policy = policy_digest(self.pcrs, self.pcr_digest, pin=self.pin)
        if self.public != device_key_template(policy, pin=self.pin, unique=unique):
            raise FormatError("TPM public area is not that of a device key with this policy", hint=_HINT)
        x, rest = take_sized(unique)
        y, _ = take_sized(rest)
        if not len(x) == len(y) == COORDINATE_BYTES:
            raise FormatError("TPM public area has no point on P-256", hint=_HINT)
        return DevicePublicKey(_public_numbers(x, y))

    @classmethod
    def parse(cls, data: bytes, what: str) -> TpmKeyFile:
        """Reads a key file's bytes.

        Raises:
            FormatError: Not in this format and version, or its members contradict each other.
        """
        members = parse_json_object(data, what)
        if (members.get("format"), members.get("version")) != (FORMAT, VERSION):
            raise FormatError(f"{what} is not {FORMAT} version {VERSION}", hint=f"give a {WHAT}")
        file = _from_members(members)
        # One file, one spelling: no reordered, extra or missing members, no other white space.
        if data != file.to_bytes():
            raise FormatError(f"{what} is not in its canonical form", hint=_HINT)
        file.device_public  # noqa: B018 - raises where the members contradict each other
        return file

    def to_bytes(self) -> bytes:
        """Returns the file's content: one line of canonical JSON."""
        binary = {name: encode_base64url(getattr(self, name)) for name in ("public", "private", "parent", "pcr_digest")}
        members = {"format": FORMAT, "version": VERSION, "pcrs": str(self.pcrs), "pin": self.pin, **binary}
        return canonical_json(members) + b"\n"

    @classmethod
    def load(cls, path: Path) -> TpmKeyFile:
        """Reads a key file.

        Raises:
            DeviceKeyError: Missing, no regular file, too large or damaged.
        """
        try:
            return cls.parse(read_public_file(path, what=WHAT, max_bytes=MAX_TPM_KEY_BYTES), f"{WHAT} {path}")
        except FormatError as error:
            raise DeviceKeyError(error.message, hint=error.hint) from None

    def save(self, path: Path) -> None:
        """Writes the key file; refuses to overwrite.

        Raises:
            OutputError: The file exists or cannot be written.
        """
        write_file(path, self.to_bytes(), what=WHAT, mode=PUBLIC_MODE)


def _from_members(members: dict[str, Any]) -> TpmKeyFile:
    pin, pcrs = members.get("pin"), members.get("pcrs")
    if not isinstance(pin, bool) or not isinstance(pcrs, str):
        raise FormatError("TPM key file does not say whether it needs a PIN, or which PCRs", hint=_HINT)
    parent = decode_base64url(members.get("parent"), "parent name")
    pcr_digest = decode_base64url(members.get("pcr_digest"), "PCR digest")
    private = decode_base64url(members.get("private"), "private area")
    complete = len(private) > 2 and sized(private[2:]) == private
    if len(parent) != _NAME_BYTES or len(pcr_digest) != _DIGEST_BYTES or not complete:
        raise FormatError("TPM key file has a member of the wrong length", hint=_HINT)
    public = decode_base64url(members.get("public"), "public area")
    return TpmKeyFile(public, private, parent, PcrSelection.parse(pcrs), pcr_digest, pin)


def _public_numbers(x: bytes, y: bytes) -> Any:
    try:
        # public_key() checks that the point is on the curve.
        return EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), SECP256R1()).public_key()
    except ValueError:
        raise FormatError("TPM public area has no point on P-256", hint=_HINT) from None
