"""Every deliberate error of Keylatch.

    KeylatchError                  base of all; `message`, and `hint`: what to do about it
    ├── MissingExtraError          an optional dependency is not installed
    ├── FormatError                bytes that are no well-formed license, vault, manifest or key of ours
    ├── LockError                  a network that cannot be locked as asked
    ├── ExportError                a locked network that cannot be exported
    │   └── ProofError             exported, but the artifact did not prove itself; nothing was kept
    ├── DeviceKeyError             a key that is missing, unsafe or of the wrong kind
    │   ├── PassphraseError        the passphrase or PIN is missing or wrong
    │   ├── KeyStoreLockedError    a token or TPM that takes no PIN for now, after wrong ones
    │   ├── KeyStoreMissingError   no such TPM, HSM or key service, or it does not answer
    │   ├── KeyStoreBusyError      a TPM or HSM without a free session or object slot
    │   └── PlatformChangedError   the TPM's PCRs are not those that the key is bound to
    ├── EnrollmentError            an enrollment request that proves nothing
    ├── DeviceStateError           what a device remembers cannot be believed
    │   ├── StateMissingError      the state file is gone
    │   ├── StateEditedError       the state file is not what this device wrote
    │   └── StateRolledBackError   the state file is older than the TPM's counter
    ├── ClockError                 the time cannot be known well enough
    │   ├── ClockUnreadableError   the system's clock cannot be read
    │   └── ClockSetBackError      the clock stands before a moment that has passed
    ├── LedgerError                the issuer's ledger refuses, or cannot be used
    │   ├── LedgerMissingError     no ledger there
    │   ├── LedgerBusyError        another process holds it for too long
    │   ├── LedgerReadOnlyError    it cannot be written
    │   ├── LedgerFullError        the disk is full; nothing was recorded
    │   └── LedgerEntryError       no such model, device or license, or more than one
    ├── ArtifactError              a locked model's files are missing, unsafe or not those of its manifest
    │   └── DigestError            a file's bytes differ from the digest in the manifest
    ├── LicenseError               a license that does not open this model on this device now
    │   ├── LicenseRequiredError   no license, key or trusted issuer was given
    │   ├── SignatureError         not signed by a trusted issuer, or not in the one accepted way
    │   │   └── CosignatureError   the post-quantum signature is missing, or not by a trusted key
    │   ├── LicenseExpiredError    after `exp`
    │   ├── LicenseNotYetValidError before `nbf`
    │   ├── WrongModelError        issued for another model
    │   ├── WrongDeviceError       issued to other devices
    │   ├── LicensePartsError      the encrypted parts are not those that were signed
    │   ├── LicenseRevokedError    on the revocation list
    │   ├── OlderLicenseError      a newer license was seen for this model on this device
    │   └── RevocationListError    the revocation list does not do
    │       ├── RevocationListRequiredError  the license asks for one, and none was given
    │       ├── StaleRevocationListError     older than it or the license allows
    │       └── OlderRevocationListError     a newer list was seen
    ├── IntegrityError             anything that fails from the decryption on; tells nothing more, on purpose
    ├── OutputError                a file cannot be written, or stands there already
    ├── SessionOptionError         an option that would write secrets out, or that is not available
    └── InputError                 an input whose name, dtype or shape the model does not take

Up to the signature check messages are precise: "got …, expected …". From the decryption on, one `IntegrityError` stands
for every failure, so that nobody learns from the error how close a forgery came.
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "ClockError",
    "ClockSetBackError",
    "ClockUnreadableError",
    "CosignatureError",
    "DeviceKeyError",
    "DeviceStateError",
    "DigestError",
    "EnrollmentError",
    "ExportError",
    "FormatError",
    "InputError",
    "IntegrityError",
    "KeyStoreBusyError",
    "KeyStoreLockedError",
    "KeyStoreMissingError",
    "KeylatchError",
    "LedgerBusyError",
    "LedgerEntryError",
    "LedgerError",
    "LedgerFullError",
    "LedgerMissingError",
    "LedgerReadOnlyError",
    "LicenseError",
    "LicenseExpiredError",
    "LicenseNotYetValidError",
    "LicensePartsError",
    "LicenseRequiredError",
    "LicenseRevokedError",
    "LockError",
    "MissingExtraError",
    "OlderLicenseError",
    "OlderRevocationListError",
    "OutputError",
    "PassphraseError",
    "PlatformChangedError",
    "ProofError",
    "RevocationListError",
    "RevocationListRequiredError",
    "SessionOptionError",
    "SignatureError",
    "StaleRevocationListError",
    "StateEditedError",
    "StateMissingError",
    "StateRolledBackError",
    "WrongDeviceError",
    "WrongModelError",
]


class KeylatchError(Exception):
    """Base of every deliberate error.

    Args:
        message: One sentence in lower case: what was found and what was expected.
        hint: What the user can do about it, as an imperative.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"


