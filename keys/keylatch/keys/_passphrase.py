"""From a passphrase to a key: asking for it, and Argon2id with bounded parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from keylatch.errors import DeviceKeyError, FormatError, PassphraseError
from keylatch.keys._secret_bytes import SecretBytes

PassphraseCallback: TypeAlias = Callable[[str], SecretBytes | bytes]
"""Called with what the passphrase is for, e.g. ``"device key file device.key"``; returns the passphrase."""

MAX_PASSPHRASE_BYTES = 1024

# RFC 9106 section 4, the second recommended option, for memory-constrained use: it must also run on an edge device.
ITERATIONS = 3
MEMORY_KIB = 64 * 1024
LANES = 4

# What a file may ask of its reader: about a second of work, not a machine's whole memory.
MAX_ITERATIONS = 16
MAX_MEMORY_KIB = 1024 * 1024
MAX_LANES = 16


@dataclass(frozen=True, slots=True)
class Argon2Parameters:
    """Cost of one Argon2id derivation (RFC 9106 section 3.1).

    Args:
        iterations: Passes over the memory, 1 to `MAX_ITERATIONS`.
        memory_kib: Memory in KiB, at least eight for each lane, at most `MAX_MEMORY_KIB`.
        lanes: Independent columns, 1 to `MAX_LANES`.

    Raises:
        FormatError: A value is no integer or out of bounds.
    """

    iterations: int = ITERATIONS
    memory_kib: int = MEMORY_KIB
    lanes: int = LANES

    def __post_init__(self) -> None:
        # type(), not isinstance(): a JSON true is an int to Python.
        integers = all(type(value) is int for value in asdict(self).values())
        if not (
            integers
            and 1 <= self.iterations <= MAX_ITERATIONS
            and 1 <= self.lanes <= MAX_LANES
            and 8 * self.lanes <= self.memory_kib <= MAX_MEMORY_KIB
        ):
            raise FormatError("Argon2id parameters are out of bounds", hint="get an undamaged copy of the file")


def derive_key(passphrase: SecretBytes, salt: bytes, parameters: Argon2Parameters) -> SecretBytes:
    """Derives a 32-byte key from a passphrase (RFC 9106, Argon2id version 1.3).

    Raises:
        DeviceKeyError: The installed `cryptography` was built without Argon2id.
    """
    try:
        kdf = Argon2id(
            salt=salt,
            length=32,
            iterations=parameters.iterations,
            lanes=parameters.lanes,
            memory_cost=parameters.memory_kib,
        )
        return SecretBytes(kdf.derive(passphrase.reveal()))
    except UnsupportedAlgorithm:
        hint = "install cryptography from its own wheels, built with OpenSSL 3.2 or later"
        raise DeviceKeyError("the installed cryptography has no Argon2id", hint=hint) from None


def ask_passphrase(callback: PassphraseCallback | None, description: str) -> SecretBytes:
    """Calls back for a passphrase.

    The bytes are used as they are: no Unicode normalisation, so the same passphrase must be typed the same way.

    Args:
        callback: Returns the passphrase as UTF-8 bytes or `SecretBytes`.
        description: What it is for.

    Raises:
        PassphraseError: No callback was given, or it returned nothing usable.
    """
    if callback is None:
        raise PassphraseError(f"{description} is encrypted and no passphrase was given", hint="give its passphrase")
    answer: object = callback(description)
    if not isinstance(answer, (SecretBytes, bytes)):
        hint = "return bytes or SecretBytes from the passphrase callback"
        raise PassphraseError(f"passphrase for {description} is a {type(answer).__name__}, expected bytes", hint=hint)
    if not 1 <= len(answer) <= MAX_PASSPHRASE_BYTES:
        hint = f"give a passphrase of 1 to {MAX_PASSPHRASE_BYTES} bytes"
        raise PassphraseError(f"passphrase for {description} has {len(answer)} bytes", hint=hint)
    return answer if isinstance(answer, SecretBytes) else SecretBytes(answer)
