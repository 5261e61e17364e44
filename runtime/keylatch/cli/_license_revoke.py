"""`keylatch license revoke` and `revocations`: ending licenses early, and the list that tells devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keylatch.cli._ledger_file import open_ledger
from keylatch.cli._license_facts import entry_facts
from keylatch.cli._license_terms import seconds_of
from keylatch.cli._new_files import check_free
from keylatch.cli._options import (
    IssuerOption,
    JsonOption,
    LedgerOfOption,
    LedgerOption,
    PassphraseFile,
    passphrase_from,
)
from keylatch.cli._output import note_console, print_facts, print_json
from keylatch.keys import (
    Ledger,
    LedgerEntry,
    current_time,
    list_entries,
    open_issuer_key,
    publish_revocations,
    revoke_device,
    revoke_license,
    write_revocation_list,
)


def revoke(
    name: Annotated[
        str | None, typer.Argument(metavar="ID", help="The license's id, the beginning of it, or its seq.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="All licenses of this device: the beginning of its thumbprint.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; stays in the ledger.")] = "",
    issuer: LedgerOfOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a license, or all licenses of a device. Devices learn of it from the next revocation list."""
    if (name is None) == (device is None):
        raise typer.BadParameter("give the license's ID or --device")
    with open_ledger(ledger, issuer) as book:
        if device is None:
            entries = [revoke_license(book, str(name), reason=reason)]
            others = _others_in_force(book, entries[0])
        else:
            entries, others = revoke_device(book, device, reason=reason), []
    if as_json:
        print_json({"revoked": [entry_facts(entry, current_time()) for entry in entries]})
    else:
        print_facts(("revoked", _line(entry)) for entry in entries)
    note_console().print("note: devices learn of it from the next list, keylatch license revocations")
    if others:
        ids = ", ".join(entry.license_id[:8] for entry in others)
        note_console().print(f"note: still in force for the same model and device: {ids}")


def revocations(
    issuer: IssuerOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="The revocation list to write.")],
    max_age: Annotated[float, typer.Option("--max-age", min=0, help="How many days devices may go by this list.")] = 30,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an older list of that name.")] = False,
    ledger: LedgerOption = None,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the list of all licenses that are revoked and have not expired; newer than every list before."""
    if not replace:
        check_free(out, hint="choose another name, or replace it with --replace")
    key = open_issuer_key(issuer, passphrase=passphrase_from(passphrase_file))
    with open_ledger(ledger, issuer) as book:
        published = publish_revocations(book, issuer=key, max_age=seconds_of(max_age, "--max-age"))
    write_revocation_list(out, published.data, overwrite=replace)
    facts = {"revocations": str(out), "seq": published.seq, "licenses": published.license_count}
    print_json(facts) if as_json else print_facts(facts.items())


def _others_in_force(book: Ledger, entry: LedgerEntry) -> list[LedgerEntry]:
    # A renewal, most often: whoever revokes for a stolen device means that too.
    found = {
        other.license_id: other
        for device in entry.devices
        for other in list_entries(
            book, model=entry.model_id, device=device, expires_after=current_time(), revoked=False
        )
    }
    return sorted(found.values(), key=lambda other: other.seq)


def _line(entry: LedgerEntry) -> str:
    devices = f", {len(entry.devices)} devices" if len(entry.devices) > 1 else ""
    return f"{entry.license_id}, {entry.model_name} for {entry.customer}{devices}"
