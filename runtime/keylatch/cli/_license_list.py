"""`keylatch license list` and `show`: what the ledger knows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from keylatch.cli._ledger_file import open_ledger
from keylatch.cli._license_facts import entry_facts, print_license
from keylatch.cli._license_terms import seconds_of
from keylatch.cli._options import JsonOption, LedgerOfOption, LedgerOption
from keylatch.cli._output import plain, print_json, result_console
from keylatch.keys import (
    LedgerEntry,
    current_time,
    find_entry,
    list_entries,
    read_claims_unverified,
    read_recorded_license,
    write_license,
)

_SHORT = 8
_STYLES = {"valid": "green", "not yet": "cyan", "expired": "dim", "revoked": "red"}


def list_licenses(
    model: Annotated[
        str | None, typer.Option("--model", help="Only of this model: directory, name, or beginning of its id.")
    ] = None,
    customer: Annotated[str | None, typer.Option("--customer", help="Only to this customer.")] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Only to this device: the beginning of its thumbprint.")
    ] = None,
    expiring: Annotated[
        float | None, typer.Option("--expiring", min=0, help="Only those that end within this many days.")
    ] = None,
    revoked: Annotated[bool, typer.Option("--revoked", help="Only revoked ones.")] = False,
    issuer: LedgerOfOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the licenses in the ledger, oldest first."""
    now = current_time()
    with open_ledger(ledger, issuer) as book:
        entries = list_entries(
            book,
            model=None if model is None else _model_name(model),
            customer=customer,
            device=device,
            expires_after=None if expiring is None else now,
            expires_before=None if expiring is None else now + seconds_of(expiring, "--expiring"),
            revoked=True if revoked else None if expiring is None else False,
        )
    if as_json:
        print_json({"licenses": [entry_facts(entry, now) for entry in entries]})
    else:
        result_console().print(_table(entries, now))


def show(
    name: Annotated[str, typer.Argument(metavar="ID", help="The license's id, the beginning of it, or its seq.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also write the license file, as it was issued.")
    ] = None,
    issuer: LedgerOfOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the ledger knows of a license; with --out, write its file again, byte for byte."""
    with open_ledger(ledger, issuer) as book:
        entry = find_entry(book, name)
        license = read_recorded_license(book, entry.license_id)
    if out is not None:
        write_license(out, license)
    cosigned = read_claims_unverified(license).cosignature_sha256 is not None
    facts = {**entry_facts(entry, current_time()), "cosigned": cosigned}
    print_license(facts if out is None else {"license": str(out), **facts}, as_json=as_json)


def _model_name(model: str) -> str:
    if not Path(model).is_dir():
        return model
    from keylatch.runtime import read_manifest

    return read_manifest(Path(model))[1]


def _table(entries: list[LedgerEntry], now: int) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("license", "seq", "state", "model", "customer", "device", "ends"):
        # A narrow terminal breaks names over lines; what is typed again stays whole.
        table.add_column(column, no_wrap=column not in ("model", "customer"), overflow="fold")
    for entry in entries:
        state = entry.state(now)
        more = f" +{len(entry.devices) - 1}" if len(entry.devices) > 1 else ""
        table.add_row(
            entry.license_id[:_SHORT],
            str(entry.seq),
            f"[{_STYLES[state]}]{state}[/]",
            plain(entry.model_name),
            plain(entry.customer),
            entry.devices[0][:_SHORT] + more,
            datetime.fromtimestamp(entry.expires_at, UTC).strftime("%Y-%m-%d"),
        )
    return table
