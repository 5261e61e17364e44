"""Fold every batch normalization away before locking.

Running means and variances in the file would give a gated layer's signs away: they say what its output should look
like (docs/locks.md). A normalization that follows a convolution or linear layer is folded into its weights; any other
becomes one multiplication and one addition.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import fx, nn

from keylatch.errors import LockError

BATCH_NORM = torch.ops.aten.batch_norm.default
CONV2D = torch.ops.aten.conv2d.default
LINEAR = torch.ops.aten.linear.default
CHANNEL_AXIS = {CONV2D: 1, LINEAR: -1}


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and variance of each channel, (C,) float32."""

    mean: torch.Tensor
    variance: torch.Tensor


def fold_batch_norms(module: fx.GraphModule) -> dict[fx.Node, Moments]:
    """Fold all batch normalizations of a graph in place.

    Returns:
        For each node that now gives a normalized output: its moments over the training images, which the
        normalization's own shift and scale are (mean beta, variance gamma^2).

    Raises:
        LockError: If a normalization uses batch statistics, or is of a form that cannot be folded.
    """
    calls = [node for node in module.graph.nodes if node.op == "call_function" and "batch_norm" in str(node.target)]
    foreign = [node for node in calls if node.target is not BATCH_NORM]
    if foreign:
        raise LockError(
            f"the program has a decomposed batch normalization, {foreign[0].target}",
            hint="export the network with torch.export.export and do not run decompositions",
        )
    moments: dict[fx.Node, Moments] = {}
    uses = count_uses(module)
    for node in [node for node in module.graph.nodes if node.target is BATCH_NORM]:
        scale, shift, statistics = _affine(module, node)
        source = node.args[0]
        if _foldable(module, source, uses):
            _fold_into(module, source, scale, shift)
            replacement = source
        else:
            replacement = _as_affine(module, node, scale, shift)
        node.replace_all_uses_with(replacement)
        module.graph.erase_node(node)
        moments[replacement] = statistics
    module.graph.eliminate_dead_code()
    module.recompile()
    return moments


def tensor_at(module: nn.Module, node: object) -> torch.Tensor | None:
    """The parameter or buffer that a `get_attr` node reads, else None."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    owner_path, _, name = str(node.target).rpartition(".")
    value = getattr(module.get_submodule(owner_path), name)
    return value if isinstance(value, torch.Tensor) else None


def weight_of(module: nn.Module, layer: fx.Node) -> torch.Tensor:
    """The weight of a convolution or linear node whose weight is a parameter."""
    weight = tensor_at(module, layer.args[1])
    if weight is None:
        raise TypeError(f"{layer.name} has a computed weight")
    return weight


def count_uses(module: fx.GraphModule) -> Counter[int]:
    """By a tensor's `id`, in how many places of the graph it is used; two names may share one tensor."""
    uses: Counter[int] = Counter()
    for node in module.graph.nodes:
        tensor = tensor_at(module, node)
        if tensor is not None:
            uses[id(tensor)] += len(node.users)
    return uses


def add_parameter(module: fx.GraphModule, before: fx.Node, name: str, value: torch.Tensor) -> fx.Node:
    """Register a trainable parameter and give the node that reads it."""
    module.register_parameter(name, nn.Parameter(value))
    with module.graph.inserting_before(before):
        return module.graph.get_attr(name)


def _affine(module: fx.GraphModule, node: fx.Node) -> tuple[torch.Tensor, torch.Tensor, Moments]:
    _, weight_node, bias_node, mean_node, variance_node, training, _, epsilon, *_ = node.args
    mean, variance = tensor_at(module, mean_node), tensor_at(module, variance_node)
    if training or mean is None or variance is None:
        raise LockError(
            "a batch normalization uses the statistics of its batch",
            hint="call model.eval(), and keep track_running_stats=True",
        )
    weight, bias = tensor_at(module, weight_node), tensor_at(module, bias_node)
    gamma = torch.ones_like(mean) if weight is None else weight.detach()
    beta = torch.zeros_like(mean) if bias is None else bias.detach()
    scale = gamma.double() / (variance.double() + float(str(epsilon))).sqrt()
    shift = beta.double() - mean.double() * scale
    return scale, shift, Moments(beta.float(), gamma.float() ** 2)


def _foldable(module: fx.GraphModule, source: object, uses: Counter[int]) -> bool:
    if not isinstance(source, fx.Node) or source.target not in CHANNEL_AXIS or len(source.users) != 1:
        return False
    if source.target is LINEAR and source.meta["val"].dim() != 2:
        return False  # of tokens (N, T, C) a normalization takes T for the channels
    weight = tensor_at(module, source.args[1])
    return weight is not None and uses[id(weight)] == 1


def _fold_into(module: fx.GraphModule, source: fx.Node, scale: torch.Tensor, shift: torch.Tensor) -> None:
    weight = weight_of(module, source)
    old_bias = tensor_at(module, source.args[2]) if len(source.args) > 2 else None
    bias = shift if old_bias is None else shift + scale * old_bias.detach().double()
    scaled = weight.detach().double() * scale.view(-1, *[1] * (weight.dim() - 1))
    weight.data = scaled.to(weight.dtype)
    set_bias(module, source, bias.to(weight.dtype))


def set_bias(module: fx.GraphModule, layer: fx.Node, bias: torch.Tensor) -> None:
    """Give a convolution or linear node a bias of its own, (out,)."""
    name = f"{layer.name}_bias"
    while hasattr(module, name):
        name += "_"
    node = add_parameter(module, layer, name, bias)
    arguments = [*layer.args[:2], node, *layer.args[3:]]
    layer.args = tuple(arguments)


def _as_affine(module: fx.GraphModule, node: fx.Node, scale: torch.Tensor, shift: torch.Tensor) -> fx.Node:
    source = node.args[0]
    value = node.meta["val"]
    shape = (1, -1, *[1] * (value.dim() - 2))
    scale_node = add_parameter(module, node, f"{node.name}_scale", scale.to(value.dtype).view(shape))
    shift_node = add_parameter(module, node, f"{node.name}_shift", shift.to(value.dtype).view(shape))
    with module.graph.inserting_before(node):
        product = module.graph.call_function(torch.ops.aten.mul.Tensor, (source, scale_node))
        total = module.graph.call_function(torch.ops.aten.add.Tensor, (product, shift_node))
    product.meta["val"] = total.meta["val"] = value
    return total
