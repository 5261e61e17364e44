"""How far a network's outputs move without a unit: not to first order but exactly, by silencing it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from keylatch.locks._detector._features import BATCH, batches_of
from keylatch.locks._detector._sites import DetectorSite

# A class changes if its lead over the next one is less than the lead moves by. On calibration images of MobileNetV2
# leads move by 0.37 of the largest change, and a share of 2.9 s of them is below s of the range: so a share of 1.1 s of
# the classes changes, 0.33 of 1,000 at this limit.
QUIET = 3e-4
_FEW = 32  # images after which a unit is given up if their mean is above the limit; most units are
_TOGETHER = 32  # units that share the run of what lies before them
_HEARD = 1e-2  # of the range: what a unit must do to some image when it is as loud as the layer's loudest


class ResumableRun(fx.Interpreter):
    """A run of a graph on a few images, whose part behind one node can be run again.

    Args:
        module: The captured network.
        node: The last node that is not run again.
        images: (N, ...), as the network takes them.

    Attributes:
        outputs: Of the run.
    """

    def __init__(self, module: fx.GraphModule, node: fx.Node, images: torch.Tensor) -> None:
        super().__init__(module)
        nodes = list(module.graph.nodes)
        self._node, self._early = node, set(nodes[: nodes.index(node) + 1])
        self._kept: dict[fx.Node, Any] = {}
        self.outputs: tuple[torch.Tensor, ...] = self.run(images)

    def run_node(self, n: fx.Node) -> Any:
        """Run a node, and keep what the part behind reads."""
        value = super().run_node(n)
        if n in self._early and n.op != "get_attr":
            late = n.op == "placeholder" or any(user not in self._early for user in n.users)
            self._kept[n] = _copied(value) if late else None
        return value

    @property
    def value(self) -> torch.Tensor:
        """What the node gave."""
        kept: torch.Tensor = self._kept[self._node]
        return kept

    def again(self, value: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """The outputs, with the module's tensors of now and perhaps another value of the node."""
        known = {node: _copied(kept) for node, kept in self._kept.items()}
        if value is not None:
            known[self._node] = value
        outputs: tuple[torch.Tensor, ...] = fx.Interpreter(self.module).run(initial_env=known)
        return outputs


def quiet_units(
    module: fx.GraphModule,
    site: DetectorSite,
    images: torch.Tensor,
    units: Sequence[int],
    wanted: int = 1,
    limit: float | None = None,
) -> dict[int, float]:
    """Units that the outputs do not miss when they are silent, and hear when they are loud.

    How far outputs move without a unit is their largest change for an image, as a share of their range there, the mean
    over images. The expected number of changed classes follows that. A root mean square and a maximum follow the few
    images on which such units speak: units below them on 100 images were no better on 100 others (docs/results.md).

    Args:
        module: The captured network.
        site: The layer.
        images: (N, ...), as the network takes them.
        units: Which to look at.
        wanted: If there cannot be so many, the rest is not looked at.
        limit: How far outputs may move; default `QUIET`.

    Returns:
        How far outputs move without each, at most the limit.
    """
    found: dict[int, float] = {}
    limit = QUIET if limit is None else limit
    with torch.no_grad():
        for start in range(0, len(units), _TOGETHER):
            if len(found) + len(units) - start < wanted:
                break
            found |= _quiet_among(module, site, images, units[start : start + _TOGETHER], limit)
    return found


def _quiet_among(
    module: fx.GraphModule, site: DetectorSite, images: torch.Tensor, units: Sequence[int], limit: float
) -> dict[int, float]:
    sums, seen = dict.fromkeys(units, 0.0), 0
    for part in batches_of(images):
        run = ResumableRun(module, site.activation, part)
        for unit in sums:
            sums[unit] += float(_changes(run, site, unit, 0.0).sum())
        seen += len(part)
        enough = min(len(images), max(seen, _FEW))
        sums = {unit: total for unit, total in sums.items() if total <= limit * enough}
        if not sums:
            return {}
    run = ResumableRun(module, site.activation, images[:BATCH])
    loud = float(run.value.amax())
    heard = (unit for unit in sums if float(_changes(run, site, unit, loud).amax()) >= _HEARD)
    return {unit: sums[unit] / len(images) for unit in heard}


def _changes(run: ResumableRun, site: DetectorSite, unit: int, level: float) -> torch.Tensor:
    """How far each image's outputs move if a unit answers alike everywhere, (N,) float64, as a share of their range."""
    value = run.value.clone()
    answers = value.select(site.unit_axis, unit)
    if bool((answers == level).all()):
        return torch.zeros(len(value), dtype=torch.float64)
    answers.fill_(level)
    pairs = zip(run.again(value), run.outputs, strict=True)
    return torch.stack([_share(moved, output) for moved, output in pairs if output.is_floating_point()]).amax(0)


def _share(moved: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    moved, output = moved.flatten(1).double(), output.flatten(1).double()
    return (moved - output).abs().amax(1) / (output.amax(1) - output.amin(1)).clamp(min=1e-12)


def _copied(value: Any) -> Any:
    """A later layer may write into it."""
    return value.clone() if isinstance(value, torch.Tensor) else value
