"""Options that several verbs share."""

from __future__ import annotations

import getpass
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from keylatch.errors import PassphraseError
from keylatch.keys import PassphraseCallback, SecretBytes

_MAX_PASSPHRASE_BYTES = 4096

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="File whose first line is the passphrase; default: ask on the terminal."),
]
IssuerOption = Annotated[
    str, typer.Option("--issuer", help="The issuer's private key: a file, or a URI such as pkcs11:token=…;object=….")
]
LedgerOption = Annotated[
    Path | None,
    typer.Option("--ledger", help="The issuer's ledger; default: named after the key, else the only one beside it."),
]
LedgerOfOption = Annotated[
    str | None, typer.Option("--issuer", help="The issuer key whose ledger is meant, if --ledger does not say.")
]
VaultKeyOption = Annotated[
    str | None,
    typer.Option("--vault-key", help="The key the vault is sealed under, if not --issuer: the one before a rotation."),
]
CosignOption = Annotated[
    Path | None, typer.Option("--cosign", help="A cosigner key, e.g. issuer.mldsa.key: signs too, with ML-DSA-65.")
]
DaysOption = Annotated[float, typer.Option("--days", min=0, help="How long it is valid, from --not-before on.")]
NotBeforeOption = Annotated[
    datetime | None,
    typer.Option("--not-before", help="First moment, UTC; default now.", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
]
LicenseOption = Annotated[Path | None, typer.Option("--license", help="The license file.")]
KeyOption = Annotated[str | None, typer.Option("--key", help="The device key, e.g. file:device.key.")]
TrustOption = Annotated[
    list[Path] | None, typer.Option("--trust", help="The issuer's public key or trust file; may be repeated.")
]
RevocationsOption = Annotated[Path | None, typer.Option("--revocations", help="The issuer's revocation list.")]
StateOption = Annotated[
    Path | None, typer.Option("--state", help="What this device remembers: refuses a clock set back, older licenses.")
]
CounterOption = Annotated[
    str | None, typer.Option("--counter", help="The counter that --state was made with, e.g. tpm:nv=0x01800100.")
]
ProviderOption = Annotated[
    list[str] | None,
    typer.Option("--provider", help="onnxruntime provider, e.g. CUDAExecutionProvider; in order of preference."),
]


def passphrase_from(file: Path | None) -> PassphraseCallback:
    """A callback that reads the passphrase from a file, or asks for it on the terminal. Never from argv."""

    def ask(what: str) -> SecretBytes:
        if file is not None:
            return _read_first_line(file)
        named = what if what.startswith("PIN ") else f"passphrase for {what}"
        if not sys.stdin.isatty():
            raise PassphraseError(
                f"{named} is needed, and there is no terminal to ask on", hint="give --passphrase-file"
            )
        return SecretBytes(getpass.getpass(f"{named}: ", stream=sys.stderr).encode())

    return ask


def new_passphrase_from(file: Path | None) -> PassphraseCallback:
    """As `passphrase_from`, for one that is being set: on the terminal it is asked for twice."""
    ask = passphrase_from(file)

    def ask_twice(what: str) -> SecretBytes | bytes:
        answer = ask(what)
        # A token's PIN exists already; a typo in it is noticed at once.
        if file is None and not what.startswith("PIN ") and ask(f"{what}, again") != answer:
            raise PassphraseError(f"the two passphrases for {what} differ", hint="type the same one twice")
        return answer

    return ask_twice


def _read_first_line(file: Path) -> SecretBytes:
    try:
        with file.open("rb") as stream:
            line = stream.readline(_MAX_PASSPHRASE_BYTES).rstrip(b"\r\n")
    except OSError as error:
        raise PassphraseError(
            f"passphrase file {file} cannot be read: {error.strerror}", hint="check the path"
        ) from None
    if not line:
        raise PassphraseError(f"passphrase file {file} has an empty first line", hint="write the passphrase there")
    return SecretBytes(line)
