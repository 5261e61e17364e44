"""`keylatch stain`: write stains into a network, and commit to them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from keylatch.cli._network_options import (
    CalibrationOption,
    ImageOption,
    LayoutOption,
    MeanOption,
    StdOption,
    WeightsOption,
    calibration_from,
    spec_from,
    vault_seal,
)
from keylatch.cli._new_files import check_free
from keylatch.cli._options import JsonOption, PassphraseFile
from keylatch.cli._output import print_facts, print_json, working
from keylatch.errors import OutputError
from keylatch.keys import Vault, current_time, sign_stain_commitment, write_stain_commitment, write_vault


def stain(
    source: Annotated[str, typer.Argument(help="The network: package.module:factory.")],
    image: ImageOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="The stained state dict to write: .safetensors, .pt, .pth.")],
    secret: Annotated[Path, typer.Option("--secret", help="The vault to write; keep it.")],
    weights: WeightsOption = None,
    mean: MeanOption = "0",
    std: StdOption = "1",
    layout: LayoutOption = "NCHW",
    count: Annotated[int, typer.Option("--count", min=1, help="How many stains.")] = 4,
    decoys: Annotated[
        int, typer.Option("--decoys", min=0, help="Made and left out: for verification from predictions.")
    ] = 16,
    layer: Annotated[list[str] | None, typer.Option("--layer", help="Choose from these; may be repeated.")] = None,
    form: Annotated[
        str, typer.Option("--form", help="replacement, or additive: the unit keeps its job.")
    ] = "replacement",
    calibration: CalibrationOption = None,
    rate: Annotated[float, typer.Option("--rate", help="Share of images that may make a stain fire.")] = 1e-6,
    commit: Annotated[
        Path | None, typer.Option("--commit", help="Dated, signed commitment to write; needs --issuer. Deposit it.")
    ] = None,
    issuer: Annotated[
        str | None, typer.Option("--issuer", help="Sign with this issuer key, and seal the vault under it.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Stain a network: a few rows of weights that prove later whose it is."""
    if commit is not None and issuer is None:
        raise typer.BadParameter("--commit needs --issuer: a commitment is signed")
    if form not in ("replacement", "additive"):
        raise typer.BadParameter("--form is replacement or additive")
    check_free(*(path for path in (out, secret, commit) if path is not None))
    from keylatch.cli._source import load_network
    from keylatch.locks import stain as stain_network

    spec = spec_from(image, mean, std, layout)
    network = load_network(source, weights)
    seal = vault_seal(secret, issuer, passphrase_file, new=True)
    images: Any = calibration_from(calibration)
    start = time.perf_counter()
    with working(f"staining {source}"):
        stained = stain_network(
            network, spec, count=count, decoys=decoys, layers=layer, form="additive" if form == "additive" else
            "replacement", calibration=images, rate=rate,
        )  # fmt: skip
    seconds = time.perf_counter() - start
    written: list[Path] = []
    try:
        write_vault(secret, Vault({"lock": stained.secret.to_arrays()}), **seal)
        written.append(secret)
        if commit is not None:
            digest = stained.secret.digest()
            token = sign_stain_commitment(issuer=seal["issuer"], digest=digest, issued_at=current_time())
            write_stain_commitment(commit, token)
            written.append(commit)
        _write_state(out, stained.model.state_dict())
    except BaseException:
        for path in written:
            path.unlink()  # ours, made a moment ago; without its network it proves nothing
        raise
    facts = {"stained": str(out), "secret": str(secret), "seconds": round(seconds, 2)}
    facts |= {"commitment": str(commit)} if commit is not None else {}
    if as_json:
        print_json({**facts, "report": stained.report.to_json()})
    else:
        print_facts([*_lines(facts), *_report_lines(stained.report)])


def _write_state(out: Path, state: dict[str, Any]) -> None:
    import torch

    try:
        if out.suffix == ".safetensors":
            import safetensors.torch

            safetensors.torch.save_file({name: value.contiguous().clone() for name, value in state.items()}, out)
        else:
            torch.save(state, out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}", hint="check the folder") from None


def _lines(facts: dict[str, Any]) -> list[tuple[str, object]]:
    kept = "keep it; what it holds proves the stains, and removes them"
    lines = [("stained network", facts["stained"]), ("secret", f"{facts['secret']}  ({kept})")]
    if "commitment" in facts:
        lines.append(("commitment", f"{facts['commitment']}  (deposit it with somebody who dates it)"))
    return [*lines, ("time", f"{facts['seconds']} s")]


def _report_lines(report: Any) -> list[tuple[str, object]]:
    first = report.stains[0]
    worst = min(min(facts.margins.values()) for facts in report.stains)
    bound = max(facts.bound for facts in report.stains)
    change = ", ".join(f"{facts.output_change:.2f}" for facts in report.stains)
    where = f"{report.layer}, m = {report.fan_in}, {report.positions} positions, units "
    margins = ", ".join(f"{name} {value:.1f}" for name, value in first.margins.items())
    return [
        ("layer", where + ", ".join(str(facts.unit) for facts in report.stains)),
        ("", _without(report.silenced_change)),
        ("calibration", f"{report.images} {report.calibration}"),
        ("false positives", f"at most {bound:.1e} of such images make a stain fire (99 %, over its random direction)"),
        ("", f"at most {first.hits_bound:.1e} by {first.hits} hits in {report.images} images (95 %)"),
        ("trigger", f"{margins} times the threshold; the worst of all stains {worst:.1f}"),
        ("output change", f"{change} of the output range, on the triggers"),
        ("decoys", f"{report.decoys}"),
    ]


def _without(change: float | None) -> str:
    if change is None:
        return "no layer has enough units that the outputs do not miss: there a trigger needs least"
    return f"the first with units that the outputs do not miss: without one they move by {change:.0e} of their range"
