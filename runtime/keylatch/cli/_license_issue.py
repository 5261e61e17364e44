"""`keylatch license issue` and `renew`: licenses through the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keylatch.cli._ledger_file import open_ledger
from keylatch.cli._license_facts import print_claims
from keylatch.cli._license_terms import (
    load_cosigner,
    period,
    read_secret_values,
    seconds_of,
    write_recorded,
)
from keylatch.cli._new_files import check_free
from keylatch.cli._options import (
    CosignOption,
    DaysOption,
    IssuerOption,
    JsonOption,
    LedgerOption,
    NotBeforeOption,
    PassphraseFile,
    VaultKeyOption,
    passphrase_from,
)
from keylatch.cli._output import note_console
from keylatch.keys import (
    IssuerKey,
    KnownDevice,
    LicensedModel,
    LicenseTerms,
    PassphraseCallback,
    check_issuer,
    find_entry,
    issue_and_record,
    load_enrollment,
    open_issuer_key,
    read_claims_unverified,
    read_recorded_license,
    renew_license,
)

SecretOption = Annotated[Path, typer.Option("--secret", help="The vault that `lock` and `export` wrote.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="The license file to write.")]


def issue(
    model: Annotated[Path, typer.Argument(help="The locked model's directory.")],
    secret: SecretOption,
    issuer: IssuerOption,
    to: Annotated[
        list[Path], typer.Option("--to", help="A device's public key or request; may be given several times.")
    ],
    out: OutOption,
    customer: Annotated[str, typer.Option("--customer", help="Whom the license is for.")],
    days: DaysOption = 365,
    not_before: NotBeforeOption = None,
    max_list_age: Annotated[
        float | None,
        typer.Option("--max-list-age", min=0, help="Open only with a revocation list at most this many days old."),
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option("--domain", help="Of a model with domains: one that is paid for; may be given several times."),
    ] = None,
    cosign: CosignOption = None,
    vault_key: VaultKeyOption = None,
    ledger: LedgerOption = None,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Issue a license for a locked model to one or more devices, and record it in the ledger."""
    check_free(out)
    ask = passphrase_from(passphrase_file)
    key = open_issuer_key(issuer, passphrase=ask)
    with open_ledger(ledger, issuer) as book:
        check_issuer(book, key.public)
        start, end = period(not_before, days)
        age = None if max_list_age is None else seconds_of(max_list_age, "--max-list-age")
        license = issue_and_record(
            book,
            issuer=key,
            model=_read_model(model, secret, key, vault_key, ask, domain or []),
            devices=[KnownDevice(*load_enrollment(path)) for path in to],
            terms=LicenseTerms(customer=customer, not_before=start, expires_at=end, max_list_age=age),
            cosigner=load_cosigner(cosign, book, ask),
        )
        write_recorded(out, license)
    print_claims(read_claims_unverified(license), as_json=as_json, extra={"license": str(out)})


def renew(
    name: Annotated[str, typer.Argument(metavar="ID", help="The license's id, the beginning of it, or its seq.")],
    secret: SecretOption,
    issuer: IssuerOption,
    out: OutOption,
    days: DaysOption = 365,
    not_before: NotBeforeOption = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Also revoke the license that is renewed.")] = False,
    cosign: CosignOption = None,
    vault_key: VaultKeyOption = None,
    ledger: LedgerOption = None,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Issue a license again: same model, devices, customer and conditions, its own time; the old one runs on."""
    check_free(out)
    ask = passphrase_from(passphrase_file)
    key = open_issuer_key(issuer, passphrase=ask)
    with open_ledger(ledger, issuer) as book:
        check_issuer(book, key.public)
        entry = find_entry(book, name)
        start, end = period(not_before, days)
        paid = read_claims_unverified(read_recorded_license(book, entry.license_id)).domains or ()
        values, fingerprint, _ = read_secret_values(secret, entry.model_id, key, vault_key, ask, paid)
        license = renew_license(
            book,
            entry.license_id,
            issuer=key,
            secret_values=values,
            fingerprint=fingerprint,
            not_before=start,
            expires_at=end,
            cosigner=load_cosigner(cosign, book, ask),
            revoke=revoke,
        )
        write_recorded(out, license)
    extra = {"license": str(out), "renews": entry.license_id}
    print_claims(read_claims_unverified(license), as_json=as_json, extra=extra)


def _read_model(
    model: Path, secret: Path, issuer: IssuerKey, vault_key: str | None, ask: PassphraseCallback, domains: list[str]
) -> LicensedModel:
    from keylatch.runtime import read_manifest

    manifest, model_id = read_manifest(model)
    values, fingerprint, paid = read_secret_values(secret, model_id, issuer, vault_key, ask, domains)
    if paid == () and manifest.lock.get("method") == "domains":
        note_console().print(
            "note: no --domain, so this license serves the source domain only, as the file itself does"
        )
    name = str(manifest.model["name"])
    return LicensedModel(model_id=model_id, name=name, secret_values=values, fingerprint=fingerprint, domains=paid)
