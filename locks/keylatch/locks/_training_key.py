"""What training has to know of a key, whatever its kind."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import nn

from keylatch.locks._block_transform import BlockTransform, identity_transform
from keylatch.locks._channel_key import ChannelKey
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._key_training_data import network_input, normalized

TrainingKey: TypeAlias = BlockTransform | ChannelKey


def answers(network: nn.Module, key: TrainingKey, pixels: torch.Tensor, spec: InputSpec) -> Any:
    """What a network answers under a key.

    Args:
        network: In whatever mode.
        key: The key.
        pixels: (N, C, H, W) uint8, or float in [0, 1].
        spec: Normalization and layout.
    """
    if isinstance(key, BlockTransform):
        return network(network_input(pixels, key, spec))
    with key.applied(network):
        return network(normalized(pixels, spec))


def no_key(key: TrainingKey) -> TrainingKey:
    """The key that changes nothing."""
    return identity_transform(key.block_size, key.channels) if isinstance(key, BlockTransform) else key.nothing()


def is_key(key: TrainingKey) -> bool:
    """Whether it has anything secret: the identity has not."""
    return not isinstance(key, BlockTransform) or bool(key.steps)


def another_key(key: TrainingKey, seed: bytes) -> TrainingKey:
    """A random key of the same kind."""
    if isinstance(key, ChannelKey):
        return key.another(seed)
    return BlockTransform.draw(key.steps, block_size=key.block_size, channels=key.channels, seed=seed)


def near_key(key: TrainingKey, share: float, generator: torch.Generator) -> TrainingKey:
    """A key with a share of its entries wrong, at least one."""
    if isinstance(key, ChannelKey):
        return key.near(share, generator)
    return key.near(max(1, round(share * key.parameters)), generator)


def describe_key(key: TrainingKey) -> dict[str, Any]:
    """What is public of a key."""
    if isinstance(key, ChannelKey):
        return {"layers": "+".join(key.layers)}
    return {"steps": "+".join(key.steps), "block_size": key.block_size}
