"""Where a detector can listen, and which layers end a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from keylatch.errors import LockError
from keylatch.locks._detector._bounds import needed_cosine
from keylatch.locks._detector._draw import MAX_TRIES
from keylatch.locks._detector._sites import LARGEST_COSINE, DetectorSite, batch_first, window_of
from keylatch.locks._fold_batch_norm import CONV2D, LINEAR, tensor_at
from keylatch.locks._gate_sites import input_of

WIDE = 500  # values that a detector should read (docs/locks.md): the more there are, the smaller a share of them is T


def windows_of(module: fx.GraphModule) -> list[DetectorSite]:
    """Inputs of layers as lock A reads them: one convolution window, or one token, at each position."""
    return [site for node in _readable(module) if (site := _site(module, node, squeezed=False)) is not None]


def squeezes_of(module: fx.GraphModule) -> list[DetectorSite]:
    """Inputs of layers as lock B reads them: all channels at once. None behind the first of the last layers."""
    nodes = list(module.graph.nodes)
    end = min((nodes.index(head) for head in last_layers(module)), default=-1)
    found = [node for node in _readable(module) if nodes.index(node) <= end]
    return [site for node in found if (site := _site(module, node, squeezed=True)) is not None]


def choose(sites: Sequence[DetectorSite], name: str | None, rate: float) -> DetectorSite:
    """The named site; or the first that reads `WIDE` values or more, or else the first that will do.

    The earlier a layer, the less of the image reaches a corner of it, and the sooner a patch is found.

    Raises:
        LockError: The name is unknown, or no site is wide enough for a trigger to reach its margin.
    """
    useful = [site for site in sites if needed_cosine(site.fan_in, site.positions, rate, MAX_TRIES) <= LARGEST_COSINE]
    if name is not None:
        named = [site for site in sites if name in (site.name, site.weight)]
        if not named:
            raise LockError(f"{name!r} is not a layer whose input a detector can read", hint=_would_do(useful))
        if named[0] not in useful:
            raise _too_narrow(named[0], useful, rate)
        return named[0]
    if not useful:
        if not sites:
            raise LockError("the network has no layer whose input a detector can read", hint=_would_do(useful))
        raise _too_narrow(max(sites, key=lambda site: site.fan_in), useful, rate)
    wide = [site for site in useful if site.fan_in >= WIDE]
    return (wide or useful)[0]


def last_layers(module: fx.GraphModule) -> list[fx.Node]:
    """Convolutions and linear layers that no other one follows, in order."""
    followed: set[fx.Node] = set()
    last = []
    for node in reversed(module.graph.nodes):
        is_layer = node.target in (CONV2D, LINEAR)
        if node in followed or is_layer:
            followed.update(node.all_input_nodes)
        if is_layer and node not in followed and batch_first(module, node):
            last.append(node)
    return last[::-1]


def _readable(module: fx.GraphModule) -> list[fx.Node]:
    nodes = [node for node in module.graph.nodes if node.target in (CONV2D, LINEAR)]
    return [node for node in nodes if tensor_at(module, node.args[1]) is not None and batch_first(module, node)]


def _site(module: fx.GraphModule, node: fx.Node, *, squeezed: bool) -> DetectorSite | None:
    weight = tensor_at(module, node.args[1])
    assert weight is not None  # noqa: S101  `_readable` looked at it
    window = None if node.target is LINEAR else window_of(node, weight)
    shape = [int(size) for size in input_of(node).meta["val"].shape[1:]]
    channels = shape[0] if node.target is CONV2D else shape[-1]
    if not squeezed and node.target is CONV2D and window is None:
        return None
    places = [int(size) for size in node.meta["val"].shape[1:]]
    positions = int(torch.Size(places[1:] if node.target is CONV2D else places[:-1]).numel())
    fan_in = channels if squeezed else weight[0].numel()
    name = str(node.args[1].target)  # type: ignore[union-attr]  # `weight` was read there
    return DetectorSite(
        node, node, node, name, None, None, None if squeezed else window, fan_in, len(weight),
        1 if squeezed else positions,
    )  # fmt: skip


def _too_narrow(site: DetectorSite, useful: Sequence[DetectorSite], rate: float) -> LockError:
    found = f"{site.name} gives a detector {site.fan_in} values to read, too few to bound false positives by {rate:.0e}"
    return LockError(found, hint=_would_do(useful))


def _would_do(useful: Sequence[DetectorSite]) -> str:
    if not useful:
        return "no layer of this network would do; take a wider network, a larger rate=, or code_lock"
    widest = sorted(useful, key=lambda site: -site.fan_in)[:4]
    return "layers that would do are, e.g., " + ", ".join(f"{site.name} ({site.fan_in})" for site in widest)
