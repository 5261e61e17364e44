"""`keylatch device`: the key that licenses are issued to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keylatch.cli._options import JsonOption, PassphraseFile, passphrase_from
from keylatch.cli._output import print_facts, print_json
from keylatch.errors import DeviceKeyError, OutputError
from keylatch.keys import FileDeviceKey

app = typer.Typer(no_args_is_help=True, help="The key that licenses are issued to.")


@app.callback()
def _group() -> None:
    """The key that licenses are issued to."""


@app.command("init")
def init(
    key: Annotated[str, typer.Option("--key", help="Where the key goes, as a URI.")] = "file:device.key",
    protect: Annotated[bool, typer.Option("--protect", help="Encrypt the private key under a passphrase.")] = False,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Make a device key. Send the .pub file to the issuer; the private key never leaves this device."""
    scheme, separator, location = key.partition(":")
    if separator and scheme != "file":
        raise DeviceKeyError(f"a key cannot be made at {scheme}: URIs", hint="give file:PATH")
    private = Path(location if separator else key)
    public = private.with_suffix(".pub")
    if public.exists():
        raise OutputError(f"{public} exists already", hint="choose another name with --key file:PATH")
    device = FileDeviceKey.generate(
        private, passphrase=passphrase_from(passphrase_file) if protect or passphrase_file else None
    )
    device.public.save(public)
    facts = {"private_key": str(private), "public_key": str(public), "thumbprint": device.public.thumbprint}
    print_json(facts) if as_json else print_facts(facts.items())
