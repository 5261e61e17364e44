"""An ONNX graph as a trainable PyTorch module: what somebody who wants to break a locked model makes of its files.

    _loading             files and protobufs to a network
    _external_data       tensors out of files, safely
    _file_tensors        all tensors of a file
    _nodes               single nodes
    _branches            branches that the file itself decides
    _graph               nodes, liveness, and what initializers are for
    _network             OnnxNetwork
    _rewiring            substitutions: who reads what
    _plan                the graph as a list of calls
    _named_tensors       parameters and buffers under ONNX names
    _operator            what an operator is told when it is built
    _operators           the table of all operators
    _straight_through    gradients through thresholds and rounding
    _activations, _arithmetic, _attention, _convolution, _creation, _indexing, _layout, _logic, _normalization,
    _padding, _pooling, _quantization, _reductions, _resampling, _resize, _selection, _sequences    the operators

Needs torch and onnx; imports nothing of locks and exporters.
"""

from __future__ import annotations

from keylatch.errors import MissingExtraError

try:
    import onnx as _onnx  # noqa: F401
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError("auditing", error.name or "torch", "export") from None

from keylatch.audit.onnx_network._branches import without_branches
from keylatch.audit.onnx_network._file_tensors import file_tensors
from keylatch.audit.onnx_network._graph import Node
from keylatch.audit.onnx_network._loading import load_onnx_network, onnx_network
from keylatch.audit.onnx_network._network import OnnxNetwork

__all__ = ["Node", "OnnxNetwork", "file_tensors", "load_onnx_network", "onnx_network", "without_branches"]
