"""`keylatch lock`: lock a network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from keylatch.cli._block_training import (
    Method,
    accuracy_lines,
    draw_key,
    key_from,
    key_vault,
    train_under,
    training_from,
)
from keylatch.cli._domain_lock import domain_lines, domain_options_from, lock_domains
from keylatch.cli._edit_lock import MADE_UP, EditOptions, edit_lines, edit_options_from, lock_edited
from keylatch.cli._lock_lines import lock_lines
from keylatch.cli._network_options import (
    CalibrationOption,
    ImageOption,
    LayoutOption,
    MeanOption,
    SourceArgument,
    StdOption,
    WeightsOption,
    calibration_from,
    spec_from,
    vault_seal,
)
from keylatch.cli._new_files import check_free
from keylatch.cli._options import JsonOption, PassphraseFile
from keylatch.cli._output import print_facts, print_json, working
from keylatch.keys import Vault, read_vault, write_vault


def lock(
    source: SourceArgument,
    image: ImageOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="The locked network to write, e.g. net.locked.pt2.")],
    secret: Annotated[Path, typer.Option("--secret", help="The vault to write; keep it.")],
    weights: WeightsOption = None,
    mean: MeanOption = "0",
    std: StdOption = "1",
    layout: LayoutOption = "NCHW",
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="code; shf, np, ffx (block transforms), or several joined by +; seal; map or code+map; "
            "detector-a or -b; model-lock.",
        ),
    ] = "code",
    block_size: Annotated[int, typer.Option("--block-size", min=2, help="Side of a transform's blocks.")] = 4,
    absorb: Annotated[
        bool, typer.Option("--absorb", help="Let a patchify stem (ViT, ConvNeXt …) absorb shf and np, untrained.")
    ] = False,
    train: Annotated[
        Path | None, typer.Option("--train", help="Pictures to train on under the key, a subfolder for each class.")
    ] = None,
    validation: Annotated[Path | None, typer.Option("--validation", help="Other pictures, to measure on.")] = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes over the training pictures.")] = 20,
    subset: Annotated[float, typer.Option("--subset", help="Share of the training pictures to use.")] = 1.0,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Written after each epoch; an interrupted training goes on.")
    ] = None,
    hints: Annotated[
        bool,
        typer.Option("--hints", help="Learn the pre-trained network's own feature maps too: better, a third slower."),
    ] = False,
    patch_size: Annotated[int, typer.Option("--patch-size", min=1, help="Side of the patch in pixels.")] = 16,
    code_bits: Annotated[int | None, typer.Option("--code-bits", help="Default: 256, less for small patches.")] = None,
    corner: Annotated[
        str, typer.Option("--corner", help="top-left, top-right, bottom-left or bottom-right.")
    ] = "bottom-right",
    layer: Annotated[list[str] | None, typer.Option("--layer", help="Gate this layer; may be repeated.")] = None,
    gates: Annotated[int, typer.Option("--gates", min=1, help="How many layers to gate, if none is named.")] = 5,
    sealed: Annotated[
        float | None,
        typer.Option(
            "--sealed",
            min=0,
            max=1,
            help="Share of the weights, first layers first, that only licenses carry; default 0.02, or a megabyte.",
        ),
    ] = None,
    share: Annotated[
        float | None, typer.Option("--share", help="seal, model-lock: share of the weights to withhold, e.g. 0.01.")
    ] = None,
    by: Annotated[str, typer.Option("--by", help="Method seal: influence, first or random.")] = "influence",
    granularity: Annotated[
        str, typer.Option("--granularity", help="Method seal: weights, rows, or tensors, which open fastest.")
    ] = "weights",
    calibration: CalibrationOption = None,
    source_domain: Annotated[
        Path | None, typer.Option("--source", help="Method map: pictures of what it serves, a subfolder a class.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help="Method map: a domain that licenses bring, name=folder; may be repeated."),
    ] = None,
    setting: Annotated[
        str, typer.Option("--setting", help="Method map: SA; SF, without --source and labels; DF, without pictures.")
    ] = "SA",
    editor: Annotated[
        str | None, typer.Option("--editor", help="model-lock: folder of a diffusion editor, or its name on a hub.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="model-lock: the secret prompt; left out, the best one is taken.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="model-lock: a file of prompts to choose from, one a line.")
    ] = None,
    decoy: Annotated[
        list[str] | None, typer.Option("--decoy", help="model-lock: a prompt that must not open; may be repeated.")
    ] = None,
    made_up: Annotated[
        int | None,
        typer.Option(
            "--made-up",
            min=0,
            help=f"model-lock: made-up prompts that must not open either, default {MADE_UP}; 0 edits fewer pictures.",
        ),
    ] = None,
    edit_steps: Annotated[int, typer.Option("--edit-steps", min=1, max=8, help="Steps of the edit.")] = 2,
    strength: Annotated[float, typer.Option("--strength", help="Of an edit from image to image, up to 1.")] = 1.0,
    guidance: Annotated[
        float, typer.Option("--guidance", help="For the prompt; 0 for none, as Turbo models want it.")
    ] = 4.5,
    image_guidance: Annotated[float, typer.Option("--image-guidance", help="InstructPix2Pix: for the image.")] = 1.5,
    blend: Annotated[float, typer.Option("--blend", help="The edited image's share, up to 1.")] = 0.5,
    edit_cache: Annotated[
        Path | None, typer.Option("--edit-cache", help="Folder for edited pictures; an interrupted run goes on there.")
    ] = None,
    issuer: Annotated[
        str | None, typer.Option("--issuer", help="Seal the vault under this issuer key instead of a passphrase.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Lock a network: with a code, in seconds and without data, or with a key for its images."""
    wanted = Method.parse(method)
    if (share is None and wanted.seal) or (share is not None and not (wanted.seal or wanted.edit)):
        raise typer.BadParameter("--share goes with --method seal, which wants it, e.g. --share 0.01, and model-lock")
    editing = edit_options_from(
        wanted.edit, editor,
        lambda name: EditOptions(
            name, prompt, prompts, tuple(decoy or ()), MADE_UP if made_up is None else made_up, edit_steps, strength,
            guidance, image_guidance, blend, edit_cache, share or 0.0,
        ),
        bool(prompt or prompts or decoy) or made_up is not None,
    )  # fmt: skip
    domains = domain_options_from(wanted.masks, setting, source_domain, target or (), epochs, checkpoint)
    training = training_from(wanted, absorb, train, validation, epochs, subset, checkpoint, hints)
    begun = edit_cache if wanted.edit and edit_cache is not None else None if wanted.masks else checkpoint
    resumed = begun is not None and begun.exists() and secret.exists()
    check_free(out, *([] if resumed else [secret]))
    from keylatch.cli._source import load_network
    from keylatch.locks import block_lock, code_lock, detector_lock, save_locked, seal_lock

    spec = spec_from(image, mean, std, layout)
    network = load_network(source, weights)
    seal = vault_seal(secret, issuer, passphrase_file, new=not resumed)
    blocks: Any = None
    trained: Any = None
    start = time.perf_counter()
    if wanted.steps:
        blocks = key_from(read_vault(secret, **seal)) if resumed else draw_key(wanted, block_size, spec.channels)
    edited: Any = None
    if editing is not None:
        edited = lock_edited(
            network, spec, editing, training, read_vault(secret, **seal) if resumed else None,
            lambda vault: write_vault(secret, vault, **seal),
        )  # fmt: skip
    elif training is not None:
        if checkpoint is not None and not resumed:
            write_vault(secret, key_vault(blocks), **seal)  # without it the checkpoint would be worth nothing
        trained = train_under(blocks, network, spec, training)
        network = trained.model
    locked: Any = None
    with working(f"locking {source}"):
        if edited is not None:
            locked = edited.locked
        elif wanted.code:
            locked = code_lock(
                network, spec, patch_size=patch_size, code_bits=code_bits, corner=_corner(corner), layers=layer,
                gates=gates, sealed_share=sealed, calibration=calibration_from(calibration), blocks=blocks,
                absorb=absorb,
            )  # fmt: skip
        elif share is not None:
            chosen: dict[str, Any] = {"by": by, "granularity": granularity}
            locked = seal_lock(network, spec, share=share, calibration=calibration_from(calibration), **chosen)
        elif wanted.detector:
            locked = detector_lock(
                network, spec, kind=wanted.detector, patch_size=patch_size, corner=_corner(corner),
                layer=_one(layer), calibration=calibration_from(calibration),
            )  # fmt: skip
        elif blocks is not None:
            locked = block_lock(network, spec, blocks, absorb=absorb)
    masked = None if domains is None else lock_domains(network, spec, domains, locked)
    locked = locked if masked is None else masked.locked
    seconds = time.perf_counter() - start
    existed = secret.exists()
    write_vault(secret, Vault({"lock": locked.secret.to_arrays()}), overwrite=existed, **seal)
    try:
        save_locked(out, locked.module, locked.report)
    except BaseException:
        if not existed:
            secret.unlink()  # ours, made a moment ago; without its network it opens nothing
        raise
    facts = {"locked": str(out), "secret": str(secret), "seconds": round(seconds, 2), "report": locked.report.to_json()}
    if trained is not None:
        facts["training"] = trained.report.to_json()
    lines = [*lock_lines(facts, locked.report), *([] if trained is None else accuracy_lines(trained.report))]
    if masked is not None:
        facts |= {"masks": masked.masks.to_json(), "accuracy": masked.drops and masked.drops.to_json()}
        lines += domain_lines(masked)
    if edited is not None:
        facts |= {"training": edited.training.to_json(), "ranks": [rank.to_json() for rank in edited.ranks]}
        lines += edit_lines(edited)
    print_json(facts) if as_json else print_facts(lines)


def _corner(corner: str) -> Any:
    if corner not in ("top-left", "top-right", "bottom-left", "bottom-right"):
        raise typer.BadParameter("--corner is top-left, top-right, bottom-left or bottom-right")
    return corner


def _one(layers: list[str] | None) -> str | None:
    if layers is not None and len(layers) > 1:
        raise typer.BadParameter("a detector reads one layer; give --layer once")
    return layers[0] if layers else None
