"""`keylatch export`: a locked network to an ONNX artifact."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Annotated, Any

import typer

from keylatch.cli._new_files import check_free
from keylatch.cli._options import JsonOption, PassphraseFile, passphrase_from
from keylatch.cli._output import print_facts, print_json, working
from keylatch.errors import LockError
from keylatch.keys import Vault, open_issuer_key, read_vault, write_vault


def export(
    locked: Annotated[Path, typer.Argument(help="The locked network that `keylatch lock` wrote.")],
    secret: Annotated[Path, typer.Option("--secret", help="Its vault; the artifact's secret values are added to it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The artifact's directory, e.g. net.latch.")],
    fp16: Annotated[bool, typer.Option("--fp16", help="Compute in float16; images and outputs stay float32.")] = False,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Compute in bfloat16, likewise; such a model runs on CUDA.")
    ] = False,
    uint8: Annotated[
        bool, typer.Option("--uint8", help="Take raw bytes, NHWC; normalization and layout go into the graph.")
    ] = False,
    seal_weights: Annotated[
        bool, typer.Option("--seal-weights", help="Encrypt all weights; licenses bring their key.")
    ] = False,
    side_file: Annotated[
        bool | None,
        typer.Option(
            "--side-file/--no-side-file",
            help="Withheld weights lie encrypted beside the model, and licenses bring their key; default: above 8 MiB.",
        ),
    ] = None,
    fingerprint: Annotated[
        bool, typer.Option("--fingerprint", help="Mark each license's weights: a leaked model then names its license.")
    ] = False,
    name: Annotated[str | None, typer.Option("--name", help="The model's name.")] = None,
    issuer: Annotated[
        str | None, typer.Option("--issuer", help="The issuer key that the vault is sealed under.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Export a locked network as an artifact. It proves itself against PyTorch before it is kept."""
    if fp16 and bf16:
        raise typer.BadParameter("give either --fp16 or --bf16", param_hint="--bf16")
    check_free(out, hint="choose another name with --out")
    # Before torch is asked, which logs a traceback of its own.
    if not zipfile.is_zipfile(locked):
        found = "is not a locked network" if locked.exists() else "does not exist"
        raise LockError(f"{locked} {found}", hint="give the file that keylatch lock wrote")
    from keylatch.exporters import describe_proof
    from keylatch.exporters import export as export_artifact
    from keylatch.locks import LockSecret, load_locked

    ask = passphrase_from(passphrase_file)
    seal: dict[str, Any] = (
        {"passphrase": ask} if issuer is None else {"issuer": open_issuer_key(issuer, passphrase=ask)}
    )
    vault = read_vault(secret, **seal)
    module, report = load_locked(locked)
    with working(f"exporting {locked}"):
        exported = export_artifact(
            module,
            LockSecret.from_arrays(vault.section("lock")),
            out,
            report=report,
            precision="float16" if fp16 else "bfloat16" if bf16 else "float32",
            uint8_input=uint8,
            sealed_weights=seal_weights,
            side_file="auto" if side_file is None else side_file,
            fingerprint=fingerprint,
            name=name,
        )
    try:
        sections = {**vault.sections, exported.model_id: dict(exported.secret_values)}
        write_vault(secret, Vault(sections), overwrite=True, **seal)
    except BaseException:
        shutil.rmtree(out)  # no license could be issued for it
        raise
    facts = {"artifact": str(out), "model_id": exported.model_id, "proof": describe_proof(exported.proof)}
    if as_json:
        print_json(facts)
    else:
        proof = exported.proof
        lines: list[tuple[str, object]] = [
            ("artifact", out),
            ("model_id", exported.model_id),
            ("keyed error", f"{proof.keyed_error:.1e} of the output range, onnxruntime against PyTorch"),
            ("locked difference", f"{proof.locked_difference:.2f} of the output range"),
        ]
        if bf16:
            seen = f"on {proof.ran_on}" if proof.ran_on else "rounded on the CPU, which computes in float32"
            lines.append(("bfloat16 error", f"{proof.rounding_error:.1e} of the output range, {seen}"))
        if fingerprint:
            lines.append(("fingerprint", f"moves outputs by {proof.fingerprint_change:.1e} of their range"))
        print_facts(lines)
