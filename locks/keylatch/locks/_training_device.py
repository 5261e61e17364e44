"""Where a training computes, how precisely, and from which random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from keylatch.errors import LockError


def training_device(wanted: str | torch.device | None) -> torch.device:
    """The device to train on: the one that is asked for, else the GPU if there is one.

    Raises:
        LockError: It cannot be used.
    """
    if wanted is None:
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=wanted).device  # with its index
    except (RuntimeError, AssertionError):  # AssertionError: torch was built without CUDA
        raise LockError(f"device {wanted} cannot be used", hint="leave device out, or give device='cpu'") from None


def training_precision(mixed: bool | None, device: torch.device) -> torch.dtype:
    """What to compute in: bfloat16 if mixed precision is asked for (float16 on older GPUs), by default on GPUs only.

    Returns:
        float32 for no mixed precision.
    """
    if not (device.type == "cuda" if mixed is None else mixed):
        return torch.float32
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


@contextmanager
def random_numbers(device: torch.device, seed: int) -> Iterator[None]:
    """Dropout and augmentation draw from torch's own generators: seeded for one epoch, then put back."""
    gpus = _gpus(device)
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed all GPUs, and put back only one
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def rehearsal(device: torch.device) -> Iterator[None]:
    """What is drawn in the `with` block is drawn again behind it."""
    with torch.random.fork_rng(devices=_gpus(device)):
        yield


def _gpus(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
