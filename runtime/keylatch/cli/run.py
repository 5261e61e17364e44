"""`keylatch run`: run a locked model on images. Needs neither torch nor onnx."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from keylatch.cli._new_files import check_free
from keylatch.cli._options import (
    CounterOption,
    JsonOption,
    KeyOption,
    LicenseOption,
    PassphraseFile,
    ProviderOption,
    RevocationsOption,
    StateOption,
    TrustOption,
)
from keylatch.cli._output import plain, print_facts, print_json, result_console
from keylatch.errors import OutputError

_TOP = 5


def run(
    model: Annotated[Path, typer.Argument(help="The locked model's directory.")],
    images: Annotated[list[Path], typer.Argument(help="Picture files, or one .npy file as the model takes it.")],
    license: LicenseOption = None,
    key: KeyOption = None,
    trust: TrustOption = None,
    passphrase_file: PassphraseFile = None,
    revocations: RevocationsOption = None,
    state: StateOption = None,
    counter: CounterOption = None,
    provider: ProviderOption = None,
    locked: Annotated[bool, typer.Option("--locked", help="Run without a license, locked, on purpose.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write all outputs to this .npz file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a locked model on images and print what it gives."""
    if out is not None:
        check_free(out, hint="choose another name with --out")
    from keylatch.cli._images import load_inputs
    from keylatch.cli._session import open_session

    session = open_session(
        model,
        license=license,
        key=key,
        trust=trust,
        passphrase_file=passphrase_file,
        revocations=revocations,
        state=state,
        counter=counter,
        providers=provider,
        locked=locked,
    )
    batch = load_inputs(images, session.manifest.model["input"])
    outputs = session.run(None, {session.get_inputs()[0].name: batch})
    named = {node.name: np.asarray(value) for node, value in zip(session.get_outputs(), outputs, strict=True)}
    if out is not None:
        _save(out, named)
    _print(named, [str(path) for path in images], as_json=as_json)


def _save(out: Path, named: dict[str, Any]) -> None:
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(8)}.npz")
    try:
        np.savez(temporary, **named)
        temporary.rename(out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{out} cannot be written: {error.strerror}", hint="check the folder") from None


def _print(named: dict[str, Any], images: list[str], *, as_json: bool) -> None:
    shapes = {name: {"shape": list(value.shape), "dtype": value.dtype.name} for name, value in named.items()}
    scores = next(iter(named.values()))
    classes = _top(scores) if scores.ndim == 2 else None
    if as_json:
        print_json({"outputs": shapes} | ({} if classes is None else {"top": classes}))
        return
    if classes is None:
        print_facts((name, f"{value['dtype']} {value['shape']}") for name, value in shapes.items())
        return
    table = Table("image", *(f"class {rank + 1}" for rank in range(len(classes[0]))))
    for index, row in enumerate(classes):
        label = images[index] if len(images) == len(classes) else str(index)
        table.add_row(plain(label), *(f"{entry['class']} ({entry['score']:.2f})" for entry in row))
    result_console().print(table)


def _top(scores: Any) -> list[list[dict[str, Any]]]:
    order = np.argsort(-scores, axis=1)[:, :_TOP]
    return [
        [{"class": int(index), "score": float(row[index])} for index in best]
        for row, best in zip(scores, order, strict=True)
    ]
