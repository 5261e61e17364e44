"""`keylatch issuer rotate`: a new signing key in the same ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keylatch.cli._issuer_make import NewIssuerKey, NewKeyOption, ProtectOption
from keylatch.cli._ledger_file import open_ledger
from keylatch.cli._options import IssuerOption, JsonOption, LedgerOption, PassphraseFile, passphrase_from
from keylatch.cli._output import print_facts, print_json
from keylatch.errors import OutputError
from keylatch.keys import (
    IssuerKey,
    Vault,
    check_issuer,
    format_time,
    open_issuer_key,
    read_vault,
    rotate_issuer,
    write_vault,
)


def rotate(
    issuer: IssuerOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="The new private key's file; its public key beside it.")],
    secret: Annotated[
        list[Path] | None,
        typer.Option("--secret", help="A vault to seal under the new key; may be given several times."),
    ] = None,
    key: NewKeyOption = None,
    ledger: LedgerOption = None,
    protect: ProtectOption = False,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Retire the issuer key and make its successor in the same ledger.

    The ledger keeps its name: commands find it as the only one beside the new key, or by --ledger.

    The old key signs nothing any more. Its licenses open until they end, on devices that trust both keys.

    Give devices what `issuer export-trust` writes, and a new revocation list, before the first license by the new key.

    A vault that is not named with --secret stays under the old key; `license issue` opens it with --vault-key.
    """
    place = NewIssuerKey(out, key, protect=protect, passphrase_file=passphrase_file)
    old = open_issuer_key(issuer, passphrase=passphrase_from(passphrase_file))
    with open_ledger(ledger, issuer) as book:
        check_issuer(book, old.public)
        vaults = {path: read_vault(path, issuer=old) for path in secret or []}
        new = place.make()
        if vaults:
            new.vault_key()  # a token that cannot give one says so while the old key still works
        end = rotate_issuer(book, old=old.public, new=new.public)
    for path, vault in vaults.items():
        _seal(path, vault, new, issuer)
    _print(place, book.path, old.public.thumbprint, new.public.thumbprint, end, list(vaults), as_json=as_json)


def _print(
    place: NewIssuerKey, ledger: Path, old: str, new: str, end: int | None, vaults: list[Path], *, as_json: bool
) -> None:
    sealed = [str(path) for path in vaults]
    facts = {
        "private_key": place.named(),
        "public_key": str(place.public),
        "ledger": str(ledger),
        "thumbprint": new,
        "retired": old,
    }
    if as_json:
        print_json({**facts, "until": end, "sealed": sealed})
    else:
        last = "it has issued nothing" if end is None else f"{format_time(end)}, the end of its last license"
        print_facts({**facts, "until": last, "sealed": "\n".join(sealed) or "no vault"}.items())


def _seal(path: Path, vault: Vault, new: IssuerKey, old: str) -> None:
    try:
        write_vault(path, vault, issuer=new, overwrite=True)
    except OutputError as error:
        hint = f"the key is rotated all the same; open this vault with --vault-key {old}"
        raise OutputError(error.message, hint=hint) from None
