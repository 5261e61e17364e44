"""`keylatch trace`: name the license that a leaked model came from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from keylatch.cli._ledger_file import open_ledger
from keylatch.cli._options import (
    IssuerOption,
    JsonOption,
    LedgerOption,
    PassphraseFile,
    VaultKeyOption,
    passphrase_from,
)
from keylatch.cli._output import print_facts, print_json, working
from keylatch.errors import InputError
from keylatch.keys import list_marks, open_issuer_key, read_vault

_FOUND = {"named": "the leak came from a license of yours", "none": "no license matches"}


def trace(
    artifact: Annotated[Path, typer.Argument(help="The locked model's directory, exported with --fingerprint.")],
    secret: Annotated[Path, typer.Option("--secret", help="The vault that `lock` and `export` wrote.")],
    issuer: IssuerOption,
    model: Annotated[
        Path | None, typer.Option("--model", help="The leaked model: .onnx, .pt, .pth, .safetensors or .npz.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", help="What a leaked model answered: CSV, a row for each image of --images."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="What it was shown: .npy, as the model takes it or uint8 NHWC.")
    ] = None,
    limit: Annotated[
        float, typer.Option("--false-accusation", help="Largest chance of naming anybody wrongly.")
    ] = 1e-6,
    vault_key: VaultKeyOption = None,
    ledger: LedgerOption = None,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Name the license that a leaked model, or its predictions, came from; or say that none matches.

    Exits with 0 in both cases: a verdict is no failure.
    """
    if (model is None) == (predictions is None) or (predictions is None) != (images is None):
        raise typer.BadParameter("give --model, or --predictions together with --images")
    from keylatch.runtime import read_manifest
    from keylatch.trace import marks_from_vault

    _, model_id = read_manifest(artifact)
    ask = passphrase_from(passphrase_file)
    key = open_issuer_key(issuer, passphrase=ask)
    with open_ledger(ledger, issuer) as book:
        licenses = list_marks(book, model_id)
    opener = key if vault_key is None else open_issuer_key(vault_key, passphrase=ask)
    marks = marks_from_vault(read_vault(secret, issuer=opener, passphrase=ask), model_id, licenses)
    with working(f"comparing with {len(licenses)} licenses"):
        if model is not None:
            found = _trace_weights(model, marks, limit)
        else:
            found = _trace_predictions(artifact, predictions, images, marks, limit)
    print_json(found.to_json()) if as_json else print_facts(_lines(found))


def _trace_weights(model: Path, marks: Any, limit: float) -> Any:
    from keylatch.trace import read_leak, trace_weights

    return trace_weights(read_leak(model), marks, limit=limit)


def _trace_predictions(artifact: Path, predictions: Path | None, images: Path | None, marks: Any, limit: float) -> Any:
    from keylatch.audit import load_target
    from keylatch.cli._audit_images import as_taken
    from keylatch.cli._images import load_inputs
    from keylatch.trace import read_predictions, trace_predictions

    if predictions is None or images is None:
        raise InputError("predictions are traced with the images they are of", hint="give --predictions and --images")
    target = load_target(artifact)
    shown = as_taken(load_inputs([images], target.manifest.model["input"]), target, images)
    return trace_predictions(read_predictions(predictions), shown.numpy(), target, marks, limit=limit)


def _lines(found: Any) -> list[tuple[str, object]]:
    lines: list[tuple[str, object]] = [("verdict", _FOUND[found.verdict])]
    for suspect in found.suspects:
        ids = ", ".join(suspect.licenses)
        chance = f"chance that any innocent license scores so high: at most 10^{suspect.log10_chance:.1f}"
        lines.append(("named" if suspect.named else "not named", f"{suspect.customer}: {ids}"))
        lines.append(("", f"score {suspect.score:.1f}; {chance}"))
    compared = f"{found.candidates} licenses, named from a score of {found.threshold:.1f} on"
    lines.append(("compared", f"{compared}: wrong with a chance of at most {found.limit:g}"))
    facts = (", ".join(f"{name} {_shown(value)}" for name, value in fact.items()) for fact in found.evidence)
    lines += [("evidence", fact) for fact in facts]
    return lines


def _shown(value: object) -> object:
    return f"{value:.3g}" if isinstance(value, float) else value
