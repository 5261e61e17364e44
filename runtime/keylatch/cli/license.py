"""`keylatch license`: issue, renew, list, revoke and inspect licenses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keylatch.cli._license_facts import print_claims
from keylatch.cli._license_issue import issue, renew
from keylatch.cli._license_list import list_licenses, show
from keylatch.cli._license_revoke import revocations, revoke
from keylatch.cli._options import JsonOption
from keylatch.keys import (
    Trust,
    UnverifiedClaims,
    current_time,
    read_claims_unverified,
    read_license,
    verify_license,
)

app = typer.Typer(no_args_is_help=True, help="Issue, renew, list, revoke and inspect licenses.")


@app.callback()
def _group() -> None:
    """Issue, renew, list, revoke and inspect licenses."""


app.command("issue")(issue)
app.command("list")(list_licenses)
app.command("show")(show)
app.command("renew")(renew)
app.command("revoke")(revoke)
app.command("revocations")(revocations)


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
    print_claims(claims, as_json=as_json, extra={"license": str(path), "verification": state})
