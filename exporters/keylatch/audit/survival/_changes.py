"""The table of all changes, in the report's order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from keylatch.audit.survival._change import Change
from keylatch.audit.survival._pictures import jpeg, resized
from keylatch.audit.survival._precision import bfloat16, float16
from keylatch.audit.survival._pruning import pruned
from keylatch.audit.survival._quantization import quantized_dynamic, quantized_static
from keylatch.audit.survival._sessions import LEVELS, as_exported, optimized

PRUNED_PERCENT = (10, 30, 50, 70, 90)
JPEG_QUALITY = (95, 85, 75, 60)
RESIZED_PERCENT = (125, 75, 50)
_SLOW_IMAGES = 200  # many CPUs have no bfloat16 arithmetic and emulate it


def survival_changes() -> Sequence[Change]:
    """All changes; the first one is none, for comparison."""
    return (
        Change("as exported", "", as_exported),
        Change("fp16", "whole graph", partial(float16, keep_gate=False)),
        Change("fp16", "gate in float32", partial(float16, keep_gate=True)),
        Change("bf16", "PyTorch", bfloat16, most_images=_SLOW_IMAGES),
        Change("int8", "dynamic", quantized_dynamic),
        Change("int8", "static", quantized_static),
        *(Change("onnxruntime optimization", level, partial(optimized, level=level)) for level in LEVELS),
        *(Change("pruning", f"{percent} %", partial(pruned, percent=percent)) for percent in PRUNED_PERCENT),
        *(Change("JPEG", f"quality {quality}", partial(jpeg, quality=quality)) for quality in JPEG_QUALITY),
        *(Change("resize", f"{percent} % and back", partial(resized, percent=percent)) for percent in RESIZED_PERCENT),
    )
