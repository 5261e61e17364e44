"""Trace a leak from its predictions alone: which license's word explains how they differ from the unmarked model's?"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from keylatch.audit import Owner, Target
from keylatch.errors import InputError
from keylatch.trace._marks import Marks
from keylatch.trace._response import Response, response_of
from keylatch.trace._suspicion import FALSE_ACCUSATION, Trace, judge, require_chance

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

ITERATIONS = 40
_HINT = "one row for each image, one column for each output (scores or probabilities), or one column of labels"


def read_predictions(path: str | PathLike[str]) -> Array:
    """Read a table of predictions.

    Args:
        path: CSV: a row for each image, a column for each output, or one column with a label; a first row of names
            is skipped.

    Returns:
        (N, K) float64; K is 1 for labels.

    Raises:
        InputError: It cannot be read, is empty, ragged, or holds something else than finite numbers.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the predictions {path} cannot be read: {type(error).__name__}", hint=_HINT) from None
    if rows and not all(map(_is_number, rows[0])):
        rows = rows[1:]
    if not rows or len({len(row) for row in rows}) != 1 or not all(_is_number(cell) for row in rows for cell in row):
        raise InputError(f"{path} is no table of finite numbers", hint=_HINT)
    return np.array(rows, dtype=np.float64)


def trace_predictions(
    predictions: Array,
    images: Array,
    target: Target,
    marks: Marks,
    *,
    limit: float = FALSE_ACCUSATION,
    iterations: int = ITERATIONS,
) -> Trace:
    """Name the license of the model that gave predictions.

    A word moves outputs by the model's derivative times the word, nearly. That is undone by conjugate gradients on the
    normal equations (CGLS: Hestenes and Stiefel, J. Res. Natl. Bur. Stand. 49 (1952)); every iterate is a direction
    among weights that depends on predictions and the unmarked model only, and is compared with all words.

    Args:
        predictions: (N, K) the leak's first output or its softmax, or (N, 1) labels.
        images: (N, *target.spec.shape) what it was shown, as the model takes them.
        target: The artifact that the leak may have come from.
        marks: What its licenses were marked with.
        limit: Largest chance of naming anybody wrongly.
        iterations: How many directions; each is one pass back and two forward over all images.

    Raises:
        InputError: Predictions and images do not fit each other or the model, or are too few for any verdict; or the
            limit is no chance.
    """
    require_chance(limit)
    _require_images(images, target)
    network = Owner({name: marks.values[name] for name in target.gate_names}, None).unlocked(target)
    response = response_of(network, marks, predictions, torch.from_numpy(images))
    _require_enough(response, marks, limit, iterations)
    scores = marks.scores(_directions(response, iterations))
    return judge(marks.licenses, scores, source="predictions", limit=limit, evidence=[response.facts()])


def _require_images(images: Array, target: Target) -> None:
    if images.shape[1:] != target.spec.shape or images.dtype.name != target.spec.dtype:
        raise InputError(
            f"images are {images.dtype} {images.shape}, expected {target.spec.dtype} (N, {target.spec.shape})",
            hint="give the images as the model takes them",
        )


def _require_enough(response: Response, marks: Marks, limit: float, iterations: int) -> None:
    """A direction has as many dimensions as there are outputs, and its product with a word grows as their root."""
    needed = 2 * np.log(iterations * len(marks.licenses) / limit)
    if response.outputs < needed:
        raise InputError(
            f"{response.outputs} independent outputs are too few for a verdict at {limit:g}: "
            f"{len(marks.licenses)} licenses take {int(np.ceil(needed))} or more, and several times that after changes",
            hint="give predictions for more images",
        )


def _directions(response: Response, iterations: int) -> list[Mapping[str, Array]]:
    """Unit directions among the marked weights, one for each iterate."""
    solution = response.zeros()
    residual = response.difference
    gradient = response.back(residual)
    step, size = gradient, _square(gradient)
    found: list[Mapping[str, Array]] = []
    for _ in range(iterations):
        if size == 0:
            break
        moved = response.forward(step)
        length = size / max(float((moved**2).sum()), 1e-300)
        solution = {name: solution[name] + length * step[name] for name in step}
        residual = residual - length * moved
        found.append(_unit(solution))
        gradient = response.back(residual)
        size, before = _square(gradient), size
        step = {name: gradient[name] + size / before * step[name] for name in step}
    return found or [{name: value.numpy() for name, value in solution.items()}]


def _unit(direction: Mapping[str, torch.Tensor]) -> Mapping[str, Array]:
    length = max(_square(direction) ** 0.5, 1e-300)
    return {name: (part / length).cpu().numpy() for name, part in direction.items()}


def _square(direction: Mapping[str, torch.Tensor]) -> float:
    return sum(float((part.double() ** 2).sum()) for part in direction.values())


def _is_number(cell: str) -> bool:
    try:
        return bool(np.isfinite(float(cell)))
    except ValueError:
        return False
