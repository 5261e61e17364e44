"""Choose which withheld weights mark licenses, and by how much, and prove that a marked model is still the model.

Each output channel has a step of its own: every weight is to move the outputs as much as any other (to first order, by
`channel_sensitivities`), so that taking a word out costs an attacker as much everywhere, and no channel moves by more
than a small share of its spread. Of all steps alike the largest are taken at which answers hardly move.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from keylatch.errors import ExportError
from keylatch.exporters._proof import open_stock, relative_difference, run_all, test_images
from keylatch.exporters._sensitivity import channel_sensitivities
from keylatch.keys import Fingerprint
from keylatch.locks import InputSpec, LockedModule, LockSecret
from keylatch.runtime import known_answer_input, wrong_answers

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

SEED_BYTES = 32
# With so many weights the word of one of a million licenses is told at 1e-6 from a copy that three colluders mixed, at
# half the strength of the noise: (sqrt(2 ln 1e12) * 3 / 0.5)^2 is 2,000, and as much again to spare.
LEAST_WEIGHTS = 4096
# One of a million licenses is named at 1e-6 from 7.4 on; twice that must be left of a word after rounding to bytes.
LEAST_SCORE = 15.0
LARGEST_CHANGE = 0.01  # of the output range, on the images of the proof
# Of a channel's spread. Made images can be deaf to a channel that photographs hear: with 2^-4 outputs of MobileNetV2
# moved 2.4 times as far on 100 of them as on made images, with 2^-6 1.4 times (by hand).
_LARGEST_SHARE = 2**-6
_FIRST_MOVE = 2**-3  # how far a word moves outputs to first order, in units of their spread
_ROUNDS, _TRIALS = 12, 3  # steps that are tried, words for each
# Where channels are held to their share of the spread, answers move less than in proportion: no smaller cut than this.
_LEAST_CUT = 0.7
_HALVINGS = 20


def choose_fingerprint(
    folder: Path,
    module: LockedModule,
    secret: LockSecret,
    values: Mapping[str, Array],
    known_answer: Mapping[str, Array],
) -> tuple[Fingerprint, float]:
    """Draw what marks the licenses of an exported model.

    Args:
        folder: Where model.onnx, its weights and gate.bin lie.
        module: The locked module, float32 on the CPU, of the artifact's input convention.
        secret: What opens it.
        values: Gate tensor name to secret value.
        known_answer: The vault's question and answer, which a marked model has to pass too.

    Returns:
        The fingerprint, and the largest change of an output that was seen, as a share of the output range.

    Raises:
        ExportError: The lock withholds too few whole weights, or what hardly changes answers is lost in rounding.
    """
    marked = _markable(module, values)
    sensitivities = channel_sensitivities(module, secret, marked)
    seed, change, move = secrets.token_bytes(SEED_BYTES), math.inf, _FIRST_MOVE
    least = _readable_move(marked, sensitivities)
    spec, images = module.spec, test_images(module.spec)
    unmarked = run_all(open_stock(folder, values), images)
    for _ in range(_ROUNDS if least <= _FIRST_MOVE else 0):
        fingerprint = Fingerprint(seed, _steps(marked, sensitivities, move))
        change = max(
            _change(folder, spec, fingerprint.marked(values, f"trial {trial}"), images, unmarked, known_answer)
            for trial in range(_TRIALS)
        )
        if change <= LARGEST_CHANGE:
            return fingerprint, change
        if move <= least:
            seed = secrets.token_bytes(SEED_BYTES)  # other words; a small network does not answer all alike
        move = max(move * min(max(0.9 * LARGEST_CHANGE / change, 1 / 8), _LEAST_CUT), least)
    raise ExportError(
        "licenses cannot be marked: a word that can still be read after rounding to bytes changes outputs by "
        f"{change:.1e} of their range, expected at most {LARGEST_CHANGE}",
        hint="withhold more weights, or export without a fingerprint",
    )


def _markable(module: LockedModule, values: Mapping[str, Array]) -> dict[str, Array]:
    """Gate tensors that are whole weights of layers, and the same in every license."""
    parts = zip(module.withheld.names(), module.withheld.parts, strict=True)
    partial = {name for name, part in parts if part.kind != "whole" or module.withheld.domains}
    names = [name for name in module.withheld_names() if name not in partial]
    marked = {name: values[name] for name in names if values[name].ndim >= 2 and _spreads(values[name]).any()}
    weights = sum(value.size for value in marked.values())
    if weights < LEAST_WEIGHTS:
        raise ExportError(
            f"a fingerprint needs {LEAST_WEIGHTS} weights in layers that are withheld whole, and here are {weights}",
            hint="lock with a code, which withholds the first layers; with sealed_share= (lock --sealed) withhold more"
            + ("; parts of weights, and domains, are not marked" if partial else ""),
        )
    return marked


def _spreads(value: Array) -> Array:
    """(n,) float64, the standard deviation of each channel's weights."""
    spreads: Array = value.astype(np.float64).reshape(len(value), -1).std(1)
    return spreads


def _steps(marked: Mapping[str, Array], sensitivities: Mapping[str, Array], move: float) -> dict[str, Array]:
    """Steps by which every weight moves the outputs alike, all of them together by `move` of their spread."""
    share = move / math.sqrt(sum(value.size for value in marked.values()))
    return {
        name: np.minimum(_LARGEST_SHARE * _spreads(value), share / np.sqrt(np.maximum(sensitivities[name], 1e-300)))
        for name, value in marked.items()
    }


def _readable_move(marked: Mapping[str, Array], sensitivities: Mapping[str, Array]) -> float:
    """The least move at which a word can still be read after rounding to bytes; infinite if the first is too small."""
    low, high = 0.0, 2 * _FIRST_MOVE
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        fingerprint = Fingerprint(bytes(SEED_BYTES), _steps(marked, sensitivities, middle))
        low, high = (low, middle) if _score_in_bytes(fingerprint, marked) >= LEAST_SCORE else (middle, high)
    return high if high <= _FIRST_MOVE else math.inf


def _score_in_bytes(fingerprint: Fingerprint, marked: Mapping[str, Array]) -> float:
    """What a license's own word scores, about, once each tensor is rounded to 255 levels: s^2 / (s^2 + q^2 / 12)."""
    total = 0.0
    for name, value in marked.items():
        level = 2 * float(np.abs(value.astype(np.float64)).max()) / 254
        squares = np.broadcast_to(fingerprint.steps_of(name, value.shape) ** 2, value.shape)
        total += float((squares / (squares + level**2 / 12)).sum())
    return math.sqrt(total)


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
        return math.inf
    return relative_difference(run_all(session, images), unmarked)
