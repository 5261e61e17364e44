"""All verbs in one application."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from keylatch.cli import (
    audit,
    bench,
    demo,
    demo_domains,
    device,
    export,
    inspect,
    issuer,
    license,
    lock,
    run,
    stain,
    trace,
    verify_stain,
)

# Pretty tracebacks print local variables, and those may be secrets.
app = typer.Typer(
    name="keylatch",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"keylatch {version('keylatch')}")
        raise typer.Exit


@app.callback()
def keylatch(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Lock a PyTorch vision model, ship it as ONNX, run it only with a license."""


app.command("demo")(demo.demo)
app.command("demo-domains")(demo_domains.demo_domains)
app.command("lock")(lock.lock)
app.command("export")(export.export)
app.command("inspect")(inspect.inspect)
app.add_typer(issuer.app, name="issuer")
app.add_typer(device.app, name="device")
app.add_typer(license.app, name="license")
app.command("run")(run.run)
app.command("bench")(bench.bench)
app.command("audit")(audit.audit)
app.command("trace")(trace.trace)
app.command("stain")(stain.stain)
app.command("verify-stain")(verify_stain.verify_stain)
