"""Exporters: a locked PyTorch network to an ONNX artifact that has proved itself."""

from __future__ import annotations

from keylatch.errors import MissingExtraError

try:
    import onnx as _onnx  # noqa: F401
    import onnx_ir as _onnx_ir  # noqa: F401
    import onnxscript as _onnxscript  # noqa: F401
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError("exporting", error.name or "torch", "export") from None

from keylatch.exporters._export import METADATA_KEY, Exported, describe_proof, export, export_plain
from keylatch.exporters._onnx_program import INPUT_NAME, Precision
from keylatch.exporters._proof import Proof

__all__ = [
    "INPUT_NAME",
    "METADATA_KEY",
    "Exported",
    "Precision",
    "Proof",
    "describe_proof",
    "export",
    "export_plain",
]
