"""`keylatch issuer`: the keys that sign licenses, and the ledger of what they signed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keylatch.cli._issuer_make import NewIssuerKey, NewKeyOption, ProtectOption
from keylatch.cli._issuer_rotate import rotate
from keylatch.cli._issuer_trust import export_trust, time_token
from keylatch.cli._ledger_file import ledger_named_after
from keylatch.cli._new_files import check_free
from keylatch.cli._options import IssuerOption, JsonOption, PassphraseFile, passphrase_from
from keylatch.cli._output import print_facts, print_json
from keylatch.errors import OutputError
from keylatch.keys import (
    CosignerKey,
    Ledger,
    open_issuer_key,
)

app = typer.Typer(no_args_is_help=True, help="The keys that sign licenses, and the ledger of what they signed.")

NewLedgerOption = Annotated[
    Path | None, typer.Option("--ledger", help="The ledger to make; default: named after the key, issuer.ledger.")
]


@app.callback()
def _group() -> None:
    """The keys that sign licenses, and the ledger of what they signed."""


@app.command("init")
def init(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Private key file; the public key gets the suffix .pub.")
    ] = Path("issuer.key"),
    key: NewKeyOption = None,
    cosigner: Annotated[
        bool, typer.Option("--cosigner", help="Also make an ML-DSA-65 key for second, post-quantum signatures.")
    ] = False,
    ledger: NewLedgerOption = None,
    protect: ProtectOption = False,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Make an issuer key pair and its ledger: keep both; give the public key to everybody who runs your models."""
    place = NewIssuerKey(out, key, protect=protect, passphrase_file=passphrase_file)
    book = ledger or place.private.with_suffix(".ledger")
    second = place.private.with_suffix(".mldsa.key")
    check_free(book, *([second, second.with_suffix(".pub")] if cosigner else []))
    if book in (place.private, place.public, second):
        raise OutputError(f"{book} would be the ledger and a key", hint="choose another name")
    issuer = place.make()
    cosigner_key = _make_cosigner(second, place) if cosigner else None
    Ledger.create(book, issuer.public, cosigner=cosigner_key.public if cosigner_key else None).close()
    facts = {"private_key": place.named(), "public_key": str(place.public), "ledger": str(book)}
    facts |= {"thumbprint": issuer.public.thumbprint}
    facts |= {"cosigner_key": str(second), "cosigner": cosigner_key.public.thumbprint} if cosigner_key else {}
    print_json(facts) if as_json else print_facts(facts.items())


@app.command("ledger")
def ledger(
    issuer: IssuerOption,
    ledger: NewLedgerOption = None,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Make a ledger for an issuer key that has none. What the key signed before is not in it."""
    path = ledger or ledger_named_after(issuer)
    check_free(path)
    key = open_issuer_key(issuer, passphrase=passphrase_from(passphrase_file))
    Ledger.create(path, key.public).close()
    facts = {"ledger": str(path), "issuer": key.public.thumbprint}
    print_json(facts) if as_json else print_facts(facts.items())


app.command("rotate")(rotate)
app.command("export-trust")(export_trust)
app.command("time-token")(time_token)


def _make_cosigner(path: Path, place: NewIssuerKey) -> CosignerKey:
    key = CosignerKey.generate()
    key.save(path, passphrase=place.passphrase if place.encrypt else None)
    key.public.save(path.with_suffix(".pub"))
    return key
