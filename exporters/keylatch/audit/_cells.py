"""Results of single measurements, one file each, so that an audit can be stopped and go on where it was.

A cell is one attack, baseline or change, with one budget and one seed. Its file is named by the SHA-256 of everything
that the result depends on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from keylatch.audit._files import write_text_whole
from keylatch.errors import FormatError, OutputError

FORMAT = "keylatch-audit-cell/1"
_MAX_CELL_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one run of an attack or baseline came to.

    Attributes:
        accuracy: Of the recovered model on the evaluation images, in percent.
        seconds: What it took, without the evaluation.
        allowed_seconds: What its clock gave it.
        cost: In the attack's own units.
        note: What the attacker found, in words.
        truncated: Whether the clock ended it early.
        signs_right: For each gate the share of signs that it recovered, in percent; () if nobody can tell.
    """

    accuracy: float
    seconds: float
    allowed_seconds: float
    cost: Mapping[str, int | float] = field(default_factory=dict)
    note: str = ""
    truncated: bool = False
    signs_right: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "cost": dict(self.cost), "signs_right": list(self.signs_right)}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read what `to_json` wrote.

        Raises:
            FormatError: It did not.
        """
        match data:
            case {
                "accuracy": float(), "seconds": float(), "allowed_seconds": float(), "cost": dict(), "note": str(),
                "truncated": bool(), "signs_right": list(signs), **rest,
            } if not rest and all(isinstance(sign, float) for sign in signs):  # fmt: skip
                return cls(**{**data, "signs_right": tuple(signs)})
        raise FormatError("not a measurement of an audit")


class CellStore:
    """A folder of cells.

    Args:
        folder: Where they lie; made if it is not there.

    Attributes:
        damaged: Names of files that were ignored.

    Raises:
        OutputError: The folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made: {error.strerror}", hint="choose another --out") from None
        self._folder = folder
        self.damaged: list[str] = []

    def path(self, facts: Mapping[str, Any]) -> Path:
        """The file of the cell with these facts."""
        canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return self._folder / f"{hashlib.sha256(canonical.encode()).hexdigest()}.json"

    def read(self, facts: Mapping[str, Any]) -> Any:
        """The result that is stored for these facts; None if there is none, or if its file is damaged."""
        path = self.path(facts)
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_CELL_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError:
            return self.ignore(facts)
        return self._parse(data, facts)

    def ignore(self, facts: Mapping[str, Any]) -> None:
        """Note that a file cannot be used; it will be replaced."""
        self.damaged.append(self.path(facts).name)

    def write(self, facts: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Store a result, replacing an older one.

        Raises:
            OutputError: The file cannot be written.
        """
        text = json.dumps({"format": FORMAT, "cell": facts, "result": result}, indent=1, allow_nan=False)
        write_text_whole(self.path(facts), text, what="result")

    def _parse(self, data: bytes, facts: Mapping[str, Any]) -> Any:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            return self.ignore(facts)
        match found:
            case {"format": "keylatch-audit-cell/1", "cell": dict(cell), "result": dict(result)} if cell == facts:
                return result
        return self.ignore(facts)
