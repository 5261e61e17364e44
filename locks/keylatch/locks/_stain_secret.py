"""What proves a stain, and is kept secret until then."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Self

import numpy as np
import numpy.typing as npt
import torch

from keylatch.errors import FormatError
from keylatch.locks._detector._rows import Form
from keylatch.locks._input_spec import InputSpec

NONCE_BYTES = 32
_HINT = "use the vault that `keylatch stain` wrote"
_PREFIX = "stain."
_NAMES = ("direction", "unit", "trigger", "levels", "original", "expected")
_Arrays = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class StainMark:
    """One detector: a stain in the network, or a decoy, made in the same way and left out of it.

    Attributes:
        direction: v, (m,) float32, of length 1.
        unit: Which unit of the layer it is for.
        trigger: x*, (C, H, W) uint8.
        high: D, the unit's answer to the trigger.
        low: d, to the mean feature.
        original: (O,) float32, the first output of the unstained network on the trigger; (0,) if it is too large.
        expected: The same of a network with this one stain.
    """

    direction: torch.Tensor
    unit: int
    trigger: torch.Tensor
    high: float
    low: float
    original: torch.Tensor
    expected: torch.Tensor


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class StainSecret:
    """The stains of one network; belongs in the issuer's vault.

    Attributes:
        weight: Name of the stained layer's weight.
        form: ``replacement`` or ``additive``.
        spec: How the network takes images.
        center: c, (m,) float32.
        threshold: T.
        stains: In the network.
        decoys: Not in it: what the stains are compared with where only predictions are known.
        order: A permutation of stains, then decoys: the order in which their triggers are shown to a suspect.
        nonce: 32 random bytes; without them a digest of this could be guessed at.
    """

    weight: str
    form: Form
    spec: InputSpec
    center: torch.Tensor
    threshold: float
    stains: tuple[StainMark, ...]
    decoys: tuple[StainMark, ...]
    order: torch.Tensor
    nonce: bytes

    def __repr__(self) -> str:
        return f"StainSecret({self.weight}, {len(self.stains)} stains, {len(self.decoys)} decoys)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a stain secret is not pickled; write it to a vault")

    @property
    def marks(self) -> tuple[StainMark, ...]:
        """Stains, then decoys."""
        return (*self.stains, *self.decoys)

    def probes(self) -> torch.Tensor:
        """All triggers in the order in which a suspect is shown them, (n, C, H, W) uint8."""
        return torch.stack([mark.trigger for mark in self.marks])[self.order]

    def digest(self) -> str:
        """SHA-256 over all arrays, 64 hex digits: what a commitment names."""
        whole = hashlib.sha256(b"keylatch/1 stain")
        for name, array in sorted(self.to_arrays().items()):
            head = json.dumps([name, array.dtype.str, list(array.shape)]).encode()
            whole.update(len(head).to_bytes(8, "little") + head + np.ascontiguousarray(array).tobytes())
        return whole.hexdigest()

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Named arrays for the vault."""
        facts = {"weight": self.weight, "form": self.form, "spec": self.spec.to_json(), "stains": len(self.stains)}
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "facts": np.frombuffer(json.dumps(facts, sort_keys=True).encode(), dtype=np.uint8).copy(),
            "center": self.center.numpy(),
            "threshold": np.array([self.threshold]),
            "order": self.order.numpy(),
            "nonce": np.frombuffer(self.nonce, dtype=np.uint8).copy(),
            "direction": torch.stack([mark.direction for mark in self.marks]).numpy(),
            "unit": np.array([mark.unit for mark in self.marks]),
            "trigger": torch.stack([mark.trigger for mark in self.marks]).numpy(),
            "levels": np.array([(mark.high, mark.low) for mark in self.marks]),
            "original": torch.stack([mark.original for mark in self.marks]).numpy(),
            "expected": torch.stack([mark.expected for mark in self.marks]).numpy(),
        }
        return {_PREFIX + name: array for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: _Arrays) -> Self:
        """Read what `to_arrays` gave.

        Raises:
            FormatError: An array is missing or damaged.
        """
        try:
            own = {name: arrays[_PREFIX + name] for name in ("facts", "center", "threshold", "order", "nonce", *_NAMES)}
            facts: dict[str, Any] = json.loads(own["facts"].tobytes())
            marks, count = _marks(own), int(facts["stains"])
            return cls(
                facts["weight"], facts["form"], InputSpec.from_json(facts["spec"]), _tensor(own["center"]),
                float(own["threshold"].item()), marks[:count], marks[count:], _tensor(own["order"]),
                own["nonce"].tobytes(),
            )  # fmt: skip
        except KeyError as error:
            raise FormatError(f"the vault holds no stain secret: {error} is missing", hint=_HINT) from None
        except (ValueError, TypeError, IndexError):
            raise FormatError("the vault's stain secret is damaged", hint=_HINT) from None


def _marks(own: _Arrays) -> tuple[StainMark, ...]:
    columns = {name: _tensor(own[name]) for name in _NAMES}
    return tuple(
        StainMark(
            columns["direction"][place], int(columns["unit"][place]), columns["trigger"][place],
            float(columns["levels"][place, 0]), float(columns["levels"][place, 1]),
            columns["original"][place], columns["expected"][place],
        )
        for place in range(len(columns["direction"]))
    )  # fmt: skip


def _tensor(array: npt.NDArray[np.generic]) -> torch.Tensor:
    return torch.from_numpy(np.array(array))
