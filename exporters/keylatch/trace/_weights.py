"""Trace a leak from its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from keylatch.errors import InputError
from keylatch.trace._alignment import LEAST_LIKENESS, Counterpart, find_counterpart
from keylatch.trace._marks import Marks
from keylatch.trace._residual import evidence, unit
from keylatch.trace._suspicion import FALSE_ACCUSATION, Trace, judge, require_chance

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def trace_weights(leak: Mapping[str, Array], marks: Marks, *, limit: float = FALSE_ACCUSATION) -> Trace:
    """Name the license that a leaked model came from.

    Works after rounding, quantization, pruning and fine-tuning, with weights renamed, transposed or rescaled by
    channel, and on models that were averaged or mixed from several licenses' copies; then several are named.

    Args:
        leak: Name to tensor, from `read_leak`.
        marks: What the model's licenses were marked with.
        limit: Largest chance of naming anybody wrongly; holds whatever was done to the leak, as long as it was done
            without the words of the innocent.

    Returns:
        The verdict. Nobody is named if the leak's weights are not this model's.

    Raises:
        InputError: No tensor of the leak has the shape of a marked one: it is another architecture. Or the limit is no
            chance.
    """
    require_chance(limit)
    direction, facts = weight_direction(leak, marks)
    return judge(marks.licenses, marks.scores([direction]), source="weights", limit=limit, evidence=facts)


def weight_direction(leak: Mapping[str, Array], marks: Marks) -> tuple[dict[str, Array], list[dict[str, Any]]]:
    """Where a leak's weights lie from the model's, as a direction to compare words with.

    Returns:
        Marked tensor name to array, of length 1 together, or nothing if the leak is another model; and for each
        tensor that has a counterpart what it is. Raises as `trace_weights` does.
    """
    found = {name: find_counterpart(marks.base(name), leak) for name in marks.names}
    alike = {name: part for name, part in found.items() if part is not None}
    if not alike:
        shapes = ", ".join("x".join(map(str, marks.base(name).shape)) for name in marks.names[:3])
        raise InputError(
            f"the leaked model is of another architecture: none of its tensors has a marked one's shape ({shapes})",
            hint="give the leak's weights, and the artifact that it may have come from",
        )
    derived = {name: part for name, part in alike.items() if part.likeness >= LEAST_LIKENESS}
    direction = unit({name: evidence(part, marks.base(name), marks.steps(name)) for name, part in derived.items()})
    return direction, [_fact(name, part) for name, part in alike.items()]


def _fact(name: str, part: Counterpart) -> dict[str, Any]:
    used = part.likeness >= LEAST_LIKENESS
    return {
        "tensor": name,
        "found": part.name,
        "weights": int(part.kept.sum()),
        "likeness": part.likeness,
        "used": used,
    }
