"""`keylatch lock`: lock a network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from keylatch.cli._new_files import check_free
from keylatch.cli._options import JsonOption, PassphraseFile, new_passphrase_from, passphrase_from
from keylatch.cli._output import print_facts, print_json, working
from keylatch.errors import LockError
from keylatch.keys import Vault, open_issuer_key, write_vault


def lock(
    source: Annotated[
        str, typer.Argument(help="The network: package.module:factory, or a torch.export program (.pt2).")
    ],
    image: Annotated[str, typer.Option("--input", help="Image size, channels x height x width, e.g. 3x224x224.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The locked network to write, e.g. net.locked.pt2.")],
    secret: Annotated[Path, typer.Option("--secret", help="The vault to write; keep it.")],
    weights: Annotated[Path | None, typer.Option("--weights", help="State dict: .safetensors, .pt, .pth.")] = None,
    mean: Annotated[
        str, typer.Option("--mean", help="Subtracted from pixels in [0, 1], e.g. 0.485,0.456,0.406.")
    ] = "0",
    std: Annotated[str, typer.Option("--std", help="Then divided by, e.g. 0.229,0.224,0.225.")] = "1",
    layout: Annotated[str, typer.Option("--layout", help="NCHW or NHWC.")] = "NCHW",
    method: Annotated[str, typer.Option("--method", help="The lock method: code.")] = "code",
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
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="Unlabeled images as the network takes them, .npy (N, ...).")
    ] = None,
    issuer: Annotated[
        str | None, typer.Option("--issuer", help="Seal the vault under this issuer key instead of a passphrase.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Lock a network, in seconds, without data or training. Writes the locked network and its secret."""
    check_free(out, secret)
    if method != "code":
        raise LockError(f"lock method {method!r} is not available", hint="use --method code")
    from keylatch.cli._source import load_network
    from keylatch.locks import code_lock, save_locked

    spec = _spec(image, mean, std, layout)
    key = None if issuer is None else open_issuer_key(issuer, passphrase=passphrase_from(passphrase_file))
    network = load_network(source, weights)
    start = time.perf_counter()
    with working(f"locking {source}"):
        locked = code_lock(
            network, spec, patch_size=patch_size, code_bits=code_bits, corner=_corner(corner), layers=layer,
            gates=gates, sealed_share=sealed, calibration=_images(calibration),
        )  # fmt: skip
    seconds = time.perf_counter() - start
    vault = Vault({"lock": locked.secret.to_arrays()})
    if key is None:
        write_vault(secret, vault, passphrase=new_passphrase_from(passphrase_file))
    else:
        write_vault(secret, vault, issuer=key)
    try:
        save_locked(out, locked.module, locked.report)
    except BaseException:
        secret.unlink()  # ours, made a moment ago; without its network it opens nothing
        raise
    facts = {"locked": str(out), "secret": str(secret), "seconds": round(seconds, 2), "report": locked.report.to_json()}
    print_json(facts) if as_json else print_facts(_lines(facts, locked.report))


def _spec(image: str, mean: str, std: str, layout: str) -> Any:
    from keylatch.locks import InputSpec

    try:
        channels, height, width = (int(part) for part in image.lower().split("x"))
        means, stds = (tuple(float(part) for part in values.split(",")) for values in (mean, std))
    except ValueError:
        raise typer.BadParameter("give --input as 3x224x224, --mean and --std as numbers with commas") from None
    if layout not in ("NCHW", "NHWC"):
        raise typer.BadParameter("--layout is NCHW or NHWC")
    return InputSpec(channels, height, width, means, stds, "NHWC" if layout == "NHWC" else "NCHW")


def _corner(corner: str) -> Any:
    if corner not in ("top-left", "top-right", "bottom-left", "bottom-right"):
        raise typer.BadParameter("--corner is top-left, top-right, bottom-left or bottom-right")
    return corner


def _images(path: Path | None) -> Any:
    if path is None:
        return None
    import numpy as np
    import torch

    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except OSError as error:
        raise LockError(f"calibration images {path} cannot be read: {error.strerror}", hint="check the path") from None
    except (ValueError, TypeError, EOFError):
        raise LockError(f"calibration images {path} are not an .npy file", hint="save them with numpy.save") from None


def _lines(facts: dict[str, Any], report: Any) -> list[tuple[str, object]]:
    layers = "\n".join(f"{layer.name}, {layer.channels} channels, centered by {layer.means}" for layer in report.layers)
    return [
        ("locked network", facts["locked"]),
        ("secret", f"{facts['secret']}  (keep it; whoever has it can open the model)"),
        ("time", f"{facts['seconds']} s"),
        ("gated layers", layers),
        ("withheld", f"{report.sealed_parameters:,} of {report.parameters:,} weights; licenses carry them"),
        ("code", f"{report.code_bits} bits, margin {report.margin:.3f} of the pixel range"),
        ("false positives", f"2^{report.log2_false_positive} an image"),
        ("cost", f"none while running; opening goes over {report.gated_parameters:,} gated weights"),
        ("unlocked error", f"{report.unlocked_error:.1e} of the output range"),
        ("locked difference", f"{report.locked_difference:.2f} of the output range"),
    ]
