"""Choose which withheld weights mark licenses, and by how much, and prove that a marked model is still the model."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from keylatch.errors import ExportError
from keylatch.exporters._proof import open_stock, relative_difference, run_all, test_images
from keylatch.keys import Fingerprint
from keylatch.locks import InputSpec
from keylatch.runtime import known_answer_input, wrong_answers

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

SEED_BYTES = 32
# With so many weights the word of one of a million licenses is told at 1e-6 from a copy that three colluders mixed, at
# half the strength of the noise: (sqrt(2 ln 1e12) * 3 / 0.5)^2 is 2,000, and as much again to spare.
LEAST_WEIGHTS = 4096
# Steps as shares of a tensor's spread, the widest first: the first at which answers hardly move is taken.
STRENGTHS = (2**-7, 2**-8, 2**-9, 2**-10)
LARGEST_CHANGE = 0.01  # of the output range, on the images of the proof
_TRIALS = 3  # words


def choose_fingerprint(
    folder: Path,
    spec: InputSpec,
    values: Mapping[str, Array],
    withheld: Sequence[str],
    known_answer: Mapping[str, Array],
) -> tuple[Fingerprint, float]:
    """Draw what marks the licenses of an exported model.

    Args:
        folder: Where model.onnx, its weights and gate.bin lie.
        spec: The input convention of the artifact.
        values: Gate tensor name to secret value.
        withheld: Names of gate tensors that are weights of the network.
        known_answer: The vault's question and answer, which a marked model has to pass too.

    Returns:
        The fingerprint, and the largest change of an output that was seen, as a share of the output range.

    Raises:
        ExportError: The lock withholds too few weights, or even the smallest step changes answers.
    """
    marked = [name for name in withheld if values[name].ndim >= 2 and np.ptp(values[name]) > 0]
    weights = sum(values[name].size for name in marked)
    if weights < LEAST_WEIGHTS:
        raise ExportError(
            f"a fingerprint needs {LEAST_WEIGHTS} withheld weights, and this lock withholds {weights}",
            hint="lock with a code, which withholds the first layers; with sealed_share= (lock --sealed) withhold more",
        )
    seed, change = secrets.token_bytes(SEED_BYTES), float("inf")
    images = test_images(spec)
    unmarked = run_all(open_stock(folder, values), images)
    for strength in STRENGTHS:
        spreads = {name: float(np.std(values[name].astype(np.float64))) for name in marked}
        fingerprint = Fingerprint(seed, {name: strength * spread for name, spread in spreads.items()})
        change = max(
            _change(folder, spec, fingerprint.marked(values, f"trial {trial}"), images, unmarked, known_answer)
            for trial in range(_TRIALS)
        )
        if change <= LARGEST_CHANGE:
            return fingerprint, change
    raise ExportError(
        f"licenses cannot be marked: the smallest step changes outputs by {change:.1e} of their range, "
        f"expected at most {LARGEST_CHANGE}",
        hint="withhold other layers, or export without a fingerprint",
    )


def _change(
    folder: Path,
    spec: InputSpec,
    values: Mapping[str, Array],
    images: Array,
    unmarked: Sequence[Array],
    known_answer: Mapping[str, Array],
) -> float:
    """Largest change of an output; infinite if the marked model would not pass as opened."""
    session = open_stock(folder, values)
    question = known_answer_input(known_answer, spec.shape, spec.dtype)
    output = session.run(None, {session.get_inputs()[0].name: question})[0]
    if wrong_answers(known_answer, output):
        return float("inf")
    return relative_difference(run_all(session, images), unmarked)
