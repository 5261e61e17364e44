"""The runtime: open a locked model with a license, and run it.

    _session           InferenceSession
    _credentials       what opens a model, loaded
    _opening           the verified opening, step by step
    _admission         whether a session may answer, and renewing its license
    _followed_file     a file that may be replaced
    _model_files       a locked model's files, read and verified
    _verified_files    a file of its directory
    _weights_file      the large one, hashed while the session is made
    _leased_map        a mapped file that nobody can change
    _manifest          what a locked model is made of
    _aligned_buffer    memory that starts on a page
    _sealed_weights    weights that lie encrypted beside the model
    _sealed_values     withheld values that do
    _graph_scan        what a graph would make onnxruntime read
    _session_options   options and providers, without side doors
    _known_answer      proof that a session is really unlocked
    _input_check       clear errors for wrong inputs
    _comparison        two callables timed in turn

Imports onnxruntime, numpy and `keylatch.keys`; never torch or onnx.
"""

from __future__ import annotations

from keylatch.errors import MissingExtraError

try:
    import onnxruntime as _onnxruntime  # noqa: F401
except ModuleNotFoundError:
    raise MissingExtraError("running a model", "onnxruntime", "cpu") from None

from keylatch.runtime._comparison import Comparison, compare
from keylatch.runtime._graph_scan import GraphFacts, scan_graph
from keylatch.runtime._known_answer import (
    choose_pairs,
    known_answer_input,
    new_question,
    values_to_license,
    wrong_answers,
)
from keylatch.runtime._manifest import (
    FORMAT,
    GATE_NAME,
    GRAPH_NAME,
    MANIFEST_NAME,
    SEALED_NAME,
    VALUES_NAME,
    WEIGHTS_NAME,
    FileDigest,
    GateTensor,
    Manifest,
    model_id_of,
    parse_manifest,
)
from keylatch.runtime._model_files import ModelFiles, read_manifest, read_model_files, read_sealed_values
from keylatch.runtime._sealed_values import VALUES_KEY_NAME, VALUES_LABEL, pack_values
from keylatch.runtime._sealed_weights import KEY_BYTES, KEY_NAME, SealedWeights, seal_weights
from keylatch.runtime._session import InferenceSession

__all__ = [
    "FORMAT",
    "GATE_NAME",
    "GRAPH_NAME",
    "KEY_BYTES",
    "KEY_NAME",
    "MANIFEST_NAME",
    "SEALED_NAME",
    "VALUES_KEY_NAME",
    "VALUES_LABEL",
    "VALUES_NAME",
    "WEIGHTS_NAME",
    "Comparison",
    "FileDigest",
    "GateTensor",
    "GraphFacts",
    "InferenceSession",
    "Manifest",
    "ModelFiles",
    "SealedWeights",
    "choose_pairs",
    "compare",
    "known_answer_input",
    "model_id_of",
    "new_question",
    "pack_values",
    "parse_manifest",
    "read_manifest",
    "read_model_files",
    "read_sealed_values",
    "scan_graph",
    "seal_weights",
    "values_to_license",
    "wrong_answers",
]
