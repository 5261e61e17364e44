"""The known-answer check: prove that a session is really unlocked before it answers anything.

The license brings pairs of positions in the network's output on a fixed input, a key, and an HMAC-SHA256 over which
of each pair is larger. Comparing orders, and only those with a wide gap, makes the answer the same in fp32, fp16 and
bf16, on CPU and GPU; the HMAC keeps the answer itself out of the license. A session whose gate tensors were silently
ignored (by an optimizer that folded the defaults, say) answers wrongly.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from keylatch.errors import IntegrityError
from keylatch.keys import for_domains, without_fingerprint

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

PREFIX = "known_answer."
SEED, IMAGES, PAIRS, BITS, KEY, TAG = (PREFIX + part for part in ("seed", "images", "pairs", "bits", "key", "tag"))

_BYTES_32 = ("uint8", (32,))
_FORM = {SEED: _BYTES_32, IMAGES: ("int64", (1,)), KEY: _BYTES_32, TAG: _BYTES_32}  # and PAIRS: int64, (n, 2)

MAX_IMAGES = 64
MAX_PAIRS = 128
WIDE_GAP = 0.05  # of the output range: room for rounding on other devices and in other precisions


def new_question(images: int) -> dict[str, Array]:
    """A fresh fixed input: a seed and the number of images, 1 or more."""
    seed = np.frombuffer(secrets.token_bytes(32), dtype=np.uint8)
    return {SEED: seed, IMAGES: np.array([images], dtype=np.int64)}


def known_answer_input(question: Mapping[str, Array], shape: Sequence[int], dtype: str) -> Array:
    """The fixed input: bytes from SHAKE-256 of the seed, as bytes or as values in [0, 1).

    Args:
        question: SEED, (32,) uint8, and IMAGES, (1,) int64.
        shape: Shape of one image.
        dtype: ``uint8``, ``float32`` or ``float16``.

    Returns:
        (images, *shape).
    """
    full = (int(question[IMAGES][0]), *shape)
    seed = question[SEED].tobytes()
    stream = hashlib.shake_256(b"keylatch/1 known answer" + seed).digest(int(np.prod(full)))
    values = np.frombuffer(stream, dtype=np.uint8).reshape(full)
    return values if dtype == "uint8" else (values.astype(np.float32) / 256).astype(dtype)


def choose_pairs(keyed: Array, locked: Array, draws: np.random.Generator, rounding: float = 0.0) -> tuple[Array, Array]:
    """Choose pairs of output positions whose order is the same on every device, and wrong when locked.

    Args:
        keyed: The unlocked network's first output on the fixed input.
        locked: The locked network's.
        draws: For choosing among the positions; nothing secret depends on it.
        rounding: How far the artifact's precision moves an output, as a share of the output range; pairs are so far
            apart that four times that changes no order.

    Returns:
        (n, 2) int64 positions in the flattened output and (n,) bool, whether the first is larger; n may be 0.
    """
    keyed, locked = keyed.astype(np.float64).ravel(), locked.astype(np.float64).ravel()
    pairs = draws.integers(0, len(keyed), (200_000, 2))
    gaps, locked_gaps = (output[pairs[:, 0]] - output[pairs[:, 1]] for output in (keyed, locked))
    span = keyed.max() - keyed.min()
    wide = np.abs(gaps) >= max(WIDE_GAP, 4 * rounding) * span
    same = (gaps > 0) == (locked_gaps > 0)
    wrong = ~same & (np.abs(locked_gaps) >= 4 * rounding * span)
    telling, plain = pairs[wide & wrong & (gaps != 0)], pairs[wide & same & (gaps != 0)]
    # Half of the pairs are those that a locked network orders wrongly; the others keep a stuck output from passing.
    chosen = np.concatenate([telling[: MAX_PAIRS // 2], plain[: MAX_PAIRS // 2]]) if len(telling) else telling
    return chosen, answer(keyed, chosen)


def answer(output: Array, pairs: Array) -> Array:
    """Whether the first of each pair of positions is larger, (n,) bool."""
    flat = output.ravel()
    bits: Array = flat[pairs[:, 0]] > flat[pairs[:, 1]]
    return bits


def wrong_answers(vault: Mapping[str, Array], output: Array) -> int:
    """How many of the vault's pairs an output on its question orders otherwise than the unlocked network's.

    Args:
        vault: PAIRS and BITS, among others.
        output: The first output on the question's images.
    """
    return int((answer(output, vault[PAIRS]) != vault[BITS]).sum())


def seal_known_answer(vault: Mapping[str, Array]) -> dict[str, Array]:
    """The tensors that a license carries, from those in the vault: the answer only as a MAC under a fresh key.

    Args:
        vault: SEED, IMAGES, PAIRS and BITS, among others.
    """
    key = secrets.token_bytes(32)
    tag = _tag(key, vault[BITS])
    return {
        **{name: vault[name] for name in (SEED, IMAGES, PAIRS)},
        KEY: np.frombuffer(key, dtype=np.uint8),
        TAG: np.frombuffer(tag, dtype=np.uint8),
    }


def values_to_license(section: Mapping[str, Array], domains: Collection[str] = ()) -> dict[str, Array]:
    """What a license carries for a model, from the model's section of the vault.

    Args:
        section: Secret values by gate tensor name, and the known answer's question and answer; what marks licenses
            stays in the vault.
        domains: Of a model with domains, those that are paid for.

    Raises:
        FormatError: The model has no such domain.
    """
    own = for_domains(without_fingerprint(section), domains)
    gate = {name: value for name, value in own.items() if not name.startswith(PREFIX)}
    return gate | seal_known_answer(own)


def split_license(values: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Separate a license's secret values from its known answer.

    Raises:
        IntegrityError: If the known answer is not complete and well-formed.
    """
    known_answer = {name: value for name, value in values.items() if name.startswith(PREFIX)}
    form = {name: (value.dtype.name, value.shape) for name, value in known_answer.items()}
    kind, shape = form.pop(PAIRS, ("", ()))
    if form != _FORM or kind != "int64" or shape[1:] != (2,) or not shape[0]:
        raise IntegrityError
    if not 1 <= known_answer[IMAGES][0] <= MAX_IMAGES or known_answer[PAIRS].min() < 0:
        raise IntegrityError
    return {name: value for name, value in values.items() if not name.startswith(PREFIX)}, known_answer


def verify_known_answer(expected: Mapping[str, Array], output: Array) -> None:
    """Compare an output with a license's known answer.

    Raises:
        IntegrityError: If it is not the unlocked network's.
    """
    pairs = expected[PAIRS]
    if not np.isfinite(output.astype(np.float64)).all() or int(pairs.max()) >= output.size:
        raise IntegrityError
    tag = _tag(expected[KEY].tobytes(), answer(output, pairs))
    if not hmac.compare_digest(tag, expected[TAG].tobytes()):
        raise IntegrityError


def _tag(key: bytes, bits: Array) -> bytes:
    return hmac.digest(key, np.packbits(bits).tobytes(), "sha256")
