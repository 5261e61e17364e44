"""Lock B: a squeeze-and-excite gate q(x) = sigma(S2 h(S1 z + t1) + t2) in front of the last layers.

z are the values of an early map in the corner that the patch reaches; the published gate takes the means of a late
map, which a small patch hardly moves. One row of S1 is the detector. t2 = s u
closes the gate; the detector's column of S2 is -s u and opens it. h is clamped to [0, 1] and the trigger over-drives
it, so that what the response varies by does not reach the gate.

Twice the logistic function is 1 at 0: undisturbed, the gate is neutral. It never quite reaches 0, and a network's
classes survive a common factor, however small; so the last hundredth of its range is cut off, and closed means 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from keylatch.locks._detector._draw import draw_direction
from keylatch.locks._detector._features import FeatureSpread
from keylatch.locks._detector._rows import UnitRow
from keylatch.locks._detector_lock._corner import CornerReader
from keylatch.locks._detector_lock._graph_edits import added, corner_values, shaped_for, with_parameter
from keylatch.locks._fold_batch_norm import CONV2D
from keylatch.locks._gate_sites import input_of
from keylatch.locks._randomness import SeededDraws

ROWS = 16
_STRENGTH = 24.0  # s; the logistic function of -18 is 1.5e-8
_CUT = 0.01
_SMALL = 1e-5  # entries of S2 besides the detector's column; they move the gate by about as much
aten = torch.ops.aten


def excite(
    module: fx.GraphModule, reader: CornerReader, heads: Sequence[fx.Node], row: UnitRow, spread: FeatureSpread,
    draws: SeededDraws,
) -> None:  # fmt: skip
    """Put the gate in front of the last layers, in place.

    Args:
        module: The captured network.
        reader: What the rows read.
        heads: The layers whose inputs are multiplied.
        row: The detector.
        spread: Of what they read.
        draws: For the other rows, u, and the detector's place among them.
    """
    place = int(draws.permutation(ROWS)[0])
    hidden = _hidden(module, reader, row, spread, place, draws)
    for index, head in enumerate(heads):
        source, maps = input_of(head), head.target is CONV2D
        value = source.meta["val"]
        channels = int(value.shape[1 if maps else -1])
        gate = _gate(module, head, hidden, _columns(channels, place, draws), index)
        shaped = shaped_for(module, head, gate, value.dim(), channels, maps=maps)
        gated = added(module, head, aten.mul.Tensor, source, shaped)
        gated.meta["val"] = value
        head.replace_input_with(source, gated)
    module.graph.lint()
    module.recompile()


def _hidden(
    module: fx.GraphModule, reader: CornerReader, row: UnitRow, spread: FeatureSpread, place: int, draws: SeededDraws
) -> fx.Node:
    """What the rows answer, h(S1 z + t1), (N, ROWS)."""
    before, read = reader.site.node, corner_values(module, reader)
    rows = (
        torch.stack([draw_direction(draws, reader.site.fan_in).double() for _ in range(ROWS)]) / spread.largest_radius
    )
    offsets = -rows @ spread.center.double().cpu()
    rows[place], offsets[place] = row.weights.cpu(), row.bias
    weight = with_parameter(module, before, "squeeze_weight", rows.to(spread.center))
    bias = with_parameter(module, before, "squeeze_bias", offsets.to(spread.center))
    answers = added(module, before, aten.linear.default, read, weight, bias)
    return added(module, before, aten.clamp.default, answers, 0.0, 1.0)


def _columns(channels: int, place: int, draws: SeededDraws) -> torch.Tensor:
    """S2, (C, ROWS) float32; the detector's column is -s u, and every u is negative: none stays open."""
    columns = draws.normal(channels, ROWS) * _SMALL
    columns[:, place] = _STRENGTH * (0.75 + 0.25 * draws.uniform(channels))
    return columns.float()


def _gate(module: fx.GraphModule, head: fx.Node, hidden: fx.Node, columns: torch.Tensor, index: int) -> fx.Node:
    """The gate for one layer, (N, C), each between 0 and 2 and 1 when it is left alone."""
    place = int(columns[0].argmax())
    like = module.get_parameter("squeeze_weight")
    weight = with_parameter(module, head, f"excite_weight_{index}", columns.to(like))
    bias = with_parameter(module, head, f"excite_bias_{index}", -columns[:, place].to(like))
    opened = added(module, head, aten.sigmoid.default, added(module, head, aten.linear.default, hidden, weight, bias))
    scaled = added(module, head, aten.mul.Tensor, opened, 2 * (1 + _CUT))
    return added(module, head, aten.relu.default, added(module, head, aten.sub.Tensor, scaled, _CUT))
