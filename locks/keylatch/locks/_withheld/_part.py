"""One part of a network's weights: a whole tensor, some of its rows, or single weights.

Where the parts are is public, it stands in the file's graph; what they hold is not.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch

from keylatch.errors import LockError

Kind = Literal["whole", "rows", "elements"]

# Single weights cost the file a position each: of a tensor that is withheld for a third or more, take the whole.
WHOLE_SHARE = 1 / 3


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some weights of one parameter.

    Attributes:
        parameter: Its name in the network.
        full_shape: Its shape.
        kind: ``whole``; ``rows`` along the first axis; ``elements`` of the flattened tensor.
        places: (k,) int64 on the CPU, sorted: rows or flat positions; (0,) for the whole.
    """

    parameter: str
    full_shape: tuple[int, ...]
    kind: Kind
    places: torch.Tensor

    @classmethod
    def whole(cls, parameter: str, shape: tuple[int, ...]) -> Self:
        """All of a parameter."""
        return cls(parameter, tuple(shape), "whole", torch.zeros(0, dtype=torch.int64))

    @classmethod
    def of_mask(cls, parameter: str, mask: torch.Tensor, *, whole_share: float = WHOLE_SHARE) -> Self:
        """The part that a mask covers: rows if it consists of them, else the whole if it covers most of it.

        Args:
            parameter: The parameter's name.
            mask: bool, of the parameter's shape; True where a weight is withheld, at least once.
            whole_share: Take the whole from this share on.
        """
        covered = mask.detach().cpu().bool()
        shape = tuple(covered.shape)
        rows = covered.reshape(shape[0] if shape else 1, -1)
        in_rows = len(shape) > 1 and bool((rows.all(1) == rows.any(1)).all())
        if bool(covered.all()) or (not in_rows and int(covered.sum()) > whole_share * covered.numel()):
            return cls.whole(parameter, shape)
        if in_rows:
            return cls(parameter, shape, "rows", rows.all(1).nonzero().flatten())
        return cls(parameter, shape, "elements", covered.flatten().nonzero().flatten())

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is withheld, and so of the gate tensor."""
        if self.kind == "whole":
            return self.full_shape
        return (len(self.places), *(self.full_shape[1:] if self.kind == "rows" else ()))

    @property
    def weights(self) -> int:
        """How many are withheld."""
        return int(torch.Size(self.shape).numel())

    def read(self, value: torch.Tensor) -> torch.Tensor:
        """What a tensor of the parameter's shape holds at the part's places, a copy of `shape`."""
        if self.kind == "whole":
            return value.detach().clone(memory_format=torch.contiguous_format)
        places = self.places.to(value.device)
        source = value.detach() if self.kind == "rows" else value.detach().reshape(-1)
        return source.index_select(0, places)

    def write(self, target: torch.Tensor, value: torch.Tensor) -> None:
        """Put a value of `shape` at the part's places of a tensor of the parameter's shape."""
        data, new = target.data, value.to(target)
        if self.kind == "whole":
            data.copy_(new)
        elif self.kind == "rows":
            data.index_copy_(0, self.places.to(data.device), new)
        else:
            # Not through a flat view: a channels-last or transposed weight has none.
            index = torch.unravel_index(self.places.to(data.device), self.full_shape)
            data[index] = new

    def mask(self) -> torch.Tensor:
        """(full_shape) bool, True where weights are withheld."""
        covered = torch.zeros(self.full_shape, dtype=torch.bool)
        self.write(covered, torch.ones(self.shape, dtype=torch.bool))
        return covered

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; positions of single weights as bits, packed and base64."""
        facts: dict[str, Any] = {"parameter": self.parameter, "shape": list(self.full_shape), "kind": self.kind}
        if self.kind == "rows":
            facts["places"] = self.places.tolist()
        elif self.kind == "elements":
            facts["places"] = base64.b64encode(_packed(self.mask())).decode()
        return facts

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError, LockError: If it is something else.
        """
        shape, kind = tuple(int(size) for size in facts["shape"]), facts["kind"]
        name = str(facts["parameter"])
        if kind == "whole":
            return cls.whole(name, shape)
        if kind == "rows":
            return cls(name, shape, "rows", torch.tensor(facts["places"], dtype=torch.int64))
        if kind != "elements":
            raise LockError(f"a part is of the kind {kind!r:.20}", hint="update keylatch")
        bits = torch.frombuffer(bytearray(base64.b64decode(facts["places"])), dtype=torch.uint8)
        flat = ((bits.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)) & 1).flatten()
        return cls(name, shape, "elements", flat[: torch.Size(shape).numel()].nonzero().flatten())

    def public(self) -> dict[str, Any]:
        """What an artifact says of it; its positions stand in the graph."""
        return {"name": self.parameter, "kind": self.kind, "shape": list(self.shape), "of": list(self.full_shape)}


def _packed(mask: torch.Tensor) -> bytes:
    bits = torch.nn.functional.pad(mask.flatten().to(torch.uint8), (0, -mask.numel() % 8)).reshape(-1, 8)
    return bytes((bits << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8).tolist())
