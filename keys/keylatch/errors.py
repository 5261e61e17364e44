"""Every deliberate error of Keylatch.

    KeylatchError                  base of all; `message`, and `hint`: what to do about it
    ├── MissingExtraError          an optional dependency is not installed
    ├── FormatError                bytes that are no well-formed license, vault, manifest or key of ours
    ├── LockError                  a network that cannot be locked as asked
    ├── ExportError                a locked network that cannot be exported
    │   └── ProofError             exported, but the artifact did not prove itself; nothing was kept
    ├── DeviceKeyError             a key file that is missing, unsafe or of the wrong kind
    │   └── PassphraseError        the passphrase is missing or wrong
    ├── ArtifactError              a locked model's files are missing, unsafe or not those of its manifest
    │   └── DigestError            a file's bytes differ from the digest in the manifest
    ├── LicenseError               a license that does not open this model on this device now
    │   ├── LicenseRequiredError   no license, key or trusted issuer was given
    │   ├── SignatureError         not signed by a trusted issuer, or not in the one accepted way
    │   ├── LicenseExpiredError    after `exp`
    │   ├── LicenseNotYetValidError before `nbf`
    │   ├── WrongModelError        issued for another model
    │   ├── WrongDeviceError       issued to other devices
    │   └── LicensePartsError      the encrypted parts are not those that were signed
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
    "DeviceKeyError",
    "DigestError",
    "ExportError",
    "FormatError",
    "InputError",
    "IntegrityError",
    "KeylatchError",
    "LicenseError",
    "LicenseExpiredError",
    "LicenseNotYetValidError",
    "LicensePartsError",
    "LicenseRequiredError",
    "LockError",
    "MissingExtraError",
    "OutputError",
    "PassphraseError",
    "ProofError",
    "SessionOptionError",
    "SignatureError",
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
    """A key file that is missing, unsafe or of the wrong kind."""


class PassphraseError(DeviceKeyError):
    """The passphrase of a key or vault is missing or wrong."""


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
