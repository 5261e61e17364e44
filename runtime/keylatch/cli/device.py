"""`keylatch device`: the key that licenses are issued to, and what the device remembers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, cast

import typer

from keylatch.cli._device_state import DeviceKeyOption, init_state, set_time, show_state, time_request
from keylatch.cli._new_files import check_free
from keylatch.cli._options import JsonOption, PassphraseFile, new_passphrase_from, passphrase_from
from keylatch.cli._output import note_console, print_facts, print_json
from keylatch.errors import DeviceKeyError, KeylatchError, OutputError
from keylatch.keys import (
    AnyDeviceKey,
    AnyDevicePublicKey,
    HybridDeviceKey,
    ProvingDeviceKey,
    current_time,
    generate_device_key,
    open_device_key,
    split_key_uri,
)
from keylatch.keys._enrollment import check_facts, make_enrollment_request, write_enrollment_request

app = typer.Typer(no_args_is_help=True, help="The key that licenses are issued to, and what the device remembers.")

Facts = Annotated[
    list[str] | None, typer.Option("--fact", help="Something to say of the device, name=value; may be repeated.")
]
RequestFile = Annotated[
    Path | None, typer.Option("--request", help="Write the enrollment request to this file instead of stdout.")
]
PublicFile = Annotated[
    Path | None, typer.Option("--public", help="Public key file; by default the key's file with the suffix .pub.")
]


@app.callback()
def _group() -> None:
    """The key that licenses are issued to, and what the device remembers."""


@app.command("init")
def init(
    key: Annotated[
        str, typer.Option("--key", help="Where the key goes: file:, hybrid:, tpm:, pkcs11: or awskms:.")
    ] = "file:device.key",
    fact: Facts = None,
    request: RequestFile = None,
    public: PublicFile = None,
    protect: Annotated[
        bool, typer.Option("--protect", help="Encrypt a key file under a passphrase; give a TPM key a PIN.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Make a device key and print what to send to the issuer. The private key never leaves this device.

    That is an enrollment request, or for a hybrid key, which cannot sign one, its public key.
    """
    facts = _parse_facts(fact)
    scheme, location = split_key_uri(key)
    if scheme == "hybrid" and (facts or request):
        raise _no_request(key)
    path = _key_path(scheme, location)
    if path is not None and path.is_file():
        raise OutputError(f"{path} exists already", hint=_instead_of_making(scheme, key))
    public = public or (path and _public_beside(path))
    check_free(*(file for file in (public, request) if file is not None))
    # An HSM always asks for its PIN; a file or a TPM has one if it is wanted.
    wanted = protect or passphrase_file is not None or scheme == "pkcs11"
    device = generate_device_key(key, passphrase=new_passphrase_from(passphrase_file) if wanted else None)
    made = [str(path or key)]
    with _telling_what_exists(made, key):
        if public is not None:
            device.public.save(public)
            made.append(str(public))
        document = _document(device, facts)
        if request is not None:
            write_enrollment_request(request, document)
    shown = {"private_key": made[0]} | ({"public_key": str(public)} if public else {})
    if request is not None:
        shown |= {"request": str(request), "thumbprint": device.public.thumbprint}
        print_json(shown) if as_json else print_facts(shown.items())
        return
    _note(f"made {' and '.join(made)}, thumbprint {device.public.thumbprint}")
    _note("send what is on stdout to the issuer; the private key stays on this device")
    print(document.decode("ascii"), end="")


@app.command("request")
def request(
    key: DeviceKeyOption,
    fact: Facts = None,
    request: RequestFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Print an enrollment request for a key that exists, to send to the issuer."""
    facts = _parse_facts(fact)
    if request is not None:
        check_free(request)
    device = open_device_key(key, passphrase=passphrase_from(passphrase_file))
    if isinstance(device, HybridDeviceKey):
        raise _no_request(key)
    document = _document(device, facts)
    if request is None:
        print(document.decode("ascii"), end="")
        return
    write_enrollment_request(request, document)
    print_facts([("request", request), ("thumbprint", device.public.thumbprint)])


@app.command("show")
def show(
    key: DeviceKeyOption,
    public: Annotated[Path | None, typer.Option("--public", help="Also write the public key to this file.")] = None,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Show a key's thumbprint and public key."""
    device: AnyDevicePublicKey = open_device_key(key, passphrase=passphrase_from(passphrase_file)).public
    if public is not None:
        device.save(public)
    if as_json:
        print_json({"key": key, "thumbprint": device.thumbprint, "public_key": device.to_jwk()})
    else:
        print_facts([("key", key), ("thumbprint", device.thumbprint), ("public_key", json.dumps(device.to_jwk()))])


app.command("init-state")(init_state)
app.command("show-state")(show_state)
app.command("time-request")(time_request)
app.command("set-time")(set_time)


def _parse_facts(given: list[str] | None) -> dict[str, str]:
    facts: dict[str, str] = {}
    for item in given or []:
        name, equals, value = item.partition("=")
        if not equals or name in facts:
            raise typer.BadParameter(f"{item!r} is not name=value, or repeats a name", param_hint="--fact")
        facts[name] = value
    # Before a key is made, which cannot always be unmade.
    check_facts(facts)
    return facts


def _key_path(scheme: str, location: str) -> Path | None:
    if scheme not in ("awskms", "file", "hybrid", "tpm"):
        return None
    # Only these two have options behind a question mark; in a plain path it is a character as any other.
    name = location.partition("?")[0] if scheme in ("awskms", "tpm") else location
    return Path(name.removeprefix("//"))


def _instead_of_making(scheme: str, key: str) -> str:
    named = f"--key {shlex.quote(key)}"
    again = f"show {named} --public FILE" if scheme == "hybrid" else f"request {named}"
    return f"if it is this device's key, keylatch device {again} gives what to send; else choose another name"


def _public_beside(key: Path) -> Path:
    if not key.name or key.suffix == ".pub":
        found = f"no public key file can stand beside the key file {key}"
        raise DeviceKeyError(found, hint="choose another name, such as device.key")
    return key.with_suffix(".pub")


@contextmanager
def _telling_what_exists(made: list[str], key: str) -> Iterator[None]:
    try:
        yield
    except KeylatchError:
        _note(f"made before this failed, and kept: {', '.join(made)}")
        show = f"keylatch device show --key {shlex.quote(key)} --public FILE"
        _note(f"continue with {show}, and keylatch device request --key {shlex.quote(key)}")
        raise


def _document(device: AnyDeviceKey, facts: dict[str, str]) -> bytes:
    if isinstance(device, HybridDeviceKey):
        return json.dumps(device.public.to_jwk(), indent=2).encode("ascii") + b"\n"
    # Every kind of P-256 key that a URI names proves possession; opening a license alone would not need it.
    return make_enrollment_request(cast(ProvingDeviceKey, device), facts, created_at=current_time())


def _no_request(key: str) -> DeviceKeyError:
    hint = f"send its public key file: keylatch device show --key {shlex.quote(key)} --public FILE writes one"
    return DeviceKeyError("a hybrid key cannot sign, so it has no enrollment request and no facts", hint=hint)


def _note(text: str) -> None:
    note_console().print(text, markup=False)
