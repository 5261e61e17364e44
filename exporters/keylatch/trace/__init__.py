"""Trace a leaked model, or its predictions alone, to the license it came from.

    _marks             what a model's licenses were marked with
    _leak              the tensors of a leaked file
    _alignment         which of them is which
    _residual          what is left of a leaked tensor without the model
    _weights           scores of all licenses, from weights
    _predictions       and from predictions
    _response          how outputs follow the weights
    _suspicion         scores to a verdict with its bound

Nothing but the command and benchmarks imports it.
"""

from __future__ import annotations

from keylatch.errors import MissingExtraError

try:
    import onnx as _onnx  # noqa: F401
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError("tracing", error.name or "torch", "export") from None

from keylatch.trace._leak import read_leak
from keylatch.trace._marks import Marks, marks_from_vault
from keylatch.trace._predictions import read_predictions, trace_predictions
from keylatch.trace._suspicion import FALSE_ACCUSATION, Suspect, Trace, judge
from keylatch.trace._weights import trace_weights, weight_direction

__all__ = [
    "FALSE_ACCUSATION",
    "Marks",
    "Suspect",
    "Trace",
    "judge",
    "marks_from_vault",
    "read_leak",
    "read_predictions",
    "trace_predictions",
    "trace_weights",
    "weight_direction",
]
