"""Open a session the way the command line describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keylatch.cli._options import passphrase_from


def open_session(
    model: Path,
    *,
    license: Path | None,
    key: str | None,
    trust: list[Path] | None,
    passphrase_file: Path | None,
    providers: list[str] | None,
    threads: int | None = None,
    locked: bool = False,
) -> Any:
    """Open a model with a license, or locked on purpose."""
    from keylatch.runtime import InferenceSession

    options = session_options(threads)
    if locked:
        return InferenceSession.locked(model, options, providers)
    return InferenceSession(
        model,
        options,
        providers,
        license=license,
        key=key,
        trust=trust or None,
        passphrase=passphrase_from(passphrase_file),
    )


def session_options(threads: int | None) -> Any:
    """Onnxruntime session options with a number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    return options
