"""A locked network: gate, optional preprocessing, and the network with scrambled signs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import fx, nn

from keylatch.errors import LockError
from keylatch.locks._capture import OutputLayout
from keylatch.locks._code import draw_code_map
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._patch import find_patch
from keylatch.locks._patch_gate import PatchGate, PatchPlace
from keylatch.locks._sealing import sealed_name
from keylatch.locks._secret import LockSecret
from keylatch.locks._sign_gates import mean_name


@dataclass(frozen=True, slots=True)
class CodeLockDescription:
    """The public description of a code lock; everything but the secret follows from it.

    Attributes:
        public_seed: 32 bytes, the source of the public map from patch to signs.
        code_bits: d.
        place: Where the patch is.
        spec: The network's own input convention, before any preprocessing in the graph.
        layers: Name and input channels of each gated layer.
        sealed: Shape of each withheld tensor.
    """

    public_seed: bytes
    code_bits: int
    place: PatchPlace
    spec: InputSpec
    layers: tuple[tuple[str, int], ...]
    sealed: tuple[tuple[int, ...], ...] = ()

    @property
    def channels(self) -> int:
        """Gate signs over all layers."""
        return sum(channels for _, channels in self.layers)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; it stands in the artifact's metadata."""
        return {
            "method": "code",
            "public_seed": self.public_seed.hex(),
            "code_bits": self.code_bits,
            "patch": {"size": self.place.size, "corner": self.place.corner},
            "input": self.spec.to_json(),
            "layers": [{"name": name, "channels": channels} for name, channels in self.layers],
            "sealed": [list(shape) for shape in self.sealed],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(
            public_seed=bytes.fromhex(data["public_seed"]),
            code_bits=int(data["code_bits"]),
            place=PatchPlace(**data["patch"]),
            spec=InputSpec.from_json(data["input"]),
            layers=tuple((layer["name"], int(layer["channels"])) for layer in data["layers"]),
            sealed=tuple(tuple(shape) for shape in data.get("sealed", ())),  # locks made before 0.2 seal nothing
        )

    def gate(self, spec: InputSpec) -> PatchGate:
        """Build the gate for an input convention."""
        code_map = draw_code_map(
            self.public_seed,
            code_bits=self.code_bits,
            pixels=spec.channels * self.place.size**2,
            channels=self.channels,
        )
        return PatchGate(code_map, self.place, spec)


class Preprocess(nn.Module):
    """Bytes, NHWC, to the network's own input: layout, cast, normalize.

    Bytes are moved before they are cast, a quarter of the memory; the last step is a product with one number a channel,
    which exporters fold into a first convolution.

    Args:
        target: The convention to reach.
    """

    center: torch.Tensor
    scale: torch.Tensor

    def __init__(self, target: InputSpec) -> None:
        super().__init__()
        self.layout = target.layout
        shape = (1, -1, 1, 1) if target.layout == "NCHW" else (1, 1, 1, -1)
        mean, std = torch.tensor(target.mean), torch.tensor(target.std)
        self.register_buffer("center", (255 * mean).view(shape))
        self.register_buffer("scale", (1 / (255 * std)).view(shape))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, H, W, C) uint8 to the target layout, the buffers' float dtype."""
        # Contiguous, or what flattens it later is exported as a gather over strides.
        moved = image.permute(0, 3, 1, 2).contiguous() if self.layout == "NCHW" else image
        return (moved.to(self.scale.dtype) - self.center) * self.scale