class MissingExtraError(KeylatchError, ImportError):
    """An optional dependency is not installed.

    Args:
        purpose: What needs it, e.g. ``"exporting"``.
        package: The missing package, e.g. ``"torch"``.
        extra: The extra of the `keylatch` distribution that brings it.
    """

    def __init__(self, purpose: str, package: str, extra: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed", hint=f"pip install 'keylatch[{extra}]'")
        self.extra = extra


class FormatError(KeylatchError, ValueError):
    """Bytes that are not a well-formed license, vault, manifest or public key."""


class LockError(KeylatchError):
    """A network that cannot be locked as asked."""


class ExportError(KeylatchError):
    """A locked network that cannot be exported."""


class ProofError(ExportError):
    """The exported artifact did not prove itself against the PyTorch module; nothing was kept."""


class DeviceKeyError(KeylatchError):
    """A key that is missing, unsafe or of the wrong kind."""


class PassphraseError(DeviceKeyError):
    """The passphrase of a key or vault, or the PIN of a token, is missing or wrong."""


class KeyStoreLockedError(DeviceKeyError):
    """A token or TPM that takes no PIN for now, after wrong ones."""


class KeyStoreMissingError(DeviceKeyError):
    """No such TPM, HSM or key service, or it does not answer."""


class KeyStoreBusyError(DeviceKeyError):
    """A TPM or HSM without a free session or object slot."""


class PlatformChangedError(DeviceKeyError):
    """The TPM's PCRs are not those that the key is bound to."""


class EnrollmentError(KeylatchError):
    """An enrollment request that proves nothing."""


class DeviceStateError(KeylatchError):
    """What a device remembers cannot be believed."""


class StateMissingError(DeviceStateError):
    """The state file is gone."""


class StateEditedError(DeviceStateError):
    """The state file is not what this device wrote."""


class StateRolledBackError(DeviceStateError):
    """The state file is older than the TPM's counter."""


class ClockError(KeylatchError):
    """The time cannot be known well enough."""


class ClockUnreadableError(ClockError):
    """The system's clock cannot be read."""


class ClockSetBackError(ClockError):
    """The clock stands before a moment that has passed."""


class LedgerError(KeylatchError):
    """The issuer's ledger refuses, or cannot be used."""


class LedgerMissingError(LedgerError):
    """No ledger stands there."""


class LedgerBusyError(LedgerError):
    """Another process holds the ledger for too long."""


class LedgerReadOnlyError(LedgerError):
    """The ledger cannot be written."""


class LedgerFullError(LedgerError):
    """The ledger's disk is full; nothing was recorded."""


class LedgerEntryError(LedgerError):
    """No such model, device or license in the ledger, or more than one."""


class ArtifactError(KeylatchError):
    """A locked model's files are missing, unsafe or not those of its manifest."""


class DigestError(ArtifactError):
    """A file's bytes differ from the digest in the manifest."""


class LicenseError(KeylatchError):
    """A license that does not open this model on this device now."""


class LicenseRequiredError(LicenseError):
    """No license, device key or trusted issuer was given."""


class SignatureError(LicenseError):
    """Not signed by a trusted issuer, or not in the one accepted way."""


class LicenseExpiredError(LicenseError):
    """The license's `exp` has passed."""


class LicenseNotYetValidError(LicenseError):
    """The license's `nbf` lies ahead."""


class WrongModelError(LicenseError):
    """The license was issued for another model."""


class WrongDeviceError(LicenseError):
    """The license was issued to other devices."""


class LicensePartsError(LicenseError):
    """The encrypted parts of the license are not those that were signed."""


class CosignatureError(SignatureError):
    """The post-quantum signature is missing, or not by a trusted key."""


class LicenseRevokedError(LicenseError):
    """The license stands on the revocation list."""


class OlderLicenseError(LicenseError):
    """A newer license was seen for this model on this device."""


class RevocationListError(LicenseError):
    """The revocation list does not do."""


class RevocationListRequiredError(RevocationListError):
    """The license asks for a revocation list, and none was given."""


class StaleRevocationListError(RevocationListError):
    """The revocation list is older than it or the license allows."""


class OlderRevocationListError(RevocationListError):
    """A newer revocation list was seen."""


class IntegrityError(KeylatchError):
    """Anything that fails from the decryption on; tells nothing more, on purpose."""

    def __init__(self) -> None:
        super().__init__(
            "the license could not be opened with this key",
            hint="ask the issuer for a fresh license for this device; check the files for damage",
        )


class OutputError(KeylatchError):
    """A file cannot be written, or stands there already."""


class SessionOptionError(KeylatchError, ValueError):
    """A session or provider option that would write secrets out, or that is not available."""


class InputError(KeylatchError, ValueError):
    """An input whose name, dtype or shape the model does not take."""
