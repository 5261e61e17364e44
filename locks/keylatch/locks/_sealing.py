"""Withhold the first layers of a network: their weights travel in the license and are not in the file at all.

A gate's signs can be recovered layer by layer, from unlabeled images, by whoever sees what enters the gate: trained
weights line up with the covariance of their inputs (docs/decisions/0011). With the first layers withheld nobody sees
it. Replacing initializers costs nothing while running.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from keylatch.errors import LockError
from keylatch.locks._fold_batch_norm import LINEAR, count_uses, tensor_at, weight_of
from keylatch.locks._randomness import SeededDraws

# By default licenses carry two per cent of the weights, and of a small network as much as a megabyte: what is missing
# has to be learned again, and few weights are learned again from few images (docs/results.md).
SEALED_SHARE = 0.02
SEALED_PARAMETERS = 2**18
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True, slots=True)
class SealedLayer:
    """A convolution or linear layer that is withheld.

    Attributes:
        node: Its node in the graph.
        name: Its weight's name in the network.
        parameters: Weights and biases.
    """

    node: fx.Node
    name: str
    parameters: int


def sealed_name(index: int) -> str:
    """Name of the buffer that holds the withheld tensor `index`."""
    return f"sealed_{index}"


def find_layers(module: fx.GraphModule) -> list[SealedLayer]:
    """All layers that can be withheld, in order: those whose tensors nothing else uses."""
    uses = count_uses(module)
    layers = []
    for node in module.graph.nodes:
        tensors = [tensor_at(module, argument) for argument in node.args[1:3]] if _is_layer(node) else []
        found = [tensor for tensor in tensors if tensor is not None]
        if found and tensors[0] is not None and all(uses[id(tensor)] == 1 for tensor in found):
            name = str(node.args[1].target)
            layers.append(SealedLayer(node, name, sum(tensor.numel() for tensor in found)))
    return layers


def first_layers(layers: Sequence[SealedLayer], share: float | None) -> list[SealedLayer]:
    """The first layers, as many as fit into a share of all parameters; the very first in any case.

    Args:
        layers: In the network's order.
        share: 0 to 1, 0 takes none; None for `SEALED_SHARE` or `SEALED_PARAMETERS`, whichever is more.

    Raises:
        LockError: If the share is no share.
    """
    if share is not None and not 0 <= share <= 1:  # false for nan
        raise LockError(f"a sealed share of {share} is not between 0 and 1", hint="give e.g. 0.02 for two per cent")
    total = sum(layer.parameters for layer in layers)
    left = max(SEALED_SHARE * total, SEALED_PARAMETERS) if share is None else share * total
    chosen: list[SealedLayer] = []
    for layer in layers if left > 0 else ():
        left -= layer.parameters
        if chosen and left < 0:
            break
        chosen.append(layer)
    return chosen


def sealed_names(layers: Sequence[SealedLayer]) -> tuple[str, ...]:
    """The parameters that `seal` withholds of some layers, in its order: each weight, then its bias."""
    arguments = [argument for layer in layers for argument in layer.node.args[1:3]]
    return tuple(str(argument.target) for argument in arguments if isinstance(argument, fx.Node))


def _is_layer(node: fx.Node) -> bool:
    return node.op == "call_function" and (node.target is LINEAR or str(node.target).startswith("aten.conv"))


def seal(module: fx.GraphModule, layers: Sequence[SealedLayer], defaults: SeededDraws) -> tuple[torch.Tensor, ...]:
    """Replace the tensors of layers by random ones of the same mean and variance, as buffers of the graph.

    Args:
        module: The graph, changed in place.
        layers: What to withhold.
        defaults: Public draws for the replacements.

    Returns:
        The withheld tensors in the order of the buffers, float32 on the CPU.
    """
    withheld: list[torch.Tensor] = []

    def withhold(node: fx.Node, value: torch.Tensor) -> fx.Node:
        name = sealed_name(len(withheld))
        # onnxruntime takes tensors in C order only; a transposed or channels-last weight is not
        withheld.append(value.detach().float().cpu().clone(memory_format=torch.contiguous_format))
        module.register_buffer(name, _plausible(value.detach(), defaults))
        with module.graph.inserting_before(node):
            return module.graph.get_attr(name)

    for layer in layers:
        node = layer.node
        weight = weight_of(module, node)
        bias = tensor_at(module, node.args[2]) if len(node.args) > 2 else None
        if node.target is LINEAR and node.meta["val"].dim() != 2:
            _spell_out(module, node, withhold(node, weight.T), None if bias is None else withhold(node, bias))
        else:
            replaced = [withhold(node, weight), None if bias is None else withhold(node, bias)]
            node.args = (node.args[0], *replaced[: len(node.args) - 1], *node.args[3:])
    module.graph.lint()
    module.recompile()
    return tuple(withheld)


def _plausible(value: torch.Tensor, defaults: SeededDraws) -> torch.Tensor:
    spread, mean = torch.std_mean(value.double().cpu(), correction=0)
    # Biases of a fresh network are all zero, and exporters merge equal tensors into one.
    return (defaults.normal(*value.shape) * spread.clamp(min=_LEAST_SPREAD) + mean).to(value)


def _spell_out(module: fx.GraphModule, node: fx.Node, weight: fx.Node, bias: fx.Node | None) -> None:
    """A linear layer on tokens as a product and a sum.

    Exporters fold the transpose of a weight (out, in), which would take the secret's place in the file out of reach.
    """
    with module.graph.inserting_before(node):
        total = module.graph.call_function(torch.ops.aten.matmul.default, (node.args[0], weight))
        if bias is not None:
            total = module.graph.call_function(torch.ops.aten.add.Tensor, (total, bias))
    total.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(total)
    module.graph.erase_node(node)
