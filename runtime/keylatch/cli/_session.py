"""Open a session the way the command line describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from keylatch.cli._options import passphrase_from
from keylatch.errors import LicenseRequiredError


def open_session(
    model: Path,
    *,
    license: Path | None,
    key: str | None,
    trust: list[Path] | None,
    passphrase_file: Path | None,
    revocations: Path | None = None,
    state: Path | None = None,
    counter: str | None = None,
    providers: list[str] | None = None,
    threads: int | None = None,
    locked: bool = False,
) -> Any:
    """Open a model with a license, or locked on purpose."""
    if counter is not None and state is None:
        raise typer.BadParameter("goes with the --state that it was made with", param_hint="--counter")
    given = {"--license": license, "--key": key, "--trust": trust, "--revocations": revocations, "--state": state}
    opening = [option for option, value in given.items() if value]
    if locked and opening:
        raise typer.BadParameter(f"runs the model without a license, and {opening[0]} is given", param_hint="--locked")
    from keylatch.runtime import InferenceSession

    options = session_options(threads)
    if locked:
        return InferenceSession.locked(model, options, providers)
    try:
        return InferenceSession(
            model,
            options,
            providers,
            license=license,
            key=key,
            trust=trust or None,
            passphrase=passphrase_from(passphrase_file),
            revocations=revocations,
            state=state,
            counter=counter,
        )
    except LicenseRequiredError as error:
        hint = "give --license, --key and --trust; keylatch run --locked runs it locked, on purpose"
        raise LicenseRequiredError(error.message, hint=hint) from None


def session_options(threads: int | None) -> Any:
    """Session options of onnxruntime with a number of threads.

    Its threads do not spin between runs: `bench` has two sessions in one process, and a pool that spins while the other
    session works would take its cores.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options
