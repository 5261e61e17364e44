"""Lock methods: a PyTorch network in, a locked PyTorch network and its secret out."""

from __future__ import annotations

from keylatch.errors import MissingExtraError

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError:
    raise MissingExtraError("locking", "torch", "export") from None

from keylatch.locks._capture import OutputLayout
from keylatch.locks._code import log2_chance_within
from keylatch.locks._code_lock import Locked, code_lock
from keylatch.locks._input_spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from keylatch.locks._locked_module import CodeLockDescription, LockedModule
from keylatch.locks._patch_gate import PatchPlace
from keylatch.locks._report import LayerReport, LockReport
from keylatch.locks._sample_images import sample_images
from keylatch.locks._secret import LockSecret
from keylatch.locks._storage import load_locked, load_program, save_locked

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "CodeLockDescription",
    "InputSpec",
    "LayerReport",
    "LockReport",
    "LockSecret",
    "Locked",
    "LockedModule",
    "OutputLayout",
    "PatchPlace",
    "code_lock",
    "load_locked",
    "load_program",
    "log2_chance_within",
    "sample_images",
    "save_locked",
]
