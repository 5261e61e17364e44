"""`keylatch issuer`: the key that signs licenses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keylatch.cli._options import JsonOption, PassphraseFile, passphrase_from
from keylatch.cli._output import print_facts, print_json
from keylatch.errors import OutputError
from keylatch.keys import FileIssuerKey

app = typer.Typer(no_args_is_help=True, help="The key that signs licenses.")


@app.callback()
def _group() -> None:
    """The key that signs licenses."""


@app.command("init")
def init(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Private key file; the public key gets the suffix .pub.")
    ] = Path("issuer.key"),
    protect: Annotated[bool, typer.Option("--protect", help="Encrypt the private key under a passphrase.")] = False,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Make an issuer key pair: keep the private key, give the public key to everybody who runs your models."""
    public = out.with_suffix(".pub")
    if public.exists():
        raise OutputError(f"{public} exists already", hint="choose another name with --out")
    key = FileIssuerKey.generate()
    key.save(out, passphrase=passphrase_from(passphrase_file) if protect or passphrase_file else None)
    key.public.save(public)
    facts = {"private_key": str(out), "public_key": str(public), "thumbprint": key.public.thumbprint}
    print_json(facts) if as_json else print_facts(facts.items())
