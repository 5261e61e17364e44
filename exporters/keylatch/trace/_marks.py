"""What the licenses of one model were marked with: the unmarked weights, the steps, and everybody's word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from keylatch.errors import InputError
from keylatch.keys import Fingerprint, Marked, Vault, domains_of
from keylatch.runtime import values_to_license

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

# Words are drawn as they are compared; so many at a time keep them within 100 MB.
_CHUNK_WEIGHTS = 2**24


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Marks:
    """The marks of one model's licenses.

    Attributes:
        fingerprint: Seed and steps.
        values: Gate tensor name to secret value, of all gate tensors, without anybody's word.
        licenses: Who has a word.

    Raises:
        InputError: Nobody has one, or a marked tensor is missing.
    """

    fingerprint: Fingerprint
    values: Mapping[str, Array]
    licenses: Sequence[Marked]

    def __post_init__(self) -> None:
        missing = sorted(set(self.fingerprint.steps) - self.values.keys())
        if missing:
            raise InputError(f"the vault lacks the marked tensor {missing[0]}", hint="give the vault of this model")
        if not self.licenses:
            raise InputError("no license was issued for this model, so none can be named", hint="give its ledger")

    def __repr__(self) -> str:
        return f"Marks({len(self.licenses)} licenses, {self.fingerprint!r})"

    @property
    def names(self) -> tuple[str, ...]:
        """The marked tensors."""
        return tuple(self.fingerprint.steps)

    def base(self, name: str) -> Array:
        """A marked tensor without anybody's word, float64."""
        return self.values[name].astype(np.float64)

    def steps(self, name: str) -> Array:
        """By which words move a marked tensor, float64, as it broadcasts against it; 0 where they do not."""
        return self.fingerprint.steps_of(name, self.values[name].shape)

    def scores(self, directions: Sequence[Mapping[str, Array]]) -> Array:
        """The products of each license's word with some directions.

        Args:
            directions: Each: marked tensor name to array of its size, all of length 1 together. A tensor that is left
                out says nothing.

        Returns:
            (directions, licenses) float64.
        """
        flat = np.stack([self._flat(direction) for direction in directions])
        chunk = max(1, _CHUNK_WEIGHTS // flat.shape[1])
        words = np.empty((min(chunk, len(self.licenses)), flat.shape[1]), dtype=np.float32)  # fresh pages are slow
        parts = []
        for start in range(0, len(self.licenses), chunk):
            some = self.licenses[start : start + chunk]
            for row, marked in zip(words, some, strict=False):
                self._fill(row, marked.mark)
            parts.append(flat @ words[: len(some)].T)
        return np.concatenate(parts, axis=1).astype(np.float64)

    def _flat(self, direction: Mapping[str, Array]) -> Array:
        parts = [direction.get(name, np.zeros(self.values[name].size)).reshape(-1) for name in self.names]
        return np.concatenate(parts).astype(np.float32)

    def _fill(self, row: Array, mark: str) -> None:
        start = 0
        for name in self.names:
            count = self.values[name].size
            row[start : start + count] = self.fingerprint.word(mark, name, count)
            start += count


def marks_from_vault(vault: Vault, model_id: str, licenses: Sequence[Marked]) -> Marks:
    """Read the marks of a model.

    Args:
        vault: The one that the model was exported with.
        model_id: SHA-256 of its manifest, hex.
        licenses: From `list_marks`.

    Raises:
        FormatError: The vault has nothing on this model.
        InputError: Its licenses are not marked, or there is none.
    """
    section = vault.section(model_id)
    fingerprint = Fingerprint.from_arrays(section)
    if fingerprint is None:
        raise InputError(
            f"licenses for model {model_id[:8]}… are not marked, so a leak cannot be traced",
            hint="export with fingerprint=True (keylatch export --fingerprint), and issue licenses for that model",
        )
    return Marks(fingerprint, values_to_license(section, domains_of(section)), licenses)
