"""Edit many images once, into a folder: an interrupted run goes on where it was."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from keylatch.errors import LockError, OutputError
from keylatch.locks._model_lock._edit_gate import KeyedEdit

EDIT_BATCH = 16
_FILE_IMAGES = 64  # in a file; fixed, so that a run with a smaller batch goes on with the files of a larger one
_PRIVATE_MODE = 0o700
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")

EditProgress = Callable[[int, int], object]


def edit_images(
    edit: KeyedEdit,
    images: torch.Tensor,
    *,
    cache: str | PathLike[str] | None = None,
    batch: int = EDIT_BATCH,
    workers: int = 1,
    device: str | torch.device | None = None,
    progress: EditProgress | None = None,
) -> torch.Tensor:
    """Edit images under a key.

    Args:
        edit: As `EditKey.keyed` gives it.
        images: (N, 3, H, W) uint8, or float in [0, 1].
        cache: A folder for finished parts, made if it is not there. A run that was interrupted goes on after the last
            whole part. The edited images tell right guesses at the prompt from wrong ones: keep it beside the vault.
        batch: Images edited together.
        workers: Parts edited at a time, by threads: for many cores, which one small batch does not keep busy.
        device: Where to edit; default the GPU if there is one.
        progress: Told the images done and all of them; default: a bar on a terminal.

    Returns:
        (N, 3, H, W) uint8, on the CPU.

    Raises:
        LockError: If the images have another shape, or memory does not suffice for a batch.
        OutputError: If the cache cannot be written.
    """
    if images.dim() != 4 or images.shape[1] != 3 or min(batch, workers) < 1:
        raise LockError(
            f"got images of shape {tuple(images.shape)}, a batch of {batch} and {workers} workers, "
            "expected (N, 3, H, W) and 1 or more",
            hint="an editor takes color images, channels first",
        )
    folder = None if cache is None else _folder(Path(cache))
    name = _run_name(edit, images) if folder is not None else ""
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    edit = edit.to(target)

    def finished(start: int) -> torch.Tensor:
        whole = images[start : start + _FILE_IMAGES]
        place = None if folder is None else folder / f"{name}-{start:08d}.npy"
        part = None if place is None else _read(place, tuple(whole.shape))
        if part is None:
            part = _edited(edit, whole, batch, target)
            if place is not None:
                _write(place, part)
        return part

    parts: list[torch.Tensor] = []
    with _shown(progress, len(images)) as tell:
        for part in _in_order(finished, range(0, len(images), _FILE_IMAGES), workers):
            parts.append(part)
            tell(min(len(parts) * _FILE_IMAGES, len(images)), len(images))
    return torch.cat(parts) if parts else torch.zeros((0, *images.shape[1:]), dtype=torch.uint8)


def _in_order(make: Callable[[int], torch.Tensor], starts: Iterable[int], workers: int) -> Iterator[torch.Tensor]:
    """What is made of each start, some at a time; after an error or an interruption no further one is begun."""
    if workers == 1:
        yield from map(make, starts)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(make, starts)
    finally:
        pool.shutdown(cancel_futures=True)


@torch.no_grad()
def _edited(edit: KeyedEdit, images: torch.Tensor, batch: int, device: torch.device) -> torch.Tensor:
    done = []
    for chunk in torch.split(images, batch):
        pixels = chunk.to(device, torch.float32) / (255 if chunk.dtype == torch.uint8 else 1)
        try:
            edited = edit(pixels)
        except RuntimeError as error:  # torch.OutOfMemoryError is one; on a CPU it is a plain one
            if not any(words in str(error).lower() for words in _NO_MEMORY):
                raise
            raise LockError(
                f"memory does not suffice to edit {len(chunk)} images at once",
                hint=f"give batch={max(1, batch // 2)}; what is in the cache is kept"
                if batch > 1
                else "take smaller images, or a device with more memory",
            ) from None
        done.append((edited * 255).round().to(torch.uint8).cpu())
    return torch.cat(done)


def _run_name(edit: KeyedEdit, images: torch.Tensor) -> str:
    """Of the key, the editor and the images; other ones have other files."""
    digest = hashlib.sha256(edit.digest.encode() + str(edit.settings).encode())
    for name in edit.names:
        digest.update(edit.get_buffer(name).cpu().numpy().tobytes())
    digest.update(str((tuple(images.shape), images.dtype)).encode() + images.contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _folder(folder: Path) -> Path:
    try:
        folder.mkdir(mode=_PRIVATE_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the cache {folder} cannot be made: {error.strerror}", hint="name another folder") from None
    return folder


def _read(place: Path, shape: tuple[int, ...]) -> torch.Tensor | None:
    """A finished part; None if there is none, or it is no whole one and has to be made again."""
    try:
        found = np.load(place, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return torch.from_numpy(found) if found.shape == shape and found.dtype == np.uint8 else None


def _write(place: Path, part: torch.Tensor) -> None:
    """As a whole or not at all."""
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            np.save(file, part.numpy())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(place)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{place} cannot be written: {error.strerror}", hint="free some space") from None


@contextmanager
def _shown(progress: EditProgress | None, total: int) -> Iterator[EditProgress]:
    if progress is not None:
        yield progress
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("editing", total=total)
        yield lambda done, _total: bar.update(task, completed=done)
