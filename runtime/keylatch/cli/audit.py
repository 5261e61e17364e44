"""`keylatch audit`: attack your own locked model before you ship it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from keylatch.cli._audit_request import AuditRequest
from keylatch.cli._options import JsonOption, PassphraseFile
from keylatch.errors import InputError


def audit(
    artifact: Annotated[Path | None, typer.Argument(help="The locked model's directory.", show_default=False)] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", help="What attackers draw from: .npy as the model takes it or uint8 NHWC, or a folder."
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Their classes: .npy, one a line; file,label for a folder.")
    ] = None,
    test_images: Annotated[
        Path | None, typer.Option("--test-images", help="What accuracies are measured on; default: half of --images.")
    ] = None,
    test_labels: Annotated[Path | None, typer.Option("--test-labels", help="Their classes.")] = None,
    secret: Annotated[
        Path | None, typer.Option("--secret", help="The owner's vault, for the unlocked accuracy and near keys.")
    ] = None,
    issuer: Annotated[
        str | None, typer.Option("--issuer", help="The issuer key that the vault is sealed under.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    base: Annotated[
        Path | None, typer.Option("--base", help="The public network that the model was fine-tuned from, as ONNX.")
    ] = None,
    original: Annotated[
        Path | None, typer.Option("--original", help="The model before it was locked, as ONNX, for its accuracy.")
    ] = None,
    labeled: Annotated[
        str | None,
        typer.Option("--labeled", help="Labeled images to attack with, e.g. 100,500; default: 1, 5 and 10 % of them."),
    ] = None,
    training_images: Annotated[
        int | None, typer.Option("--training-images", min=1, help="Size of the training set that the shares are of.")
    ] = None,
    minutes: Annotated[float, typer.Option("--minutes", help="How long it may take.")] = 10.0,
    seeds: Annotated[int, typer.Option("--seeds", help="How often everything is measured.")] = 2,
    attack: Annotated[list[str] | None, typer.Option("--attack", help="Only this attack; may be repeated.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the report and of results to go on from.")
    ] = None,
    no_survival: Annotated[
        bool, typer.Option("--no-survival", help="Leave out what pruning, quantization and the like do.")
    ] = False,
    fail_on_break: Annotated[bool, typer.Option("--fail-on-break", help="Exit with 1 if an attack breaks it.")] = False,
    license: Annotated[Path | None, typer.Option("--license", hidden=True)] = None,
    key: Annotated[str | None, typer.Option("--key", hidden=True)] = None,
    list_attacks: Annotated[bool, typer.Option("--list", help="List all attacks, and do nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Attack your own locked model, beside honest baselines. Results are kept: run it again to go on where it was."""
    start = time.monotonic()
    if list_attacks:
        from keylatch.audit.attacks import ATTACKS
        from keylatch.cli._audit_text import print_attacks

        print_attacks(ATTACKS, as_json=as_json)
        return
    if artifact is None:
        raise typer.BadParameter("name the locked model's directory, or --list", param_hint="ARTIFACT")
    _refuse_license(license, key)
    request = AuditRequest(
        artifact=artifact, images=images, labels=labels, test_images=test_images, test_labels=test_labels,
        secret=secret, issuer=issuer, passphrase_file=passphrase_file, base=base, original=original,
        labeled=_counts(labeled), training_images=training_images, minutes=minutes, seeds=seeds,
        attacks=tuple(attack or ()), folder=out or _beside(artifact), survival=not no_survival,
    )  # fmt: skip
    request.require_sensible()
    from keylatch.cli import _audit_run

    scene = _audit_run.load(request)
    result = _audit_run.measure(request, scene, start=start, quiet=as_json)
    _audit_run.show(request, result, as_json=as_json)
    if fail_on_break and result.verdict == "broken":
        raise typer.Exit(1)


def _beside(artifact: Path) -> Path:
    named = artifact if artifact.name not in ("", "..") else artifact.resolve()
    return named.with_suffix(".audit")


def _refuse_license(license: Path | None, key: str | None) -> None:
    if license is not None or key is not None:
        raise InputError(
            f"an attacker has no license, but --{'key' if license is None else 'license'} was given",
            hint="leave it out; name the owner's vault with --secret to measure the unlocked accuracy and near keys",
        )


def _counts(labeled: str | None) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in labeled.split(",")) if labeled is not None else ()
    except ValueError:
        counts = (0,)
    if any(count < 1 for count in counts):
        raise typer.BadParameter("give whole numbers with commas, e.g. 100,500,1000", param_hint="--labeled")
    return tuple(sorted(set(counts)))
