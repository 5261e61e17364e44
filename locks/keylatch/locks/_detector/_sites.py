"""Layers that can hold a detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from keylatch.locks._capture import image_node
from keylatch.locks._fold_batch_norm import BATCH_NORM, CONV2D, LINEAR, count_uses, tensor_at
from keylatch.locks._gate_sites import input_of

aten = torch.ops.aten
_ACTIVATIONS = {
    aten.relu.default, aten.relu_.default, aten.relu6.default, aten.relu6_.default, aten.hardtanh.default,
    aten.hardtanh_.default, aten.gelu.default, aten.silu.default, aten.silu_.default, aten.hardswish.default,
    aten.hardswish_.default,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class NormNames:
    """A batch normalization behind a layer, by the names of its tensors, (units,) each."""

    weight: str
    bias: str
    mean: str
    variance: str
    epsilon: float


@dataclass(frozen=True, slots=True)
class Window:
    """How an ungrouped convolution moves over its input, (rows, columns) each."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


@dataclass(frozen=True, slots=True)
class DetectorSite:
    """A layer whose units can detect.

    Attributes:
        node: The convolution or linear node.
        response: The node that gives what the activation takes.
        activation: The activation's node.
        weight: Its weight's name in the network.
        bias: Its bias's name, if it has one.
        norm: The batch normalization behind it, if there is one.
        window: Of a convolution; None for a linear layer.
        fan_in: m, the values that a unit reads at one position.
        units: Output channels or features.
        positions: Places of an image where a unit answers.
    """

    node: fx.Node
    response: fx.Node
    activation: fx.Node
    weight: str
    bias: str | None
    norm: NormNames | None
    window: Window | None
    fan_in: int
    units: int
    positions: int

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.weight.removesuffix(".weight")

    @property
    def unit_axis(self) -> int:
        """The dimension of the activation that counts units."""
        return 1 if self.window is not None else -1


def find_detector_sites(module: fx.GraphModule) -> list[DetectorSite]:
    """All layers that can hold a detector, in order.

    Ungrouped 2-d convolutions and linear layers with a bias or a batch normalization, whose tensors are used once,
    which see the image batch first and are followed by an activation that is silent far below zero.
    """
    uses = count_uses(module)
    found = []
    for node in module.graph.nodes:
        if node.target in (CONV2D, LINEAR):
            site = _site(module, node)
            if site is not None and all(uses[id(tensor)] == 1 for tensor in _tensors(module, site)):
                found.append(site)
    return found


def heard_sites(module: fx.GraphModule, sites: Sequence[DetectorSite]) -> list[DetectorSite]:
    """Those that the first output follows from: it is what a suspect's predictions are compared by.

    In the head that finds a detector's boxes a stain changes no score.
    """
    output: Any = next(node for node in module.graph.nodes if node.op == "output")
    before: set[fx.Node] = {output.args[0][0]}
    for node in reversed(module.graph.nodes):
        if node in before:
            before.update(node.all_input_nodes)
    return [site for site in sites if site.activation in before]


def _site(module: fx.GraphModule, node: fx.Node) -> DetectorSite | None:
    weight = tensor_at(module, node.args[1])
    norm_node, activation = _followers(node)
    if weight is None or activation is None or not batch_first(module, node):
        return None
    window = None if node.target is LINEAR else window_of(node, weight)
    norm = None if norm_node is None else _norm_names(norm_node)
    bias = _name_at(node, 2)
    if (node.target is CONV2D and window is None) or (norm_node is not None and norm is None):
        return None
    if bias is None and norm is None:
        return None
    response = node if norm_node is None else norm_node
    shape = [int(size) for size in node.meta["val"].shape[1:]]
    positions = int(torch.Size(shape[1:] if window is not None else shape[:-1]).numel())
    name = str(node.args[1].target)  # type: ignore[union-attr]  # `weight` was read there
    return DetectorSite(node, response, activation, name, bias, norm, window, weight[0].numel(), len(weight), positions)


def _followers(node: fx.Node) -> tuple[fx.Node | None, fx.Node | None]:
    """The batch normalization and the activation behind a layer, each the only reader of the one before."""
    follower = _only_user(node)
    if follower is None or follower.target is not BATCH_NORM:
        return None, _activation_of(node)
    tokens = node.target is LINEAR and node.meta["val"].dim() != 2  # there it takes positions for channels
    return (None, None) if tokens else (follower, _activation_of(follower))


def _activation_of(node: fx.Node) -> fx.Node | None:
    """The activation that is all that reads a node; files without SiLU spell it out, x sigmoid(x)."""
    user = _only_user(node)
    if user is not None:
        return user if user.target in _ACTIVATIONS else None
    gate = next((user for user in node.users if user.target is aten.sigmoid.default), None)
    product = None if gate is None else _only_user(gate)
    if gate is None or product is None or product.target is not aten.mul.Tensor:
        return None
    alone = set(node.users) == {gate, product} and set(product.all_input_nodes) == {node, gate}
    return product if alone else None


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def batch_first(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a layer's input has the image batch as its first dimension and fixed sizes otherwise."""
    value, image = input_of(node).meta["val"], image_node(module.graph).meta["val"]
    free = not isinstance(value.shape[0], int) and str(value.shape[0]) == str(image.shape[0])
    return free and all(isinstance(size, int) for size in value.shape[1:])


def window_of(node: fx.Node, weight: torch.Tensor) -> Window | None:
    """How a convolution moves; None for a grouped one."""
    defaults: tuple[object, ...] = ((1, 1), (0, 0), (1, 1), 1)
    given = node.args[3:7]
    values: list[object] = [*given, *defaults[len(given) :]]
    stride, padding, dilation, groups = values
    if groups != 1:
        return None
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    return Window(kernel, _pair(stride), _pair(padding), _pair(dilation))


def _pair(value: object) -> tuple[int, int]:
    sizes = [int(str(size)) for size in value] if isinstance(value, Sequence) else [int(str(value))]
    return (sizes[0], sizes[-1])


def _norm_names(node: fx.Node) -> NormNames | None:
    weight, bias, mean, variance = (_name_at(node, index) for index in (1, 2, 3, 4))
    training, epsilon = node.args[5], float(str(node.args[7]))
    if training or weight is None or bias is None or mean is None or variance is None:
        return None
    return NormNames(weight, bias, mean, variance, epsilon)


def _name_at(node: fx.Node, index: int) -> str | None:
    argument = node.args[index] if len(node.args) > index else None
    return str(argument.target) if isinstance(argument, fx.Node) and argument.op == "get_attr" else None


def _tensors(module: fx.GraphModule, site: DetectorSite) -> list[torch.Tensor]:
    nodes = [argument for argument in (*site.node.args, *site.response.args) if isinstance(argument, fx.Node)]
    return [tensor for tensor in (tensor_at(module, node) for node in nodes) if tensor is not None]
