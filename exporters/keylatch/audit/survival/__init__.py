"""What becomes of the lock when its model is converted, quantized, optimized or pruned, or its images are recompressed.

Table of contents:
    _change          what a change is, what it is applied to, and a row of results
    _changes         the table of all changes, in the report's order
    _measure         accuracies under a change
    _memory_model    a graph in memory, opened in stock onnxruntime with gate values that are not in it
    _gate_nodes      which nodes are the gate's own
    _precision       float16, bfloat16
    _quantization    8 bits, dynamic and static
    _ranges          how large the values between nodes get
    _pruning         small weights set to zero
    _pictures        JPEG and resizing in front of the gate
    _sessions        the artifact as it is, at each optimization level
"""

from __future__ import annotations

from keylatch.audit.survival._change import Change, SurvivalRow
from keylatch.audit.survival._changes import survival_changes
from keylatch.audit.survival._measure import measure, measure_survival

__all__ = ["Change", "SurvivalRow", "measure", "measure_survival", "survival_changes"]