class LockedModule(nn.Module):
    """A locked network. Evaluated as it is, it gives garbage; `opened(secret)` makes it the original network.

    It is an ordinary module: it can be moved, cast, evaluated, fine-tuned and exported. Its normalizations are folded,
    so `train()` changes nothing but the flag.

    Args:
        gate: Reads the code, from the patch or from the image.
        body: Graph `(image, signs) -> tuple of tensors`.
        outputs: How the tensors make up the network's return value.
        description: The public description of the lock.
        preprocess: Maps the image to the network's own input, if they differ.
    """

    def __init__(
        self,
        gate: PatchGate,
        body: fx.GraphModule,
        outputs: OutputLayout,
        description: CodeLockDescription,
        preprocess: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.gate, self.preprocess, self.body = gate, preprocess, body
        self.outputs, self.description = outputs, description

    @property
    def spec(self) -> InputSpec:
        """The input convention of this module."""
        return self.gate.spec

    def flat(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The network's outputs as a flat tuple, in the order of `outputs.names`."""
        signs = self.gate(image)
        prepared = image if self.preprocess is None else self.preprocess(image)
        dtype = self.get_buffer(f"body.{mean_name(0)}").dtype
        image = prepared.to(dtype) if prepared.is_floating_point() else prepared  # some networks take bytes
        result: tuple[torch.Tensor, ...] = self.body(image, signs.to(dtype))
        return result

    def forward(self, image: torch.Tensor) -> Any:
        """Run the network.

        Args:
            image: (N, *spec.shape), spec.torch_dtype.

        Returns:
            What the original network returns.
        """
        return self.outputs.pack(self.flat(image))

    def gate_names(self) -> tuple[str, ...]:
        """Names of the gate tensors, which are buffers of this module."""
        means = tuple(f"body.{mean_name(index)}" for index in range(len(self.description.layers)))
        sealed = tuple(f"body.{sealed_name(index)}" for index in range(len(self.description.sealed)))
        return ("gate.patch", "gate.mask", *means, *sealed)

    def gate_tensors(self) -> dict[str, torch.Tensor]:
        """The gate tensors as they are now: locked defaults, or secret values inside `opened`."""
        return {name: self.get_buffer(name) for name in self.gate_names()}

    def require_locked(self, verb: str) -> None:
        """Refuse to write an opened module out: its secret would be written too.

        Raises:
            LockError: If the gate tensors hold secret values.
        """
        if self.gate.mask.any():
            raise LockError("the module is opened", hint=f"{verb} it outside of `with module.opened(secret)`")

    def secret_values(self, secret: LockSecret) -> dict[str, torch.Tensor]:
        """The values of the gate tensors that open this module, in its dtypes and shapes.

        Raises:
            LockError: If the secret is that of another lock.
        """
        description = self.description
        fits = (
            len(secret.code) == description.code_bits
            and [len(mean) for mean in secret.means] == [channels for _, channels in description.layers]
            and [tuple(value.shape) for value in secret.sealed] == list(description.sealed)
        )
        if not fits:
            raise LockError("the secret does not fit this lock", hint="use the secret made with this locked network")
        defaults = self.gate_tensors()
        values = {"gate.patch": self.gate.patch_value(secret.patch), "gate.mask": torch.ones_like(self.gate.mask)}
        for name, value in zip(self.gate_names()[2:], (*secret.means, *secret.sealed), strict=True):
            values[name] = value.reshape(defaults[name].shape)
        return {name: value.to(defaults[name]) for name, value in values.items()}

    def secret_with_code(self, secret: LockSecret, code: torch.Tensor) -> LockSecret:
        """The same secret with another code (and a patch that carries it): a wrong or nearly right key.

        Args:
            secret: The right secret.
            code: (d,) in {-1, +1}.
        """
        patch = find_patch(self.gate.code_map.projection, code)
        return replace(secret, code=code.to(torch.int8), patch=patch.pixels)

    @contextmanager
    def opened(self, secret: LockSecret) -> Iterator[Self]:
        """Open the module for a while: the gate tensors hold the secret values inside the `with` block."""
        defaults = {name: tensor.clone() for name, tensor in self.gate_tensors().items()}
        try:
            self._fill(self.secret_values(secret))
            yield self
        finally:
            self._fill(defaults)

    def _fill(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, buffer in self.gate_tensors().items():
            buffer.data.copy_(values[name])

    def with_uint8_input(self) -> LockedModule:
        """The same lock for raw bytes, NHWC: scaling and layout become part of the graph."""
        if self.spec.dtype == "uint8":
            return self
        gate = self.description.gate(self.spec.as_uint8()).to(self.gate.patch.device)
        preprocess = Preprocess(self.description.spec).to(self.gate.patch.device)
        return LockedModule(gate, copy.deepcopy(self.body), self.outputs, self.description, preprocess)
