"""The artifact as it is, at each of onnxruntime's optimization levels."""

from __future__ import annotations

import onnxruntime

from keylatch.audit.survival._change import Changed, Subject
from keylatch.audit.survival._memory_model import open_session, session_predict
from keylatch.runtime import GRAPH_NAME

LEVELS = {
    "disabled": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def as_exported(subject: Subject) -> Changed:
    """No change: what the others are compared with."""
    return optimized(subject, "all")


def optimized(subject: Subject, level: str) -> Changed:
    """Let onnxruntime optimize the graph up to a level, in memory: no optimized graph is saved."""
    path = str(subject.target.path / GRAPH_NAME)
    return Changed(lambda values: session_predict(open_session(path, values, LEVELS[level])))
