"""A device key in a TPM."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey

from keylatch.errors import DeviceKeyError, PassphraseError
from keylatch.keys._device_key import DevicePublicKey
from keylatch.keys._passphrase import PassphraseCallback, ask_passphrase
from keylatch.keys._secret_bytes import SecretBytes, Uncopyable
from keylatch.keys._tpm._connection import DECRYPT_COMMAND, ENCRYPT_RESPONSE, Connection, connected, flushed
from keylatch.keys._tpm._key_file import WHAT, TpmKeyFile
from keylatch.keys._tpm._location import KeyLocation, parse_key_location
from keylatch.keys._tpm._response_codes import TpmResponseError, reported
from keylatch.keys._tpm._session import policy_session
from keylatch.keys._tpm._storage_root import storage_root
from keylatch.keys._tpm._structures import ECDSA_SHA256, ecc_point, padded_coordinate, take_sized

# A TPM cuts an authorization value at the digest size of the key's nameAlg, SHA-256 (part 1, section 19.6.4.3).
MAX_PIN_BYTES = 32


def open_device_key(location: str, passphrase: PassphraseCallback | None) -> TpmDeviceKey:
    """Opens a device key; the TPM is asked whether it is its own.

    A PIN is tried at the first use only: trying it here would cost another use of the key.

    Args:
        location: ``PATH?tcti=…&backend=…``; see `parse_key_location`.
        passphrase: Called for the PIN if the key needs one.

    Raises:
        DeviceKeyError: The file is missing or damaged, or of another TPM.
        PassphraseError: The key needs a PIN, and none or an impossible one was given.
        KeyStoreMissingError: No TPM there.
        KeyStoreBusyError: The TPM has no free slot.
        MissingExtraError: No library to reach it with.
    """
    parsed = parse_key_location(location)
    key_file = TpmKeyFile.load(parsed.path)
    if parsed.pcrs is not None and parsed.pcrs != str(key_file.pcrs):
        found = f"{WHAT} {parsed.path} is bound to PCRs {key_file.pcrs}, but the URI says {parsed.pcrs}"
        raise DeviceKeyError(found, hint="leave pcrs= out: the file says which")
    key = TpmDeviceKey(parsed, key_file, ask_pin(passphrase, parsed) if key_file.pin else None)
    key.check_loads()
    return key


def ask_pin(passphrase: PassphraseCallback | None, location: KeyLocation) -> SecretBytes:
    """Calls back for a PIN of 1 to `MAX_PIN_BYTES` bytes.

    Raises:
        PassphraseError: No callback was given, or it returned nothing usable.
    """
    what = f"{WHAT} {location.path}"
    if passphrase is None:
        raise PassphraseError(f"{what} needs a PIN and none was given", hint="give its PIN")
    pin = ask_passphrase(passphrase, what)
    # A TPM drops zeros at the end of an authorization value (part 1, section 19.6.4.3): two PINs would be one.
    if len(pin) > MAX_PIN_BYTES or pin.reveal().endswith(b"\0"):
        found = f"PIN for {what} has {len(pin)} bytes or ends in a zero byte, expected at most {MAX_PIN_BYTES} bytes"
        raise PassphraseError(found, hint="give a shorter PIN")
    return pin


class TpmDeviceKey(Uncopyable):
    """A device key that never leaves its TPM. A `ProvingDeviceKey`.

    It holds nothing in the TPM while it is idle: each use connects, loads the key, uses it and flushes it, so that
    others can use the three slots, and nothing is left there when this process is killed between uses.
    """

    __slots__ = ("_key_file", "_location", "_pin", "_public")

    def __init__(self, location: KeyLocation, key_file: TpmKeyFile, pin: SecretBytes | None) -> None:
        self._location = location
        self._key_file = key_file
        self._pin = pin
        self._public = key_file.device_public

    @property
    def public(self) -> DevicePublicKey:
        """The half that licenses are issued to."""
        return self._public

    def exchange(self, peer: EllipticCurvePublicKey) -> SecretBytes:
        """Returns the ECDH shared secret with `peer`: the raw x coordinate, 32 bytes, big-endian.

        Raises:
            DeviceKeyError: `peer` is on another curve or on none, or the TPM refuses.
            PassphraseError: The PIN is wrong.
            PlatformChangedError: The PCRs are not those that the key is bound to.
            KeyStoreLockedError: The TPM takes no PIN for now.
            KeyStoreBusyError: The TPM has no free slot.
            KeyStoreMissingError: The TPM does not answer.
        """
        if not isinstance(peer.curve, SECP256R1):
            found = f"peer key is on curve {peer.curve.name}, expected P-256"
            raise DeviceKeyError(found, hint="ask the issuer for a license for this device")
        numbers = peer.public_numbers()
        # TPM2_ECDH_ZGen: the shared point is the response's first parameter, and must not cross the bus in clear.
        with self._in_use(DECRYPT_COMMAND | ENCRYPT_RESPONSE) as (tpm, key, session):
            shared, _ = take_sized(tpm.ecdh_zgen(key, session, ecc_point(numbers.x, numbers.y)))
            return SecretBytes(padded_coordinate(take_sized(shared)[0]))

    def prove_possession(self, statement: bytes) -> bytes:
        """Returns an ECDSA signature with SHA-256 of `statement`: r and s, 64 bytes; see `ProvingDeviceKey`.

        Raises:
            DeviceKeyError: As for `exchange`.
        """
        digest = hashlib.sha256(statement).digest()
        with self._in_use(DECRYPT_COMMAND) as (tpm, key, session):
            signature = tpm.sign(key, session, digest)
            r, rest = take_sized(signature.removeprefix(ECDSA_SHA256))
            return padded_coordinate(r) + padded_coordinate(take_sized(rest)[0])

    def check_loads(self) -> None:
        """Loads the key into the TPM and out again.

        Raises:
            DeviceKeyError: Another TPM's, damaged, or the TPM refuses.
            KeyStoreMissingError: No TPM there.
        """
        with self._loaded():
            pass

    @contextlib.contextmanager
    def _in_use(self, attributes: int) -> Iterator[tuple[Connection, int, int]]:
        with (
            self._loaded() as (tpm, root, key),
            policy_session(tpm, root, key, self._key_file, self._pin, attributes) as session,
        ):
            yield tpm, key, session

    @contextlib.contextmanager
    def _loaded(self) -> Iterator[tuple[Connection, int, int]]:
        what = f"{WHAT} {self._location.path}"
        with (
            reported(what),
            connected(self._location.access) as tpm,
            storage_root(tpm, self._key_file.parent) as root,
            flushed(tpm, self._load(tpm, root, what)) as key,
        ):
            yield tpm, root, key

    def _load(self, tpm: Connection, root: int, what: str) -> int:
        try:
            return tpm.load(root, self._key_file.private, self._key_file.public)
        except TpmResponseError as error:
            if not error.about_parameter:
                raise
            # The TPM is the right one, so what it cannot unwrap was altered.
            hint = "get an undamaged copy of the file, or generate another key and enroll it"
            raise DeviceKeyError(f"{what} is damaged: {error}", hint=hint) from None

    def __repr__(self) -> str:
        return f"TpmDeviceKey(thumbprint={self.public.thumbprint!r})"
