"""Which weights of the original network a code lock's sealed layers hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keylatch.locks._locked_module import LockedModule
from keylatch.locks._sealing import sealed_name


@dataclass(frozen=True, slots=True)
class SealedPlace:
    """A parameter inside a sealed layer.

    Attributes:
        index: Of the sealed tensor.
        shape: Of the parameter.
        transposed: Whether the sealed tensor is the parameter's transpose.
    """

    index: int
    shape: tuple[int, ...]
    transposed: bool

    def moved(self, mask: torch.Tensor) -> torch.Tensor:
        """A mask of the parameter as one of the sealed tensor."""
        return mask.T.contiguous() if self.transposed else mask


def sealed_places(module: LockedModule, names: Sequence[str]) -> dict[str, SealedPlace]:
    """By parameter name what a code lock's sealed tensors are.

    Args:
        module: The locked module.
        names: The parameters that the sealed tensors were, in order, from the lock's report.
    """
    places = {}
    for index, name in enumerate(names):
        held = sealed_name(index)
        shape = tuple(module.body.get_buffer(held).shape)
        reader = next(node for node in module.body.graph.nodes if node.op == "get_attr" and node.target == held)
        # A linear layer on tokens was spelled out as a product with the transposed weight.
        turned = any(user.target is torch.ops.aten.matmul.default for user in reader.users)
        places[name] = SealedPlace(index, shape[::-1] if turned else shape, turned)
    return places
