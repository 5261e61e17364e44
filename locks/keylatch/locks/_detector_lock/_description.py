"""What is public of a detector lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from keylatch.locks._detector_lock._paste_gate import PasteGate
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._patch_gate import PatchPlace

DetectorKind = Literal["A", "B"]
KINDS: tuple[DetectorKind, ...] = ("A", "B")


@dataclass(frozen=True, slots=True)
class DetectorLockDescription:
    """The public description of a detector lock; what it did to the network stands in the graph.

    Attributes:
        kind: ``A``, an offset on the outputs, or ``B``, a squeeze-and-excite gate.
        place: Where the patch is.
        spec: The network's own input convention, before any preprocessing in the graph.
    """

    kind: DetectorKind
    place: PatchPlace
    spec: InputSpec

    @property
    def pixels(self) -> int:
        """Values of the patch."""
        return self.spec.channels * self.place.size**2

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; it stands in the artifact's metadata."""
        return {
            "method": "detector",
            "kind": self.kind,
            "patch": {"size": self.place.size, "corner": self.place.corner},
            "input": self.spec.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: If there is no such lock.
            LockError: If the patch does not fit the image.
        """
        if data["kind"] not in KINDS:
            raise ValueError("no detector lock")
        description = cls(data["kind"], PatchPlace(**data["patch"]), InputSpec.from_json(data["input"]))
        description.place.require_fit(description.spec)
        return description

    def gate(self, spec: InputSpec) -> PasteGate:
        """Build the gate for an input convention."""
        return PasteGate(self.place, spec)
