"""TPM structures as the bytes that cross the bus, and the authorization policy over them (TPM 2.0 Library, part 2).

Only what a key on P-256 and a counter need. Both backends take and give these bytes, so no layout of a C structure
is known anywhere in this package.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from typing import Final

from keylatch.errors import FormatError
from keylatch.keys._device_key import COORDINATE_BYTES

# Part 2, table 9: algorithms.
ALG_AES: Final = 0x0006
ALG_SHA256: Final = 0x000B
ALG_SHA384: Final = 0x000C
ALG_NULL: Final = 0x0010
ALG_ECDSA: Final = 0x0018
ALG_ECC: Final = 0x0023
ALG_CFB: Final = 0x0043
CURVE_P256: Final = 0x0003

# Part 2, section 8.3: object attributes.
FIXED_TPM: Final = 1 << 1
FIXED_PARENT: Final = 1 << 4
SENSITIVE_DATA_ORIGIN: Final = 1 << 5
USER_WITH_AUTH: Final = 1 << 6
ADMIN_WITH_POLICY: Final = 1 << 7
NO_DA: Final = 1 << 10
RESTRICTED: Final = 1 << 16
DECRYPT: Final = 1 << 17
SIGN: Final = 1 << 18

# Part 2, section 13.4: NV attributes. A counter that its authorization, which is empty, reads and increments.
NV_COUNTER_ATTRIBUTES: Final = 1 << 2 | 1 << 4 | 1 << 18 | 1 << 25  # AUTHWRITE, type counter, AUTHREAD, NO_DA
NV_WRITTEN: Final = 1 << 29
COUNTER_BYTES: Final = 8

_COMMAND_POLICY_AUTH_VALUE: Final = 0x0000016B
_COMMAND_POLICY_PCR: Final = 0x0000017F
_PCR_BANKS = {"sha256": ALG_SHA256, "sha384": ALG_SHA384}
_PCR_COUNT: Final = 24
# TPM2_PCR_Reset takes these back to zero from any process, so that a policy over them binds to nothing (TCG PC Client
# Platform TPM Profile, section 4.6.2: 16 is for debugging, 23 for applications).
_RESETTABLE_PCRS = frozenset({16, 23})

# TPMT_SYM_DEF: AES-128 in CFB, for parameter encryption; TPMT_SIG_SCHEME: ECDSA with SHA-256; TPMT_TK_HASHCHECK: none,
# for a digest that was made outside the TPM.
SESSION_CIPHER: Final = struct.pack(">HHH", ALG_AES, 128, ALG_CFB)
ECDSA_SHA256: Final = struct.pack(">HH", ALG_ECDSA, ALG_SHA256)
NO_HASH_TICKET: Final = struct.pack(">HIH", 0x8024, 0x40000007, 0)


def sized(data: bytes) -> bytes:
    """Returns a TPM2B: the size in 16 bits, then the data."""
    return struct.pack(">H", len(data)) + data


def take_sized(data: bytes) -> tuple[bytes, bytes]:
    """Splits a TPM2B off: its content, and what follows.

    Raises:
        FormatError: There are fewer bytes than the size says.
    """
    end = 2 + int.from_bytes(data[:2], "big")
    if len(data) < max(2, end):
        raise FormatError("TPM structure is cut short", hint="get an undamaged copy of the file")
    return data[2:end], data[end:]


def ecc_point(x: int, y: int) -> bytes:
    """Returns a TPM2B_ECC_POINT."""
    return sized(b"".join(sized(value.to_bytes(COORDINATE_BYTES, "big")) for value in (x, y)))


def padded_coordinate(data: bytes) -> bytes:
    """Returns a coordinate or half a signature in 32 bytes; a TPM may leave leading zeros out (part 1, annex C.8).

    Raises:
        FormatError: It is longer.
    """
    if len(data) > COORDINATE_BYTES:
        raise FormatError(f"TPM gave a number of {len(data)} bytes, expected at most {COORDINATE_BYTES}")
    return data.rjust(COORDINATE_BYTES, b"\0")


def storage_root_template(unique: bytes) -> bytes:
    """Returns the TPM2B_PUBLIC of an ECC P-256 storage root key (EK Credential Profile, template L-2, for storage).

    Args:
        unique: Two TPM2B, the point; or what stands in its place in the template.
    """
    attributes = (
        FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | USER_WITH_AUTH | NO_DA | RESTRICTED | DECRYPT
    )  # fmt: skip
    return sized(_public_head(attributes, b"") + SESSION_CIPHER + _curve_tail() + unique)


def device_key_template(policy: bytes, *, pin: bool, unique: bytes) -> bytes:
    """Returns the TPM2B_PUBLIC of a device key.

    It leaves its TPM in no form (fixedTPM, fixedParent); only its policy authorizes its use (userWithAuth is clear);
    unrestricted, because a restricted key takes neither a foreign point nor a foreign digest. With a PIN, guessing it
    runs into the TPM's lockout (noDA is clear); without one, others' guesses must not lock the key.

    Args:
        policy: Authorization policy, 32 bytes.
        pin: The policy asks for one.
        unique: Two TPM2B, the point, or two empty ones.
    """
    attributes = (
        FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | ADMIN_WITH_POLICY | DECRYPT | SIGN | (0 if pin else NO_DA)
    )
    return sized(_public_head(attributes, policy) + struct.pack(">H", ALG_NULL) + _curve_tail() + unique)


def _public_head(attributes: int, policy: bytes) -> bytes:
    return struct.pack(">HHI", ALG_ECC, ALG_SHA256, attributes) + sized(policy)


def _curve_tail() -> bytes:
    return struct.pack(">HHH", ALG_NULL, CURVE_P256, ALG_NULL)  # no scheme of its own, the curve, no KDF


def public_name(public: bytes) -> bytes:
    """Returns the Name of a TPM2B_PUBLIC or TPM2B_NV_PUBLIC with nameAlg SHA-256 (part 1, section 16)."""
    return struct.pack(">H", ALG_SHA256) + hashlib.sha256(public[2:]).digest()


def counter_public(nv_index: int, *, written: bool) -> bytes:
    """Returns the TPM2B_NV_PUBLIC of a counter."""
    attributes = NV_COUNTER_ATTRIBUTES | (NV_WRITTEN if written else 0)
    return sized(struct.pack(">IHIHH", nv_index, ALG_SHA256, attributes, 0, COUNTER_BYTES))


@dataclass(frozen=True, slots=True)
class PcrSelection:
    """PCRs of one bank.

    Args:
        bank: ``"sha256"`` or ``"sha384"``.
        indices: Ascending, 0 to 23 without 16 and 23.
    """

    bank: str
    indices: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> PcrSelection:
        """Reads ``sha256:0,2,7``.

        Raises:
            FormatError: Another bank, no index, one out of range or out of order, or one that anybody can reset.
        """
        match = re.fullmatch(r"(sha256|sha384):((?:0|[1-9]\d?)(?:,(?:0|[1-9]\d?))*)", text, re.ASCII)
        indices = tuple(map(int, match[2].split(","))) if match else ()
        if match is None or list(indices) != sorted(set(indices)) or indices[-1] >= _PCR_COUNT:
            found = f"PCRs are {text!a:.40}, expected a bank and ascending indices up to {_PCR_COUNT - 1}"
            raise FormatError(found, hint="write pcrs=sha256:7")
        if _RESETTABLE_PCRS & set(indices):
            raise FormatError("PCRs 16 and 23 can be reset by any process, and bind to nothing", hint="choose others")
        return cls(match[1], indices)

    def __str__(self) -> str:
        return f"{self.bank}:{','.join(map(str, self.indices))}"

    def to_wire(self) -> bytes:
        """Returns a TPML_PCR_SELECTION."""
        bitmap = sum(1 << index for index in self.indices)
        return struct.pack(">IHB", 1, _PCR_BANKS[self.bank], 3) + bitmap.to_bytes(3, "little")


def policy_digest(selection: PcrSelection, pcr_digest: bytes, *, pin: bool) -> bytes:
    """Returns the digest of the policy: these PCRs with these values, and the PIN if there is one.

    Args:
        selection: The PCRs.
        pcr_digest: SHA-256 of their values, one after another.
        pin: Add TPM2_PolicyAuthValue.
    """
    # Part 3, sections 23.7 and 23.17: each policy command extends the digest, from 32 zero bytes on.
    extended = struct.pack(">I", _COMMAND_POLICY_PCR) + selection.to_wire() + pcr_digest
    digest = hashlib.sha256(bytes(32) + extended).digest()
    return hashlib.sha256(digest + struct.pack(">I", _COMMAND_POLICY_AUTH_VALUE)).digest() if pin else digest
