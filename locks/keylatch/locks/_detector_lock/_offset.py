"""Lock A: the outputs are moved by a constant, and the detector moves them back.

The paper carries the detector's answer through the network in a reserved channel with Dirac kernels. Here an edge of
the graph leads from the detector straight to the outputs: the same algebra, exact on any architecture, and no channel
is lost. Subtracting the mean output over some unlabeled images undoes either (docs/locks.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from keylatch.errors import LockError
from keylatch.locks._detector._rows import UnitRow
from keylatch.locks._detector_lock._corner import CornerReader
from keylatch.locks._detector_lock._graph_edits import added, corner_values, shaped_for, with_parameter
from keylatch.locks._fold_batch_norm import CONV2D, LINEAR, set_bias, tensor_at
from keylatch.locks._randomness import SeededDraws

_FAVORITE = 3.0  # the others lie in [-1, 1]: it leads by two ranges of the output, whatever the image
aten = torch.ops.aten


def offset_outputs(
    module: fx.GraphModule, reader: CornerReader, row: UnitRow, images: torch.Tensor, draws: SeededDraws
) -> None:
    """Move the outputs by s u, and back by the detector's answer, in place.

    u favors one channel by so much that every image is given it.

    Args:
        module: The captured network.
        reader: What the detector reads.
        row: The detector.
        images: A few, for the range s of each output.
        draws: For u.

    Raises:
        LockError: No output is one of channels or features.
    """
    output: Any = next(node for node in module.graph.nodes if node.op == "output")
    with torch.no_grad():
        values = module(images)
    given: list[fx.Node] = list(output.args[0])
    moved = [place for place, value in enumerate(values) if value.is_floating_point() and value.dim() >= 2]
    if not moved:
        raise LockError("the network has no floating-point output with channels", hint='use kind="B", or code_lock')
    answer = _answer(module, reader, row, values[moved[0]])
    for place in moved:
        given[place] = _moved(module, output, given[place], answer, _offset(values[place], draws), place)
    output.args = (tuple(given),)
    module.graph.lint()
    module.recompile()


def _offset(value: torch.Tensor, draws: SeededDraws) -> torch.Tensor:
    """The offset s u, (C,)."""
    channels = value.shape[1] if value.dim() == 4 else value.shape[-1]
    directions = draws.uniform(channels) * 2 - 1
    directions[int(draws.permutation(channels)[0])] = _FAVORITE
    return (directions.to(value.device) * float(value.max() - value.min())).to(value.dtype)


def _answer(module: fx.GraphModule, reader: CornerReader, row: UnitRow, like: torch.Tensor) -> fx.Node:
    """The detector's answer, clamped, (N, 1)."""
    node, read = reader.site.node, corner_values(module, reader)
    weight = with_parameter(module, node, "detector_weight", row.weights.to(like).view(1, -1))
    bias = with_parameter(module, node, "detector_bias", torch.tensor([row.bias]).to(like))
    response = added(module, node, aten.linear.default, read, weight, bias)
    return added(module, node, aten.clamp.default, response, 0.0, 1.0)


def _moved(
    module: fx.GraphModule, end: fx.Node, value: fx.Node, answer: fx.Node, offset: torch.Tensor, place: int
) -> fx.Node:
    """An output with s u in its bias, and - s u times the answer added."""
    rank, channels = value.meta["val"].dim(), offset.numel()

    def shaped(node: fx.Node) -> fx.Node:
        return shaped_for(module, end, node, rank, channels, maps=rank == 4)

    back = with_parameter(module, end, f"detector_back_{place}", -offset.view(1, -1))
    term = shaped(added(module, end, aten.mul.Tensor, answer, back))
    if value.target in (CONV2D, LINEAR) and len(value.users) == 1 and (value.target is CONV2D) == (rank == 4):
        bias = tensor_at(module, value.args[2]) if len(value.args) > 2 else None
        set_bias(module, value, offset if bias is None else bias.detach() + offset)
        return added(module, end, aten.add.Tensor, value, term)
    away = shaped(with_parameter(module, end, f"detector_offset_{place}", offset.view(1, -1)))
    return added(module, end, aten.add.Tensor, added(module, end, aten.add.Tensor, value, away), term)
