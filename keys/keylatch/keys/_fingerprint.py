"""Fingerprints: withheld weights differ a little in each license, so that a leaked model names the one it came from.

A license adds to each weight of some gate tensors a step up or down; which of the two is its word, pseudo-random signs
that only the issuer can draw. Whatever a leaked model holds was made without knowing the words of other licenses, so
that the chance of accusing one of those has a bound without any assumption (Hoeffding's, `log10_chance`). As signs are
independent and balanced, colluders who average, mix or pick among their copies keep a share of each of their words
(Boneh and Shaw, IEEE Trans. Inf. Theory 44 (1998); Cox et al., IEEE Trans. Image Process. 6 (1997)).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn, Self

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keylatch.errors import FormatError
from keylatch.keys._tensors import Array

SEED_BYTES = 32
PREFIX = "fingerprint."

_SEED, _STEP = PREFIX + "seed", PREFIX + "step."
_HINT = "give the vault that this model was exported with"


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Fingerprint:
    """What marks the licenses of one model; belongs in the issuer's vault and nowhere else.

    Attributes:
        seed: 32 bytes; whoever has them can draw every license's word.
        steps: Gate tensor name to the steps by which its weights move, in the unit of the weights, float64: (n,), one
            for each place along the first axis, a layer's output channels, or (1,), one for all. 0 marks nothing.

    Raises:
        FormatError: A seed of another length, no tensor, or steps that are below 0, not finite or all 0.
    """

    seed: bytes
    steps: Mapping[str, Array]

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_BYTES:
            raise FormatError(f"a fingerprint's seed has {SEED_BYTES} bytes, got {len(self.seed)}", hint=_HINT)
        if not self.steps or not all(map(_are_steps, self.steps.values())):
            raise FormatError("a fingerprint has no tensor to mark, or steps that are not above 0", hint=_HINT)

    def __repr__(self) -> str:
        return f"Fingerprint({len(self.steps)} tensors)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a fingerprint is not pickled; write it to a vault")

    def word(self, mark: str, tensor: str, count: int) -> Array:
        """The signs of one license in one gate tensor.

        Args:
            mark: Whose: the license's id, or that of the first license it renews.
            tensor: The gate tensor's name.
            count: How many weights it has.

        Returns:
            (count,) int8 in {-1, +1}: HKDF-SHA256 (RFC 5869) of the seed, expanded by SHAKE-256 (FIPS 202).
        """
        info = b"keylatch/1 fingerprint" + b"".join(
            len(part).to_bytes(4, "big") + part for part in _encoded(mark, tensor)
        )
        key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(self.seed)
        packed = np.frombuffer(hashlib.shake_256(key).digest((count + 7) // 8), dtype=np.uint8)
        return np.unpackbits(packed, count=count).astype(np.int8) * 2 - 1

    def marked(self, values: Mapping[str, Array], mark: str) -> dict[str, Array]:
        """Secret values with a license's word in them; dtypes and shapes stay.

        Args:
            values: Gate tensor name to secret value.
            mark: Whose word.

        Raises:
            FormatError: A tensor that is to be marked is missing, holds no floating-point numbers, or has another
                number of channels.
        """
        marked = dict(values)
        for name in self.steps:
            value = values.get(name)
            if value is None or not np.issubdtype(value.dtype, np.floating):
                raise FormatError(f"the secret values lack the tensor {name}, which is to be marked", hint=_HINT)
            word = self.word(mark, name, value.size).reshape(value.shape)
            marked[name] = (value.astype(np.float64) + self.steps_of(name, value.shape) * word).astype(value.dtype)
        return marked

    def steps_of(self, name: str, shape: tuple[int, ...]) -> Array:
        """The steps of one gate tensor, float64, as they broadcast against it.

        Args:
            name: The gate tensor's name.
            shape: Its shape.

        Raises:
            FormatError: There are as many steps as it has no channels.
        """
        steps = self.steps[name]
        if len(steps) not in (1, *shape[:1]):
            raise FormatError(f"{len(steps)} steps do not fit the tensor {name} of shape {shape}", hint=_HINT)
        return steps.reshape(-1, *(1 for _ in shape[1:]))

    def to_arrays(self) -> dict[str, Array]:
        """Named arrays for the model's section of the vault."""
        steps = {_STEP + name: steps for name, steps in self.steps.items()}
        return {_SEED: np.frombuffer(self.seed, dtype=np.uint8), **steps}

    @classmethod
    def from_arrays(cls, section: Mapping[str, Array]) -> Self | None:
        """Read what `to_arrays` gave out of a model's section of the vault; None if its licenses are not marked.

        Raises:
            FormatError: A part is missing or malformed.
        """
        own = {name: value for name, value in section.items() if name.startswith(PREFIX)}
        if not own:
            return None
        seed = own.pop(_SEED, np.zeros(0, dtype=np.uint8))
        if not all(name.startswith(_STEP) for name in own):
            raise FormatError("the vault holds a malformed fingerprint", hint=_HINT)
        return cls(seed.tobytes(), {name.removeprefix(_STEP): steps for name, steps in own.items()})


def without_fingerprint(section: Mapping[str, Array]) -> dict[str, Array]:
    """A model's section of the vault without what marks its licenses."""
    return {name: value for name, value in section.items() if not name.startswith(PREFIX)}


def log10_chance(score: float, candidates: int = 1) -> float:
    """log10 of a bound on the chance that the word of any innocent license scores this high.

    For signs that are independent and uniform and any direction u of length 1 that does not depend on them,
    P[<w, u> >= t] <= exp(-t^2 / 2) (Hoeffding, J. Am. Stat. Assoc. 58 (1963), theorem 2); times the number of licenses
    that are compared.

    Args:
        score: <w, u>.
        candidates: How many words were, or could have been, compared; 1 or more.
    """
    return min(0.0, (math.log(candidates) - max(score, 0.0) ** 2 / 2) / math.log(10))


def _are_steps(steps: Array) -> bool:
    shaped = steps.ndim == 1 and steps.dtype == np.float64
    return shaped and bool(np.isfinite(steps).all() and (steps >= 0).all() and (steps > 0).any())


def _encoded(*parts: str) -> tuple[bytes, ...]:
    return tuple(part.encode() for part in parts)
