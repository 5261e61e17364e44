"""Making an issuer key where it is wanted, a file or a token; `init` and `rotate` do it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keylatch.cli._new_files import check_free
from keylatch.cli._options import new_passphrase_from
from keylatch.errors import OutputError
from keylatch.keys import (
    IssuerKey,
    generate_issuer_key,
    split_key_uri,
)
from keylatch.keys._file_device_key import file_location

NewKeyOption = Annotated[
    str | None,
    typer.Option(
        "--key", help="Make the private key there instead: file:PATH, or in a token, pkcs11:token=…;object=…."
    ),
]
ProtectOption = Annotated[bool, typer.Option("--protect", help="Encrypt the private key under a passphrase.")]


class NewIssuerKey:
    """Where a new issuer key and its public half go; checked at once, made later.

    Args:
        out: The private key's file, unless `uri` names another place; the public key stands beside it.
        uri: The private key's URI, or None.
        protect: Encrypt a private key file under a passphrase.
        passphrase_file: Where the passphrase or PIN stands, or None to ask for it.

    Raises:
        OutputError: One of the two files stands there already, or they would be the same.
    """

    def __init__(self, out: Path, uri: str | None, *, protect: bool, passphrase_file: Path | None) -> None:
        scheme, location = split_key_uri(f"file:{out}" if uri is None else uri)
        self.in_file = scheme == "file"
        self.uri = f"{scheme}:{location}"
        self.private = Path(file_location(location)) if self.in_file else out
        self.public = self.private.with_suffix(".pub")
        self.passphrase = new_passphrase_from(passphrase_file)
        self.encrypt = protect or passphrase_file is not None
        files = [self.private, self.public] if self.in_file else [self.public]
        if len(set(files)) < len(files):
            raise OutputError(f"{self.public} would be both keys", hint="choose a name that does not end in .pub")
        check_free(*files)

    def make(self) -> IssuerKey:
        """Make the key and write the public half."""
        # A token has a PIN in any case.
        asks = self.encrypt or not self.in_file
        key = generate_issuer_key(self.uri, passphrase=self.passphrase if asks else None)
        key.public.save(self.public)
        return key

    def named(self) -> str:
        """What to give as --issuer."""
        return str(self.private) if self.in_file else self.uri
