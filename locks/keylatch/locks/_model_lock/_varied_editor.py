"""Other editors to train against, where none is at hand: copies of one with weights a little off.

Two editors that were trained apart agree on what a negative is, and differ in tint and sharpness. So do these. It is a
poor substitute: refusing eight of them taught a network nothing about a really different editor (docs/results.md).
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch

from keylatch.errors import LockError
from keylatch.locks._model_lock._diffusers_editor import DiffusersEditor
from keylatch.locks._model_lock._pixel_editor import PixelEditor
from keylatch.locks._model_lock._weights_digest import weights_digest

VARIATION = 0.1

Varied = TypeVar("Varied", bound=PixelEditor | DiffusersEditor)


@torch.no_grad()
def varied_editor(editor: Varied, seed: int, *, amount: float = VARIATION) -> Varied:
    """A copy whose weights are off by normal noise; prompts keep their embeddings.

    Args:
        editor: The editor; not changed.
        seed: Of the noise; public.
        amount: The noise's size, as a share of each tensor's root mean square.

    Raises:
        LockError: If the amount is not positive.
    """
    if not amount > 0:
        raise LockError(f"the variation is {amount:g}, expected more than 0", hint=f"take {VARIATION}")
    other = copy.deepcopy(editor)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in other.named_parameters():
        if not name.startswith("text_encoder."):
            size = amount * float(weight.square().mean().sqrt())
            weight.add_(size * torch.randn(weight.shape, generator=generator).to(weight))
    if isinstance(other, DiffusersEditor):
        other.digest = weights_digest(other.state_dict())
    return other
