"""All parts that a locked network withholds: their gate tensors, and the domains that they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from keylatch.errors import LockError
from keylatch.locks._withheld._part import Part

METHODS = ("seal", "domains")


def withheld_name(index: int) -> str:
    """Name of the gate tensor that holds part `index`."""
    return f"withheld_{index}"


@dataclass(frozen=True, slots=True)
class Parts:
    """The withheld parts of a network.

    Attributes:
        method: ``seal``, ``domains``; "" where nothing is withheld.
        parts: At most one for each parameter, in the order of the parameters.
        domains: Names of the domains, sorted; () unless the method is ``domains``.
    """

    method: str = ""
    parts: tuple[Part, ...] = ()
    domains: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Of the gate tensors."""
        return tuple(withheld_name(index) for index in range(len(self.parts)))

    def read(self, body: nn.Module) -> dict[str, torch.Tensor]:
        """What the network holds at the parts' places, by gate tensor name."""
        return {name: part.read(body.get_parameter(part.parameter)) for name, part in self._named()}

    def write(self, body: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
        """Put values at the parts' places.

        Args:
            body: The network.
            values: By gate tensor name; what is not named stays.
        """
        for name, part in self._named():
            if name in values:
                part.write(body.get_parameter(part.parameter), values[name])

    def fits(self, values: Sequence[torch.Tensor]) -> bool:
        """Whether a secret's values have the parts' shapes."""
        return [tuple(value.shape) for value in values] == [part.shape for part in self.parts]

    def describe(self) -> dict[str, Any]:
        """What is public of them, JSON-ready: without positions, which the graph has."""
        if not self.parts and not self.domains:
            return {}
        facts: dict[str, Any] = {"withheld": [part.public() for part in self.parts]}
        return {**facts, "domains": list(self.domains)} if self.domains else facts

    def to_json(self) -> dict[str, Any]:
        """All of them, JSON-ready."""
        return {"method": self.method, "parts": [part.to_json() for part in self.parts], "domains": list(self.domains)}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Parts:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError, LockError: If it is something else.
        """
        if facts["method"] not in METHODS:
            raise LockError(f"weights are withheld by {facts['method']!r:.20}", hint="update keylatch")
        parts = tuple(Part.from_json(part) for part in facts["parts"])
        return cls(facts["method"], parts, tuple(map(str, facts["domains"])))

    def _named(self) -> list[tuple[str, Part]]:
        return list(zip(self.names(), self.parts, strict=True))
