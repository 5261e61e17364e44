"""An interrupted training goes on where it was: one file, replaced as a whole after every epoch.

The file belongs beside the vault: the network in it works under the key, so it tells right guesses from wrong ones. The
key itself is not in it, only a digest to refuse another key.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import secrets
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import torch
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from torch import nn

from keylatch.errors import LockError, OutputError

_FORMAT = "keylatch training/1"
_PRIVATE_MODE = 0o600
_UNREADABLE = (
    RuntimeError, ValueError, KeyError, TypeError, AttributeError, EOFError, OSError, pickle.UnpicklingError,
    zipfile.BadZipFile,
)  # fmt: skip
# RFC 7914: 2^15 blocks of 1 KiB, 0.1 s. SHF at M = 2 has but 2^28.8 keys; a fast digest would give them in minutes.
_SCRYPT_COST = 2**15

Run = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What one epoch came to.

    Attributes:
        loss: Mean cross-entropy over the training images, in nats.
        accuracy: On the validation images under the right key, in percent.
    """

    loss: float
    accuracy: float


@dataclass(slots=True, eq=False)
class TrainingState:
    """Everything that the next epoch depends on; randomness does not, every epoch draws from the seed and its number.

    Attributes:
        network: In training.
        optimizer: Of the network's parameters.
        scaler: Of losses in float16; does nothing otherwise.
        history: One entry for each epoch done.
        best: Weights of the epoch with the best accuracy, on the CPU, if the training stops early.
        seconds: Spent in training so far.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    history: list[EpochResult] = field(default_factory=list)
    best: dict[str, Any] | None = None
    seconds: float = 0.0

    def record(self, epoch: EpochResult, *, keep_best: bool) -> None:
        """Add an epoch that is done."""
        self.history.append(epoch)
        if keep_best and self.stale_epochs() == 0:
            self.best = weights_of(self.network)

    def stale_epochs(self) -> int:
        """Epochs since the best one; 0 before and right after it."""
        accuracies = [epoch.accuracy for epoch in self.history]
        return len(accuracies) - 1 - accuracies.index(max(accuracies)) if accuracies else 0

    def to_saved(self) -> dict[str, Any]:
        """What the file holds of it."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": [astuple(epoch) for epoch in self.history],
            "best": self.best,
            "seconds": self.seconds,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go back to what `to_saved` gave."""
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        self.history = [EpochResult(*epoch) for epoch in saved["history"]]
        self.best, self.seconds = saved["best"], saved["seconds"]


def weights_of(network: nn.Module) -> dict[str, Any]:
    """A copy of a network's state on the CPU."""
    state = network.state_dict()
    return {name: v.detach().cpu().clone() if isinstance(v, torch.Tensor) else v for name, v in state.items()}


def describe_model(network: nn.Module) -> Run:
    """Digests of a network's shapes and of its weights."""
    shapes, weights = hashlib.sha256(), hashlib.sha256()
    for name, value in weights_of(network).items():
        if isinstance(value, torch.Tensor):
            shapes.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            weights.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return {"model shapes": shapes.digest(), "model weights": weights.digest()}


def key_digest(key: Mapping[str, Any], images_digest: bytes) -> bytes:
    """A digest that tells keys apart, and tells nothing to who lacks the training images: they are its salt.

    Args:
        key: Its arrays, by name.
        images_digest: Of the training images; not in the file.
    """
    arrays = sorted(key.items())
    parts = [f"{name} {array.dtype} {array.shape}\n".encode() + array.tobytes() for name, array in arrays]
    return Scrypt(salt=images_digest, length=32, n=_SCRYPT_COST, r=8, p=1).derive(b"".join(parts))


def require_place(path: Path) -> Path:
    """Before hours of training, look whether the checkpoint has a place.

    Returns:
        The path.

    Raises:
        LockError: If its folder is missing, or it is a folder itself.
    """
    if not path.parent.is_dir():
        raise LockError(f"checkpoint {path} has no folder to stand in", hint=f"create {path.parent} first")
    if path.is_dir():
        raise LockError(f"checkpoint {path} is a folder, expected a file", hint=f"name a file in it: {path}/run.pt")
    return path


def save_checkpoint(path: Path, run: Run, state: TrainingState) -> None:
    """Write a checkpoint; after a crash the file is the old one or the new one, never a part.

    Raises:
        OutputError: It cannot be written.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
    try:
        _write_synced(temporary, {"format": _FORMAT, "run": run, "state": state.to_saved()})
        temporary.replace(path)
        _sync(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        reason = getattr(error, "strerror", None) or "torch could not write it"
        raise OutputError(f"checkpoint {path} cannot be written: {reason}", hint="check the disk") from None
    finally:
        temporary.unlink(missing_ok=True)


def _write_synced(path: Path, content: dict[str, Any]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, _PRIVATE_MODE), "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    # The new name survives a power cut only once the folder is on disk too.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def resume(path: Path, run: Run, state: TrainingState) -> None:
    """Go on where the checkpoint is, if there is one.

    Args:
        path: The checkpoint.
        run: What makes this run what it is: bytes for digests, anything else is shown in errors.
        state: Is put to where the checkpoint was.

    Raises:
        LockError: It is no checkpoint, or one of another run; the message says what differs.
    """
    if not path.exists():
        return
    with _as_lock_error(path):
        # weights_only: a checkpoint from elsewhere must not run code (CWE-502).
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != _FORMAT:
            raise ValueError("format")
        found, saved = dict(content["run"]), content["state"]
    _require_same_run(path, found, run)
    with _as_lock_error(path):
        state.restore(saved)


@contextmanager
def _as_lock_error(path: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise LockError(
            f"{path} is no training checkpoint: {type(error).__name__}", hint="remove it, or name another file"
        ) from None


def _require_same_run(path: Path, found: Run, expected: Run) -> None:
    names = [name for name in expected if found.get(name) != expected[name]]
    if names:
        differences = ", ".join(_difference(name, found.get(name), expected[name]) for name in names)
        raise LockError(
            f"checkpoint {path} is of another run: {differences}",
            hint="go on with the same arguments and images, or name another file; random changes of the images belong "
            "into augment=, not into the loader",
        )


def _difference(name: str, found: object, expected: object) -> str:
    return f"other {name}" if isinstance(expected, bytes) else f"{name} {found}, expected {expected}"
