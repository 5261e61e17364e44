"""Networks whose first layer reads whole blocks: vision transformers, Swin, ConvNeXt, ConvMixer.

Their stem takes any permutation and negation of block entries into its weights, without training and exactly
(docs/decisions/0013).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from keylatch.errors import LockError
from keylatch.locks._block_gate import FloatBlockGate
from keylatch.locks._block_layout import depth_to_space, space_to_depth
from keylatch.locks._block_transform import BlockTransform
from keylatch.locks._capture import image_node
from keylatch.locks._fold_batch_norm import tensor_at, weight_of

_CONVOLUTIONS = (torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding)


def reads_blocks(body: fx.GraphModule, block_size: int) -> bool:
    """Whether the first layer alone reads the image, and reads it in whole blocks."""
    stem = _only_reader(body)
    return stem is not None and _misfit(body, stem, block_size) is None


def absorb(body: fx.GraphModule, transform: BlockTransform, gate: FloatBlockGate | None) -> None:
    """Change the stem so that the network understands transformed images as it understood plain ones.

    Args:
        body: The network, changed in place.
        transform: The key.
        gate: The gate that the images will pass; None if it is not one of normalized floats.

    Raises:
        LockError: If the network does not begin with such a stem, or the transform is not linear.
    """
    if gate is None:
        raise LockError(
            f"{'+'.join(transform.steps)} cannot be absorbed: only shf and np of float images are linear",
            hint="use those, or train the network on transformed images",
        )
    stem = _stem_for(body, transform.block_size)
    weight = weight_of(body, stem)
    values = {name: value.double().to(weight.device) for name, value in gate.secret_values(transform).items()}
    planes = space_to_depth(weight.detach().double(), transform.block_size)
    absorbed = planes[:, transform.permutation.to(weight.device)] / values["scale"]
    shift = (absorbed * values["offset"]).sum((1, 2, 3))
    bias = tensor_at(body, stem.args[2]) if len(stem.args) > 2 else None
    shifted = -shift if bias is None else bias.detach().double() - shift
    _replace(body, stem, depth_to_space(absorbed, transform.block_size).to(weight), shifted.to(weight))


def _stem_for(body: fx.GraphModule, block_size: int) -> fx.Node:
    stem = _only_reader(body)
    misfit = "no single convolution reads its images" if stem is None else _misfit(body, stem, block_size)
    if stem is None or misfit is not None:
        raise LockError(
            f"the network cannot absorb blocks of {block_size} x {block_size}: {misfit}",
            hint="absorbing needs a patchify stem whose kernel and stride are a multiple of the block size; "
            "others are trained on transformed images",
        )
    return stem


def _replace(body: fx.GraphModule, stem: fx.Node, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """Under new names: something else may read the old tensors."""
    with body.graph.inserting_before(stem):
        nodes = []
        for name, value in (("stem_weight", weight), ("stem_bias", bias)):
            body.register_parameter(name, nn.Parameter(value.contiguous()))
            nodes.append(body.graph.get_attr(name))
    stem.args = (stem.args[0], *nodes, *stem.args[3:])
    body.graph.eliminate_dead_code()
    body.recompile()


def _only_reader(body: fx.GraphModule) -> fx.Node | None:
    """The convolution that alone reads the image."""
    users = [user for user in image_node(body.graph).users if user.target is not torch.ops.aten.sym_size.int]
    if len(users) != 1 or users[0].target not in _CONVOLUTIONS or tensor_at(body, users[0].args[1]) is None:
        return None
    return users[0]


def _misfit(body: fx.GraphModule, stem: fx.Node, block_size: int) -> str | None:
    """Why a convolution does not read whole blocks, or None."""
    stride, padding, dilation, groups = _settings(stem)
    kernel = tuple(weight_of(body, stem).shape[2:])
    if kernel != tuple(stride):
        return f"its first layer has kernel {kernel} and stride {tuple(stride)}, so that its windows overlap"
    if padding not in ([0, 0], "valid") or tuple(dilation) != (1, 1) or groups != 1:
        return "its first layer pads, dilates or groups"
    if any(side % block_size for side in kernel):
        return f"its first layer reads patches of {kernel[0]} x {kernel[1]}"
    return None


def _settings(stem: fx.Node) -> tuple[list[int], list[int] | str, list[int], int]:
    """Stride, padding, dilation and groups; defaults are not in the graph."""
    given: list[Any] = [*stem.args[3:], *([1], [0], [1], 1)[max(0, len(stem.args) - 3) :]]
    padding = given[1] if isinstance(given[1], str) else _both(given[1])
    return _both(given[0]), padding, _both(given[2]), int(given[3])


def _both(sizes: Sequence[int]) -> list[int]:
    return list(sizes) if len(sizes) > 1 else [sizes[0]] * 2
