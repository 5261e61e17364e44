"""What everybody knows of a block transform: how a key becomes gate tensors, and what the network is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from keylatch.audit._owner import block_description, code_description
from keylatch.audit._target import Target
from keylatch.audit.onnx_network import OnnxNetwork
from keylatch.locks import BlockDescription, BlockTransform, InputSpec
from keylatch.locks._block_gate import SHOWN, block_gate
from keylatch.locks._block_transform import identity_transform
from keylatch.locks._randomness import SEED_BYTES

_PREFIX = "blocks."
_SCALE = "blocks.scale"  # only the gates of normalized floats have it
_INVERSION = "blocks.inversion"  # only those of bytes


@dataclass(frozen=True, slots=True)
class BlockKey:
    """The public side of a block transform's key.

    Attributes:
        description: Steps and block size.
        channels: Image channels.
        entries: p, the length of a block's vector.
    """

    description: BlockDescription
    channels: int
    entries: int

    @property
    def is_linear(self) -> bool:
        """Whether pixels only move and change sign about 1/2: without ffx."""
        return "ffx" not in self.description.steps

    def has(self, step: str) -> bool:
        """Whether the transform has a step."""
        return step in self.description.steps

    def random(self, generator: torch.Generator) -> BlockTransform:
        """A key as the owner draws one, from a seed of the generator's."""
        seed = bytes(torch.randint(256, (SEED_BYTES,), generator=generator).tolist())
        size = self.description.block_size
        return BlockTransform.draw(self.description.steps, block_size=size, channels=self.channels, seed=seed)

    def nothing(self) -> BlockTransform:
        """A key of these steps that leaves images as they are; attacks fill in what they find."""
        plain = identity_transform(self.description.block_size, self.channels)
        return replace(plain, steps=self.description.steps)


def block_key(target: Target) -> BlockKey | None:
    """Read the public side of a block transform; None for locks without one."""
    description = block_description(target)
    if description is None:
        return None
    channels = target.spec.channels
    return BlockKey(description, channels, channels * description.block_size**2)


def lone_block_key(target: Target) -> BlockKey | None:
    """The same, where nothing else locks the model: beside a code no answer tells a better block key from a worse."""
    return block_key(target) if code_description(target) is None else None


def required_block_key(target: Target) -> BlockKey:
    """The public side of a block transform, of a lock whose attack has variants."""
    key = block_key(target)
    assert key is not None, "variants() gives none for other locks"  # noqa: S101
    return key


def block_tensors(target: Target) -> frozenset[str]:
    """Names of the gate tensors that hold a block transform's key."""
    return frozenset(name for name in target.gate_names if name.startswith(_PREFIX))


def block_values(target: Target, transform: BlockTransform) -> dict[str, torch.Tensor]:
    """The gate tensors' values for a key, in the artifact's dtypes and shapes."""
    own = _own_spec(target)
    source = own if _SCALE in block_tensors(target) else target.spec
    gate = block_gate(required_block_key(target).description, source, own)
    values = {_PREFIX + name: value for name, value in gate.secret_values(transform).items()}
    network = target.network()
    return {
        name: value.to(network.initializer(name).dtype).reshape(network.initializer(name).shape)
        for name, value in values.items()
    }


def opened_with_blocks(target: Target, transform: BlockTransform) -> OnnxNetwork:
    """The network with a key in place; other gate tensors keep their locked defaults."""
    network = target.network()
    for name, value in block_values(target, transform).items():
        network.substitute(name, value)
    return network


def pixels_of(spec: InputSpec, images: torch.Tensor) -> torch.Tensor:
    """Images of the model's convention as (n, channels, height, width) float32 pixels in [0, 1]."""
    first = images if spec.layout == "NCHW" else images.permute(0, 3, 1, 2)
    mean, std = _per_channel(spec)
    return (first.float() * std + mean).clamp(0, 1)


class Behind:
    """The network behind its block transform, run on what the transform would show it.

    So no gate has to be filled for a guess, and guesses between two keys have slopes.

    Args:
        target: The locked model.

    Attributes:
        network: Its gate cut out.
    """

    def __init__(self, target: Target) -> None:
        self.network = target.network().float().requires_grad_(False)
        shown = _shown_value(self.network)
        self._shown: InputSpec = target.spec
        if shown is not None:
            self.network.substitute(shown, self.network.input_name)
            bytes_are_shown = _INVERSION in block_tensors(target)
            self._shown = replace(target.spec if bytes_are_shown else _own_spec(target), layout="NCHW")

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, classes) scores of (n, channels, height, width) float32 transformed pixels in [0, 1]."""
        scores: torch.Tensor = self.network(self._image(pixels))
        return scores

    def values(self, pixels: torch.Tensor, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """Intermediate values by name, for the same pixels."""
        return self.network.values(self._image(pixels), names)

    def _image(self, pixels: torch.Tensor) -> torch.Tensor:
        mean, std = _per_channel(self._shown)
        image = (pixels - mean) / std
        return image if self._shown.layout == "NCHW" else image.permute(0, 2, 3, 1)


def _shown_value(network: OnnxNetwork) -> str | None:
    """The transformed image, channels first; None where the transform stands in the first layer's weights."""
    return next((SHOWN for node in network.nodes if SHOWN in node.outputs), None)


def _own_spec(target: Target) -> InputSpec:
    """The network's own input convention, before any preprocessing in the graph."""
    fields: Mapping[str, Any] = target.manifest.lock["input"]
    return InputSpec.from_json(dict(fields))


def _per_channel(spec: InputSpec) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(spec.mean).view(1, -1, 1, 1), torch.tensor(spec.std).view(1, -1, 1, 1)
