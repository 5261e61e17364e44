"""Modules whose numbers must not be rounded when the network around them is cast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import nn


class ExactBuffers(nn.Module):
    """A module without parameters and submodules whose buffers keep their dtype: `.half()` rounds no key."""

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        # Only moves between devices go through.
        del recurse
        for name, buffer in self._buffers.items():
            if buffer is not None:
                moved = fn(buffer)
                self._buffers[name] = moved if moved.dtype == buffer.dtype else buffer.to(moved.device)
        return self
