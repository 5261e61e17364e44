"""`keylatch issuer export-trust` and `time-token`: what an issuer gives to devices beside licenses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keylatch.cli._ledger_file import open_ledger
from keylatch.cli._new_files import check_free
from keylatch.cli._options import (
    IssuerOption,
    JsonOption,
    LedgerOfOption,
    LedgerOption,
    PassphraseFile,
    passphrase_from,
)
from keylatch.cli._output import print_facts, print_json
from keylatch.keys import (
    TimeRequest,
    check_issuer,
    current_time,
    format_time,
    open_issuer_key,
    sign_time_token,
    trust_of_ledger,
    write_time_token,
)


def export_trust(
    out: Annotated[Path, typer.Option("--out", "-o", help="The trust file to write, e.g. acme.trust.")],
    cosigner: Annotated[
        bool, typer.Option("--cosigner/--no-cosigner", help="Whether devices demand the second signature.")
    ] = True,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an older trust file of that name.")] = False,
    issuer: LedgerOfOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the file that tells devices whom to trust: the present key, and retired ones until their licenses end."""
    if not replace:
        check_free(out, hint="choose another name, or replace it with --replace")
    with open_ledger(ledger, issuer) as book:
        trust = trust_of_ledger(book, cosigners=cosigner)
    trust.save(out, overwrite=replace)
    active = [key.thumbprint for key in trust.active_issuers]
    cosigners = [key.thumbprint for key in trust.cosigners]
    if as_json:
        print_json({"trust": str(out), "active": active, "retired": dict(trust.until), "cosigners": cosigners})
        return
    retired = [f"{thumbprint} until {format_time(end)}" for thumbprint, end in trust.until.items()]
    lines = {"active": active, "retired": retired, "cosigners": cosigners}
    print_facts([("trust", out), *((name, "\n".join(values) or "none") for name, values in lines.items())])


def time_token(
    issuer: IssuerOption,
    request: Annotated[Path, typer.Option("--request", help="The device's request for the time.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The token to write.")],
    ledger: LedgerOption = None,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the time for a device that asked for it: one whose clock once ran ahead, and that refuses the right time."""
    check_free(out)
    asked = TimeRequest.load(request)
    key = open_issuer_key(issuer, passphrase=passphrase_from(passphrase_file))
    with open_ledger(ledger, issuer) as book:
        check_issuer(book, key.public)
    now = current_time()
    token = sign_time_token(issuer=key, request=asked, issued_at=now)
    write_time_token(out, token)
    facts = {"time_token": str(out), "issued_at": now, "issuer": key.public.thumbprint}
    print_json(facts) if as_json else print_facts({**facts, "issued_at": format_time(now)}.items())
