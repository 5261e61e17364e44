"""`keylatch license`: issue and inspect licenses."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from keylatch.cli._options import IssuerOption, JsonOption, PassphraseFile, passphrase_from
from keylatch.cli._output import print_facts, print_json
from keylatch.errors import FormatError, OutputError
from keylatch.keys import (
    DevicePublicKey,
    FileIssuerKey,
    Trust,
    UnverifiedClaims,
    current_time,
    issue_license,
    read_claims_unverified,
    read_license,
    read_vault,
    verify_license,
    write_license,
)

app = typer.Typer(no_args_is_help=True, help="Issue and inspect licenses.")

_DAY_SECONDS = 86_400


@app.callback()
def _group() -> None:
    """Issue and inspect licenses."""


@app.command("issue")
def issue(
    model: Annotated[Path, typer.Argument(help="The locked model's directory.")],
    secret: Annotated[Path, typer.Option("--secret", help="The vault that `lock` and `export` wrote.")],
    issuer: IssuerOption,
    to: Annotated[list[Path], typer.Option("--to", help="A device's public key; may be given several times.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The license file to write.")],
    customer: Annotated[str, typer.Option("--customer", help="Whom the license is for.")],
    days: Annotated[float, typer.Option("--days", min=0, help="How long it is valid, from --not-before on.")] = 365,
    not_before: Annotated[
        datetime | None,
        typer.Option("--not-before", help="First moment, UTC; default now.", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Issue a license for a locked model to one or more devices."""
    from keylatch.runtime import read_manifest, values_to_license

    if out.exists():
        raise OutputError(f"{out} exists already", hint="choose another name with --out")
    ask = passphrase_from(passphrase_file)
    key = FileIssuerKey.load(issuer, passphrase=ask)
    _, model_id = read_manifest(model)
    section = read_vault(secret, issuer=key, passphrase=ask).sections.get(model_id)
    if section is None:
        raise FormatError(
            f"the vault {secret} holds no secrets for model {model_id[:8]}…",
            hint="give the vault that this model was exported with",
        )
    start = current_time() if not_before is None else int(not_before.replace(tzinfo=UTC).timestamp())
    license = issue_license(
        issuer=key,
        devices=[DevicePublicKey.load(path) for path in to],
        model_id=model_id,
        secret_values=values_to_license(section),
        customer=customer,
        not_before=start,
        expires_at=start + int(days * _DAY_SECONDS),
    )
    write_license(out, license)
    _show(read_claims_unverified(license), as_json=as_json, extra={"license": str(out)})


@app.command("inspect")
def inspect(
    license: Annotated[Path, typer.Argument(help="The license file.")],
    trust: Annotated[
        list[Path] | None, typer.Option("--trust", help="Also verify the signature and the time with this issuer key.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a license says. Needs no key; without --trust nothing is verified, and that is said."""
    show_license(license, trust or [], as_json=as_json)


def show_license(path: Path, trust: list[Path], *, as_json: bool) -> None:
    """Print what a license says, after verifying it if trusted keys are given."""
    parsed = read_license(path)
    if trust:
        claims: UnverifiedClaims = verify_license(parsed, Trust.merge(map(Trust.load, trust)), now=current_time())
    else:
        claims = read_claims_unverified(parsed)
    state = "signature and time verified" if trust else "not verified; give --trust issuer.pub"
    _show(claims, as_json=as_json, extra={"license": str(path), "verification": state})


def _show(claims: UnverifiedClaims, *, as_json: bool, extra: dict[str, str]) -> None:
    facts: dict[str, Any] = {
        **extra,
        "customer": claims.customer,
        "model_id": claims.model_id,
        "issuer": claims.issuer,
        "license_id": claims.license_id,
        "seq": claims.seq,
        "devices": list(claims.devices),
    }
    times = {"issued_at": claims.issued_at, "not_before": claims.not_before, "expires_at": claims.expires_at}
    if as_json:
        print_json({**facts, **times})
    else:
        readable = {
            name: datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") for name, value in times.items()
        }
        print_facts({**facts, "devices": "\n".join(claims.devices), **readable}.items())
