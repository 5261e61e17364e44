"""Which layers can be gated, what a gate there costs, and which are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from keylatch.errors import LockError
from keylatch.locks._capture import image_node
from keylatch.locks._fold_batch_norm import CONV2D, LINEAR, count_uses, tensor_at

MINIMUM_CHANNELS = 64
DEFAULT_GATES = 8
# Weights of gated layers as a share of all: signs are put right while a model is opened, a few passes over them
# (docs/decisions/0012). Two per cent of ResNet-50 take about a millisecond.
COST_SHARE = 0.02
MINIMUM_GATES = 4  # kept whatever they cost: fewer leave too much of the network's depth ungated


@dataclass(frozen=True, slots=True)
class GateSite:
    """A layer whose input can be gated.

    Attributes:
        node: The convolution or linear node.
        name: Its weight's name in the network.
        channels: Input channels, one sign each.
        parameters: The layer's weights, whose signs opening puts right.
        multiply_adds: The layer's own, for one image.
        depth: Share of the network's multiply-adds that lie before this layer, 0 to 1.
    """

    node: fx.Node
    name: str
    channels: int
    parameters: int
    multiply_adds: int
    depth: float

    @property
    def source(self) -> fx.Node:
        """The node that gives the layer's input; another one once padding or a gate is put in between."""
        return input_of(self.node)

    @property
    def price(self) -> tuple[int, int]:
        """For ordering: the cheapest gate first, and of equally cheap ones that on the layer which does most."""
        return self.parameters, -self.multiply_adds


def find_sites(module: fx.GraphModule, *, minimum_channels: int = MINIMUM_CHANNELS) -> tuple[list[GateSite], int]:
    """All layers that can be gated, in order, and the network's multiply-adds for one image.

    A site is an ungrouped 2-d convolution or a linear layer, with enough input channels, whose weight is used once and
    whose input has the image batch as its first dimension.

    Raises:
        LockError: If there is none.
    """
    costs = _costs(module)
    total, layers = max(1, sum(costs.values())), list(costs)
    uses = count_uses(module)
    sites, before = [], 0
    for node in layers:
        weight = tensor_at(module, node.args[1])
        if weight is not None and uses[id(weight)] == 1:
            site = _site(module, node, minimum_channels, costs[node], before / total)
            sites += [site] if site else []
        before += costs[node]
    if not sites:
        raise LockError(
            f"no layer can be gated: of {len(layers)} convolutions and linear layers none is ungrouped, "
            f"used once and at least {minimum_channels} input channels wide",
            hint="give a smaller minimum_channels, or take a wider network; decomposed programs must be exported again",
        )
    return sites, total


def multiply_adds_of(module: fx.GraphModule) -> int:
    """The network's multiply-adds for one image, 1 or more."""
    return max(1, sum(_costs(module).values()))


def _costs(module: fx.GraphModule) -> dict[fx.Node, int]:
    """Multiply-adds of each convolution and linear layer, in order."""
    return {node: _multiply_adds(node) for node in module.graph.nodes if node.target in (CONV2D, LINEAR)}


def input_of(layer: fx.Node) -> fx.Node:
    """The node that gives a layer's input."""
    source = layer.args[0]
    if not isinstance(source, fx.Node):
        raise TypeError(f"{layer.name} has a constant input")
    return source


def _shape(node: fx.Node) -> list[int]:
    return [int(size) for size in node.meta["val"].shape[1:]]


def _multiply_adds(node: fx.Node) -> int:
    _, *inner = node.args[1].meta["val"].shape  # type: ignore[union-attr]  # aten's signature: a node
    try:
        outputs = int(torch.Size(_shape(node)).numel())
    except (TypeError, ValueError, RuntimeError):  # a data-dependent size
        return 0
    return outputs * int(torch.Size(inner).numel())


def _site(
    module: fx.GraphModule, node: fx.Node, minimum_channels: int, multiply_adds: int, depth: float
) -> GateSite | None:
    source, weight_node = node.args[0], node.args[1]
    weight = tensor_at(module, weight_node)
    if weight is None or not isinstance(source, fx.Node):
        return None
    channels = int(weight.shape[1])
    if channels < minimum_channels or not _batch_first(module, source) or not _plain(node):
        return None
    name = str(getattr(weight_node, "target", node.name))
    return GateSite(node, name, channels, weight.numel(), multiply_adds, depth)


def _batch_first(module: fx.GraphModule, source: fx.Node) -> bool:
    # Window attention merges windows into the batch; signs of an image would not fit there.
    value, image = source.meta.get("val"), image_node(module.graph).meta["val"]
    if value is None or value.dim() < 2 or isinstance(value.shape[0], int):
        return False
    same_batch = str(value.shape[0]) == str(image.shape[0])
    return same_batch and all(isinstance(size, int) for size in value.shape[1:])


def _plain(node: fx.Node) -> bool:
    return node.target is LINEAR or (_argument(node, 6, 1) == 1 and input_of(node).meta["val"].dim() == 4)


def _argument(node: fx.Node, index: int, default: object) -> object:
    return node.args[index] if len(node.args) > index else default


def padding_of(node: fx.Node) -> tuple[int, int]:
    """Zero padding (rows, columns) of a convolution; (0, 0) for a linear layer."""
    if node.target is LINEAR:
        return (0, 0)
    padding = _argument(node, 4, (0, 0))
    sizes = [int(str(size)) for size in padding] if isinstance(padding, Sequence) else [0]
    return (sizes[0], sizes[-1])


def choose_sites(
    sites: Sequence[GateSite], parameters: int, *, gates: int = DEFAULT_GATES, cost_share: float = COST_SHARE
) -> list[GateSite]:
    """Spread gates over the network's depth, each on the smallest layer, within a cost.

    The depth is cut into `gates` equal parts of the computation and each part gets its cheapest site; then the dearest
    are dropped until all together have at most `cost_share` of the network's parameters or four are left. Of equally
    dear ones the deepest goes first: a gate locks everything that follows it.
    """
    chosen = []
    for part in range(gates):
        inside = [site for site in sites if part / gates <= site.depth < (part + 1) / gates]
        chosen += [min(inside, key=lambda site: site.price)] if inside else []
    rest = sorted((site for site in sites if site not in chosen), key=lambda site: site.price)
    chosen += rest[: max(0, gates - len(chosen))]
    by_cost = sorted(chosen, key=lambda site: (site.parameters, site.depth))
    budget = cost_share * parameters
    while len(by_cost) > MINIMUM_GATES and sum(site.parameters for site in by_cost) > budget:
        by_cost.pop()
    return sorted(by_cost, key=lambda site: site.depth)


def sites_named(sites: Sequence[GateSite], names: Sequence[str]) -> list[GateSite]:
    """The sites whose weight or layer is named.

    Raises:
        LockError: If a name is not that of a layer which can be gated.
    """
    known = {key: site for site in sites for key in (site.name, site.name.removesuffix(".weight"))}
    unknown = [name for name in names if name not in known]
    if unknown:
        examples = ", ".join(site.name.removesuffix(".weight") for site in sites[-3:])
        raise LockError(
            f"{unknown[0]!r} is not a layer that can be gated", hint=f"layers that can be gated are, e.g., {examples}"
        )
    return [site for site in sites if site in {known[name] for name in names}]
