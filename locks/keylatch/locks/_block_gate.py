"""Block transforms as gates: inside the graph, with the key as gate tensors.

An image is read as p = C·M·M planes of (H/M, W/M) values, plane k holding entry k of every block, as ONNX SpaceToDepth
gives them, and a key moves whole planes. In an artifact pixels move by themselves, where the key's planes send them.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.nn import functional

from keylatch.errors import LockError
from keylatch.locks._block_key_space import STEPS
from keylatch.locks._block_layout import depth_to_space, space_to_depth
from keylatch.locks._block_transform import BlockTransform, Step
from keylatch.locks._exact_buffers import ExactBuffers
from keylatch.locks._input_spec import InputSpec

SHOWN = "blocks.shown"  # in an artifact, the value that the network is shown by a gate in front of it
_BYTE_VALUES = 256


@dataclass(frozen=True, slots=True)
class BlockDescription:
    """What is public of a block transform.

    Attributes:
        steps: Its steps, in the order applied.
        block_size: M.
    """

    steps: tuple[Step, ...]
    block_size: int

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"steps": list(self.steps), "block_size": self.block_size}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: If there is no such transform.
        """
        steps, block_size = tuple(data["steps"]), int(data["block_size"])
        if not steps or not set(steps) <= set(STEPS) or block_size < 2:
            raise ValueError("no block transform")
        return cls(steps, block_size)

    def matches(self, transform: BlockTransform, spec: InputSpec) -> bool:
        """Whether a key is one of these, for such images."""
        return (transform.steps, transform.block_size, transform.channels) == (
            self.steps, self.block_size, spec.channels,
        )  # fmt: skip


class BlockGate(ExactBuffers, abc.ABC):
    """A keyed block transform. Its buffers are the gate tensors; by their locked defaults it does nothing.

    Args:
        description: The transform.
        source: The input convention.
        target: The network's own one.
    """

    permutation: torch.Tensor

    def __init__(self, description: BlockDescription, source: InputSpec, target: InputSpec) -> None:
        super().__init__()
        require_divisible(source, description.block_size)
        self.description, self.source, self.target = description, source, target
        self.entries = source.channels * description.block_size**2
        self.register_buffer("permutation", torch.arange(self.entries))

    def gate_names(self) -> tuple[str, ...]:
        """Names of the gate tensors in this module."""
        return tuple(name for name, _ in self.named_buffers())

    def secret_values(self, transform: BlockTransform) -> dict[str, torch.Tensor]:
        """The values of the gate tensors for a key, on the CPU.

        Raises:
            LockError: If the key is one of other images or blocks.
        """
        if not self.description.matches(transform, self.source):
            raise LockError("the key does not fit this transform", hint="draw one with its steps, size and channels")
        return {"permutation": transform.permutation.clone(), **self._values(transform)}

    def keyed(self, transform: BlockTransform) -> Self:
        """A copy that holds a key.

        Raises:
            LockError: If the key is one of other images or blocks.
        """
        gate = copy.deepcopy(self)
        for name, value in self.secret_values(transform).items():
            gate.get_buffer(name).data.copy_(value)
        return gate

    @property
    def is_open(self) -> bool:
        """Whether the gate tensors hold a key."""
        return not torch.equal(self.permutation.cpu(), torch.arange(self.entries)) or self._is_open

    @property
    @abc.abstractmethod
    def _is_open(self) -> bool:
        """Whether the gate tensors besides the permutation hold a key."""

    @abc.abstractmethod
    def _values(self, transform: BlockTransform) -> dict[str, torch.Tensor]:
        """Their values for a key."""

    def _planes(self, image: torch.Tensor) -> torch.Tensor:
        """(N, p, H/M, W/M), in the key's order."""
        channels_first = image if self.source.layout == "NCHW" else image.permute(0, 3, 1, 2)
        return space_to_depth(channels_first, self.description.block_size).index_select(1, self.permutation)

    def _image(self, planes: torch.Tensor) -> torch.Tensor:
        image = depth_to_space(planes, self.description.block_size)
        return image if self.target.layout == "NCHW" else image.permute(0, 2, 3, 1)


