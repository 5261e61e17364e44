"""What the verbs that change a network take: its image convention, calibration images, and the vault's seal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from keylatch.cli._options import new_passphrase_from, passphrase_from
from keylatch.errors import LockError
from keylatch.keys import SecretBytes, open_issuer_key

SourceArgument = Annotated[
    str, typer.Argument(help="The network: package.module:factory, or a torch.export program (.pt2).")
]
ImageOption = Annotated[str, typer.Option("--input", help="Image size, channels x height x width, e.g. 3x224x224.")]
WeightsOption = Annotated[Path | None, typer.Option("--weights", help="State dict: .safetensors, .pt, .pth.")]
MeanOption = Annotated[str, typer.Option("--mean", help="Subtracted from pixels in [0, 1], e.g. 0.485,0.456,0.406.")]
StdOption = Annotated[str, typer.Option("--std", help="Then divided by, e.g. 0.229,0.224,0.225.")]
LayoutOption = Annotated[str, typer.Option("--layout", help="NCHW or NHWC.")]
CalibrationOption = Annotated[
    Path | None, typer.Option("--calibration", help="Unlabeled images as the network takes them, .npy (N, ...).")
]


def spec_from(image: str, mean: str, std: str, layout: str) -> Any:
    """The input convention that the options describe."""
    from keylatch.locks import InputSpec

    try:
        channels, height, width = (int(part) for part in image.lower().split("x"))
        means, stds = (tuple(float(part) for part in values.split(",")) for values in (mean, std))
    except ValueError:
        raise typer.BadParameter("give --input as 3x224x224, --mean and --std as numbers with commas") from None
    if layout not in ("NCHW", "NHWC"):
        raise typer.BadParameter("--layout is NCHW or NHWC")
    return InputSpec(channels, height, width, means, stds, "NHWC" if layout == "NHWC" else "NCHW")


def calibration_from(path: Path | None) -> Any:
    """Calibration images as a tensor, or None.

    Raises:
        LockError: The file cannot be read.
    """
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


def vault_seal(vault: Path, issuer: str | None, passphrase_file: Path | None, *, new: bool) -> dict[str, Any]:
    """What a vault is sealed under; a passphrase is asked for once, and a new one before any work is done for it."""
    if issuer is not None:
        return {"issuer": open_issuer_key(issuer, passphrase=passphrase_from(passphrase_file))}
    ask = (new_passphrase_from if new else passphrase_from)(passphrase_file)
    answers = [ask(f"vault {vault}")] if new else []

    def answer(what: str) -> SecretBytes | bytes:
        if not answers:
            answers.append(ask(what))
        return answers[0]

    return {"passphrase": answer}
