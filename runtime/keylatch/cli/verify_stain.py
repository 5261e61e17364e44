"""`keylatch verify-stain`: is a network stained? From its weights, or from its predictions alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from keylatch.cli._network_options import vault_seal
from keylatch.cli._new_files import check_free
from keylatch.cli._options import JsonOption, PassphraseFile, TrustOption
from keylatch.cli._output import print_facts, print_json
from keylatch.errors import InputError, OutputError
from keylatch.keys import Trust, format_time, read_stain_commitment, read_vault, verify_stain_commitment


def verify_stain(
    secret: Annotated[Path, typer.Option("--secret", help="The vault that `keylatch stain` wrote.")],
    model: Annotated[
        Path | None, typer.Option("--model", help="The suspect's state dict: .safetensors, .pt, .pth.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", help="Its network, package.module:factory: runs it on the triggers too.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="CSV of its answers to the probes: scores, or class numbers.")
    ] = None,
    probes: Annotated[
        Path | None, typer.Option("--write-probes", help="Write the probes, .npy, uint8 (n, height, width, channels).")
    ] = None,
    commitment: Annotated[
        Path | None, typer.Option("--commitment", help="The commitment made with the stain; needs --trust.")
    ] = None,
    trust: TrustOption = None,
    issuer: Annotated[
        str | None, typer.Option("--issuer", help="The issuer key that the vault is sealed under.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a network is stained, with the bound on being wrong. Exit status 1 if it is not shown to be."""
    if source is not None and model is None:
        raise typer.BadParameter("--source needs --model, the suspect's weights")
    if all(path is None for path in (model, predictions, probes, commitment)):
        raise typer.BadParameter("give --model, --predictions, --commitment or --write-probes")
    if probes is not None:
        check_free(probes)
    from keylatch.locks import StainSecret

    arrays = read_vault(secret, **vault_seal(secret, issuer, passphrase_file, new=False)).section("lock")
    stains = StainSecret.from_arrays(arrays)
    facts: dict[str, Any] = {"stains": len(stains.stains), "decoys": len(stains.decoys)}
    lines: list[tuple[str, object]] = [("secret", repr(stains))]
    if commitment is not None:
        made = verify_stain_commitment(
            read_stain_commitment(commitment), Trust.merge(Trust.load(path) for path in trust or ()), stains.digest()
        )
        facts["commitment"] = {"issuer": made.issuer, "issued_at": made.issued_at, "sha256": made.digest}
        lines.append(("committed", f"{format_time(made.issued_at)}, as issuer {made.issuer} states"))
    if probes is not None:
        _write_probes(probes, stains)
        lines.append(("probes", probes))
    if model is not None:
        facts["weights"], found = _by_weights(model, source, stains)
        lines += found
    if predictions is not None:
        facts["predictions"], found = _by_predictions(predictions, stains)
        lines += found
    print_json(facts) if as_json else print_facts(lines)
    if not all(facts[kind]["stained"] for kind in ("weights", "predictions") if kind in facts):
        raise typer.Exit(1)


def _by_weights(model: Path, source: str | None, stains: Any) -> tuple[dict[str, Any], list[tuple[str, object]]]:
    from keylatch.cli._source import load_network, read_state
    from keylatch.locks import verify_stain as verify

    verdict = verify(read_state(model) if source is None else load_network(source, model), stains)
    lines: list[tuple[str, object]] = [
        ("stain", f"unit {match.unit}, cosine {match.cosine:.3f}, p = {match.p_value:.1e}{_fires(match)}")
        for match in verdict.matches
    ]
    chance = f"p = {verdict.p_value:.1e}: chance in weights made without the secret"
    return verdict.to_json(), [*lines, ("by its weights", f"{_word(verdict.stained)}; {chance}")]


def _fires(match: Any) -> str:
    if match.response is None:
        return ""
    return f", response {match.response:.2f} T, answer {match.answer:.2f}"


def _by_predictions(path: Path, stains: Any) -> tuple[dict[str, Any], list[tuple[str, object]]]:
    from keylatch.locks import verify_stain_predictions

    verdict = verify_stain_predictions(read_predictions(path), stains)
    likeness = ", ".join(f"{value:.2f}" for value in verdict.likeness)
    decoys = f"{min(verdict.decoy_likeness):.2f} to {max(verdict.decoy_likeness):.2f}"
    chance = (
        f"p = {verdict.p_value:.1e}: chance that as many decoys look as good, {verdict.smallest_p_value:.1e} at best"
    )
    return verdict.to_json(), [
        ("likeness", f"stains {likeness}; decoys {decoys}"),
        ("by its predictions", f"{_word(verdict.stained)}; {chance}"),
    ]


def _word(stained: bool) -> str:
    return "stained" if stained else "not shown to be stained"


def read_predictions(path: Path) -> Any:
    """Read a CSV: one row for each probe, a class number or all scores; a first row of words is left out.

    Returns:
        float64, (n,) or (n, scores); nan where a row is empty of numbers.

    Raises:
        InputError: It cannot be read, or rows differ in length.
    """
    import csv

    import numpy as np

    hint = "write one row for each probe, in their order: its scores, or the number of its class"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.reader(stream) if row]
        words = rows and not any(_is_number(cell) for cell in rows[0])
        values = np.array([[float(cell) for cell in row] for row in (rows[1:] if words else rows)])
    except OSError as error:
        raise InputError(f"predictions {path} cannot be read: {error.strerror}", hint="check the path") from None
    except ValueError:  # UnicodeDecodeError too
        raise InputError(f"predictions {path} are not a table of numbers", hint=hint) from None
    if values.ndim != 2:
        raise InputError(f"predictions {path} hold no rows", hint=hint)
    return values[:, 0] if values.shape[1] == 1 else values


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _write_probes(path: Path, stains: Any) -> None:
    import numpy as np

    try:
        with path.open("xb") as stream:
            np.save(stream, stains.probes().permute(0, 2, 3, 1).numpy())
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}", hint="choose another name") from None
