"""Making a device key in a TPM."""

from __future__ import annotations

import hashlib

from keylatch.errors import DeviceKeyError, FormatError
from keylatch.keys._passphrase import PassphraseCallback
from keylatch.keys._secret_bytes import SecretBytes
from keylatch.keys._tpm._connection import (
    AUDIT,
    CONTINUE_SESSION,
    DECRYPT_COMMAND,
    ENCRYPT_RESPONSE,
    Connection,
    connected,
)
from keylatch.keys._tpm._key_file import TpmKeyFile
from keylatch.keys._tpm._location import DEFAULT_PCRS, parse_key_location
from keylatch.keys._tpm._response_codes import reported
from keylatch.keys._tpm._session import hmac_session
from keylatch.keys._tpm._storage_root import storage_root
from keylatch.keys._tpm._structures import PcrSelection, device_key_template, policy_digest, sized, take_sized
from keylatch.keys._tpm._tpm_device_key import TpmDeviceKey, ask_pin


def generate_device_key(location: str, passphrase: PassphraseCallback | None) -> TpmDeviceKey:
    """Makes a device key in a TPM, bound to its PCRs as they are now, and writes its public file.

    Nothing of it stays in the TPM. Which TPM this is, is taken on its own word: an interposer that is there already
    can offer another one. From then on the key file tells that TPM from all others.

    Args:
        location: ``PATH?tcti=…&pcrs=sha256:7&backend=…``; see `parse_key_location`.
        passphrase: Called for a PIN that using the key will take; without it there is none.

    Raises:
        OutputError: The file exists or cannot be written.
        DeviceKeyError: PCRs that cannot be bound to, or the TPM refuses.
        PassphraseError: The callback returned no usable PIN.
        KeyStoreMissingError: No TPM there.
        KeyStoreBusyError: The TPM has no free slot.
        MissingExtraError: No library to reach it with.
    """
    parsed = parse_key_location(location)
    pcrs = _parse_pcrs(parsed.pcrs or DEFAULT_PCRS)
    pin = None if passphrase is None else ask_pin(passphrase, parsed)
    with reported("new TPM key"), connected(parsed.access) as tpm:
        key_file = _create(tpm, pcrs, pin)
    key = TpmDeviceKey(parsed, key_file, pin)
    key_file.save(parsed.path)
    return key


def _parse_pcrs(text: str) -> PcrSelection:
    try:
        return PcrSelection.parse(text)
    except FormatError as error:
        raise DeviceKeyError(error.message, hint=error.hint) from None


def _create(tpm: Connection, pcrs: PcrSelection, pin: SecretBytes | None) -> TpmKeyFile:
    with storage_root(tpm, None) as root, hmac_session(tpm, root) as session:
        pcr_digest = _read_pcr_digest(tpm, session, pcrs)
        policy = policy_digest(pcrs, pcr_digest, pin=pin is not None)
        template = device_key_template(policy, pin=pin is not None, unique=2 * sized(b""))
        # TPM2_Create: the PIN is in the command's first parameter, which the session encrypts.
        tpm.set_attributes(session, CONTINUE_SESSION | DECRYPT_COMMAND | ENCRYPT_RESPONSE)
        private, public = tpm.create(root, session, template, b"" if pin is None else pin.reveal())
        return TpmKeyFile(public, private, tpm.name(root), pcrs, pcr_digest, pin is not None)


def _read_pcr_digest(tpm: Connection, session: int, pcrs: PcrSelection) -> bytes:
    # TPM2_PCR_Read takes no authorization; as an audit session the session still puts an HMAC on the answer. It gives
    # at most eight values, and leaves out PCRs of a bank that is switched off, so they are read one by one.
    tpm.set_attributes(session, CONTINUE_SESSION | AUDIT)
    values = hashlib.sha256()
    for index in pcrs.indices:
        values.update(_read_pcr(tpm, session, PcrSelection(pcrs.bank, (index,))))
    return values.digest()


def _read_pcr(tpm: Connection, session: int, pcr: PcrSelection) -> bytes:
    read, digests = tpm.read_pcrs(session, pcr.to_wire())
    if read != pcr.to_wire():
        raise DeviceKeyError(f"the TPM keeps no PCR {pcr}", hint="choose another bank, or switch it on in the firmware")
    return take_sized(digests[4:])[0]  # after the count, which is one
