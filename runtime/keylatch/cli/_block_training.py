"""Block transforms for `keylatch lock`: draw the key, and make a network understand images under it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import typer

from keylatch.cli._image_folder import class_names, read_image_folder
from keylatch.cli._source import trainable
from keylatch.errors import LockError
from keylatch.keys import Vault

_CODE, _SEAL, _MAP = "code", "seal", "map"
_STEPS = ("shf", "np", "ffx")
_EDIT = "model-lock"
_DETECTORS: dict[str, Literal["A", "B"]] = {"detector-a": "A", "detector-b": "B"}


@dataclass(frozen=True, slots=True)
class Method:
    """What `--method` asks for.

    Attributes:
        code: Whether a code lock is made.
        steps: Of the block transform; () without one.
        detector: ``A`` or ``B`` for a detector lock, which stands alone; "" without one.
        seal: Whether a share of the weights is sealed, which stands alone.
        edit: Whether it is a ModelLock, which stands alone.
        masks: Whether weights are withheld by domains, alone or behind a code lock.
    """

    code: bool
    steps: tuple[str, ...]
    detector: Literal["", "A", "B"] = ""
    seal: bool = False
    edit: bool = False
    masks: bool = False

    @classmethod
    def parse(cls, text: str) -> Method:
        """Read e.g. ``code``, ``shf`` or ``code+shf+np``.

        Raises:
            LockError: If a part is unknown.
        """
        if text in _DETECTORS:
            return cls(False, (), _DETECTORS[text])
        if text == _SEAL:
            return cls(False, (), seal=True)
        if text in (_MAP, f"{_CODE}+{_MAP}"):
            return cls(text != _MAP, (), masks=True)
        if text == _EDIT:
            return cls(False, (), edit=True)
        parts = text.split("+")
        unknown = [part for part in parts if part not in (_CODE, *_STEPS)]
        if unknown:
            raise LockError(
                f"lock method {unknown[0]!r} is not available",
                hint="use code, shf, np or ffx, or some of them joined by +, e.g. --method shf+np; "
                "or seal, map, detector-a, detector-b or model-lock",
            )
        return cls(_CODE in parts, tuple(part for part in parts if part != _CODE))


@dataclass(frozen=True, slots=True)
class Training:
    """What the training options ask for.

    Attributes:
        train: Folder of training pictures, one subfolder a class.
        validation: The same for measuring.
        epochs: Passes over them.
        subset: Share of the training pictures.
        checkpoint: File to resume from.
        hints: Whether the network's own feature maps are learned too.
    """

    train: Path
    validation: Path
    epochs: int
    subset: float
    checkpoint: Path | None
    hints: bool = False


def training_from(
    method: Method,
    absorb: bool,
    train: Path | None,
    validation: Path | None,
    epochs: int,
    subset: float,
    checkpoint: Path | None,
    hints: bool,
) -> Training | None:
    """Make sense of the options; None where nothing is trained."""
    if hints and (train is None or not (method.steps or method.edit)):
        raise typer.BadParameter("--hints goes with --train and --method shf, np, ffx or model-lock")
    if not method.steps and not method.edit:
        if absorb or train or validation or (checkpoint and not method.masks):
            raise typer.BadParameter(
                "--absorb, --train, --validation and --checkpoint go with --method shf, np or ffx; "
                "but for --absorb also with model-lock, and --checkpoint with map"
            )
        return None
    if method.edit and (absorb or train is None):
        raise typer.BadParameter("--method model-lock wants --train and --validation, and no --absorb")
    if absorb == (train is not None):
        raise typer.BadParameter("give either --absorb, for a patchify stem, or --train and --validation")
    if absorb:
        return None
    if train is None or validation is None:
        raise typer.BadParameter("--train wants --validation, a folder of other pictures to measure on")
    return Training(train, validation, epochs, subset, checkpoint, hints)


def train_under(transform: Any, network: Any, spec: Any, wanted: Training) -> Any:
    """Train the network on transformed pictures; gives what `fine_tune` gives.

    Raises:
        InputError: If the pictures cannot be read.
        LockError: If they, the network and the key do not fit together.
    """
    from keylatch.locks import fine_tune, hint_layers

    network, names = trainable(network), class_names(wanted.train)
    batches = [[read_image_folder(folder, names, spec)] for folder in (wanted.train, wanted.validation)]
    return fine_tune(
        network, spec, transform, *batches, epochs=wanted.epochs, subset=wanted.subset, checkpoint=wanted.checkpoint,
        hints=hint_layers(network, spec) if wanted.hints else (),
    )  # fmt: skip


def draw_key(method: Method, block_size: int, channels: int) -> Any:
    """A fresh key."""
    from keylatch.locks import BlockTransform

    return BlockTransform.draw(method.steps, block_size=block_size, channels=channels)  # type: ignore[arg-type]


def key_vault(transform: Any) -> Vault:
    """A vault for a key while the training is under way."""
    from keylatch.locks import LockSecret

    return Vault({"lock": LockSecret.of_blocks(transform).to_arrays()})


def key_from(vault: Vault) -> Any:
    """The key of a training that was interrupted.

    Raises:
        LockError: If the vault is that of another lock.
    """
    from keylatch.locks import LockSecret

    transform = LockSecret.from_arrays(vault.section("lock")).blocks
    if transform is None:
        raise LockError(
            "the vault is that of a lock without a block transform, the checkpoint is of a training under a key",
            hint="choose another name with --secret, or delete the checkpoint",
        )
    return transform


def accuracy_lines(report: Any) -> list[tuple[str, object]]:
    """A training's accuracies for the terminal."""
    near = ", ".join(f"{name}: {value:.1f}" for name, value in report.near_key.items())
    return [
        ("trained on", f"{report.images} pictures, {report.epochs} epochs, {report.seconds:.0f} s"),
        (
            "accuracy",
            f"{report.right_key:.1f} % with the key (the network before, without a key: {report.original:.1f})",
        ),
        ("without key", f"{report.no_key:.1f} %, with wrong keys {report.wrong_key:.1f} %"),
        ("near keys", f"{near} %"),
    ]
