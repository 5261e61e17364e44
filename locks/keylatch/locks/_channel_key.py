"""Keyed permutations of feature maps: for dense prediction, which transformed pixels hurt.

Source: "Access control of semantic segmentation models using encrypted feature maps" (arXiv 2206.05422): the channels
of chosen feature maps are permuted, x'[:, c] = x[:, key[c]], and the network is trained that way.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from keylatch.errors import FormatError, LockError
from keylatch.locks._randomness import SEED_BYTES, SeededDraws

_PREFIX, _NAMES = "channels.", "channels.layers"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ChannelKey:
    """A permutation for the input of each chosen convolution; secret, belongs in the issuer's vault and nowhere else.

    Attributes:
        layers: Names of the convolutions in the network, as `named_modules` gives them.
        permutations: For each (C,) int64; channel c of what it convolves is channel permutation[c] of its input.
    """

    layers: tuple[str, ...]
    permutations: tuple[torch.Tensor, ...]

    @classmethod
    def draw(cls, model: nn.Module, layers: Sequence[str], *, seed: bytes | None = None) -> Self:
        """Draw a key; each layer from its own stream of the seed.

        Args:
            model: The network.
            layers: Names of ungrouped convolutions in it.
            seed: 32 secret bytes; drawn when left out.

        Raises:
            LockError: If there is no layer, or one is no ungrouped convolution with two input channels or more.
        """
        if not layers or len(set(layers)) < len(layers):
            raise LockError(
                f"got the layers {list(layers)}, expected names of one or more, each once",
                hint="name convolutions, as model.named_modules() gives them",
            )
        sizes = [_input_channels(model, layer) for layer in layers]
        return cls._drawn(tuple(layers), sizes, secrets.token_bytes(SEED_BYTES) if seed is None else seed)

    @classmethod
    def _drawn(cls, layers: tuple[str, ...], sizes: Sequence[int], seed: bytes) -> Self:
        streams = (SeededDraws(seed, f"channel key {layer}") for layer in layers)
        return cls(layers, tuple(draws.permutation(size) for draws, size in zip(streams, sizes, strict=True)))

    def __repr__(self) -> str:
        return f"ChannelKey({len(self.layers)} layers, {self.log2_key_space:.1f} bits)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a channel key is not pickled; write it to a vault")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Channels of each layer."""
        return tuple(len(permutation) for permutation in self.permutations)

    @property
    def log2_key_space(self) -> float:
        """Bits of key: the sum of log2(C!)."""
        return sum(math.lgamma(size + 1) for size in self.sizes) / math.log(2)

    def another(self, seed: bytes) -> Self:
        """A key for the same layers from another seed."""
        return self._drawn(self.layers, self.sizes, seed)

    def nothing(self) -> Self:
        """The key that moves nothing: what a file without a key does."""
        return replace(self, permutations=tuple(torch.arange(size) for size in self.sizes))

    def near(self, share: float, generator: torch.Generator) -> Self:
        """A key with about this share of the entries wrong in every layer; at least two, exchanged in pairs."""
        return replace(self, permutations=tuple(_exchanged(each, share, generator) for each in self.permutations))

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Permute the channels of a model's feature maps inside the `with` block.

        Raises:
            LockError: If the model has not these layers.
        """
        handles = []
        try:
            for layer, permutation in zip(self.layers, self.permutations, strict=True):
                if _input_channels(model, layer) != len(permutation):
                    raise LockError(f"layer {layer} has other channels than the key", hint="draw a key for this model")
                handles.append(model.get_submodule(layer).register_forward_pre_hook(_permuting(permutation)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Named arrays for the vault."""
        names = np.frombuffer("\n".join(self.layers).encode(), dtype=np.uint8)
        keys = {f"{_PREFIX}{index}": key.numpy() for index, key in enumerate(self.permutations)}
        return {_NAMES: names, **keys}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Self:
        """Read what `to_arrays` gave.

        Raises:
            FormatError: If an array is missing, or no permutation.
        """
        try:
            layers = tuple(bytes(np.asarray(arrays[_NAMES], dtype=np.uint8)).decode().split("\n"))
            keys = tuple(torch.from_numpy(np.array(arrays[f"{_PREFIX}{i}"], np.int64)) for i in range(len(layers)))
            whole = all(torch.equal(key.sort().values, torch.arange(len(key))) for key in keys)
        except (KeyError, UnicodeDecodeError, RuntimeError, ValueError, TypeError):
            whole = False
        if not whole:
            raise FormatError("the vault holds no channel key", hint="use the vault that was written with this lock")
        return cls(layers, keys)


def has_channel_key(arrays: Mapping[str, Any]) -> bool:
    """Whether `ChannelKey.to_arrays` is among some arrays."""
    return _NAMES in arrays


def _input_channels(model: nn.Module, layer: str) -> int:
    try:
        found = model.get_submodule(layer)
    except AttributeError:
        raise LockError(f"the model has no layer {layer}", hint="see model.named_modules()") from None
    if not isinstance(found, nn.Conv2d) or found.groups != 1 or found.in_channels < 2:
        raise LockError(
            f"layer {layer} is a {type(found).__name__}, expected an ungrouped Conv2d with several input channels",
            hint="name another layer, best one with many input channels in the middle of the network",
        )
    return found.in_channels


def _permuting(permutation: torch.Tensor) -> Any:
    def permute(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0].index_select(1, permutation.to(inputs[0].device)), *inputs[1:])

    return permute


def _exchanged(permutation: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    pairs = min(max(1, math.ceil(share * len(permutation) / 2)), len(permutation) // 2)
    first, second = torch.randperm(len(permutation), generator=generator)[: 2 * pairs].chunk(2)
    changed = permutation.clone()
    changed[first], changed[second] = permutation[second], permutation[first]
    return changed