class FloatBlockGate(BlockGate):
    """Moves and negates normalized floats: x'[k] = scale[k]·x[permutation[k]] + offset[k] (docs/decisions/0013)."""

    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, description: BlockDescription, source: InputSpec, target: InputSpec) -> None:
        super().__init__(description, source, target)
        self.register_buffer("scale", torch.ones(self.entries, 1, 1))
        self.register_buffer("offset", torch.zeros(self.entries, 1, 1))

    @property
    def _is_open(self) -> bool:
        return bool((self.scale != 1).any() or self.offset.any())

    def _values(self, transform: BlockTransform) -> dict[str, torch.Tensor]:
        """From pixel' = negated + sign·pixel, with pixel = x·std + mean on either side."""
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (self.source.mean, self.source.std))
        to = torch.arange(self.entries) % self.source.channels
        of = transform.permutation % self.source.channels
        negated = transform.negated.double()
        sign = 1 - 2 * negated
        scale = sign * std[of] / std[to]
        offset = (sign * mean[of] + negated - mean[to]) / std[to]
        return {"scale": scale.float().view(-1, 1, 1), "offset": offset.float().view(-1, 1, 1)}

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, *shape) normalized float32, in and out."""
        return self._image(self._planes(image.to(torch.float32)) * self.scale + self.offset)


class ByteBlockGate(BlockGate):
    """Moves and inverts bytes, exactly; gives bytes in the network's layout."""

    inversion: torch.Tensor

    def __init__(self, description: BlockDescription, source: InputSpec, target: InputSpec) -> None:
        super().__init__(description, source, target)
        self.register_buffer("inversion", torch.zeros((self.entries, 1, 1), dtype=torch.uint8))

    @property
    def _is_open(self) -> bool:
        return bool(self.inversion.any())

    def _values(self, transform: BlockTransform) -> dict[str, torch.Tensor]:
        return {"inversion": (transform.negated.to(torch.uint8) * 255).view(-1, 1, 1)}

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, H, W, C) uint8 to uint8 in the target's layout; 255 - b is b XOR 255."""
        return self._image(torch.bitwise_xor(self._planes(image), self.inversion))


class TableBlockGate(BlockGate):
    """Looks every byte up in one of four tables: as it is, negated, encrypted, both. Gives normalized floats."""

    choice: torch.Tensor
    tables: torch.Tensor
    std: torch.Tensor
    mean: torch.Tensor

    def __init__(self, description: BlockDescription, source: InputSpec, target: InputSpec) -> None:
        super().__init__(description, source, target)
        self.register_buffer("choice", torch.zeros((self.entries, 1, 1), dtype=torch.int32))
        plain = torch.arange(_BYTE_VALUES).float() / (_BYTE_VALUES - 1)
        self.register_buffer("tables", plain.repeat(4).unsqueeze(1))
        channel = torch.arange(self.entries) % source.channels
        for name, values in (("mean", target.mean), ("std", target.std)):
            self.register_buffer(name, torch.tensor(values)[channel].view(-1, 1, 1))

    def gate_names(self) -> tuple[str, ...]:
        """Names of the gate tensors in this module."""
        return ("permutation", "choice", "tables")

    @property
    def _is_open(self) -> bool:
        rows = self.tables.view(4, -1)
        return bool(self.choice.any()) or not torch.equal(rows, rows[:1].expand_as(rows))

    def _values(self, transform: BlockTransform) -> dict[str, torch.Tensor]:
        byte = torch.arange(_BYTE_VALUES)
        encrypted = transform.table.double()
        rows = torch.stack([byte.double(), byte.flip(0).double(), encrypted, encrypted.flip(0)])
        choice = transform.negated.to(torch.int32) + 2 * transform.encrypted.to(torch.int32)
        return {
            "choice": (choice * _BYTE_VALUES).view(-1, 1, 1),
            "tables": (rows / transform.divisor).float().view(-1, 1),
        }

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, *shape), bytes or normalized floats, to normalized float32."""
        if image.is_floating_point():
            # Rounded, not cut off: a neighboring byte has another ciphertext (arXiv 2103.03525's code rounds too).
            image = self._bytes(image)
        # As an embedding: indexing is exported as GatherND, with the table folded.
        entries = self._planes(image).to(torch.int32) + self.choice
        return self._image((functional.embedding(entries, self.tables).squeeze(-1) - self.mean) / self.std)

    def _bytes(self, image: torch.Tensor) -> torch.Tensor:
        shape = (1, -1, 1, 1) if self.source.layout == "NCHW" else (1, 1, 1, -1)
        mean, std = (values[: self.source.channels].view(shape) for values in (self.mean, self.std))
        pixels = image.to(torch.float32) * std + mean
        return (pixels * (_BYTE_VALUES - 1)).round().clamp(0, _BYTE_VALUES - 1)


def block_gate(description: BlockDescription, source: InputSpec, target: InputSpec) -> BlockGate:
    """The gate for a transform and an input convention."""
    if "ffx" in description.steps:
        return TableBlockGate(description, source, target)
    return (ByteBlockGate if source.dtype == "uint8" else FloatBlockGate)(description, source, target)


def require_divisible(spec: InputSpec, block_size: int) -> None:
    """Raise LockError unless images consist of whole blocks."""
    if spec.height % block_size or spec.width % block_size:
        raise LockError(
            f"images of {spec.height} x {spec.width} are not divisible into blocks of {block_size} x {block_size}",
            hint="choose a block size that divides height and width, or resize the images",
        )
