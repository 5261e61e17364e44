"""What is public of a code lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from keylatch.locks._code import draw_code_map
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._patch_gate import PatchGate, PatchPlace


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
