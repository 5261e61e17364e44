"""Put an edit in front of a network that was trained on edited images."""

from __future__ import annotations

import copy

from torch import nn

from keylatch.errors import LockError
from keylatch.locks._capture import capture, drop_unused
from keylatch.locks._gate_sites import multiply_adds_of
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._lock_proof import CHECK_IMAGES, device_of, images_for, prove, reference_outputs
from keylatch.locks._locked import Locked
from keylatch.locks._locked_module import LockedModule
from keylatch.locks._model_lock._edit_gate import EditDescription, EditedNetwork, KeyedEdit
from keylatch.locks._model_lock._edit_key import EditKey
from keylatch.locks._model_lock._editor import Editor
from keylatch.locks._report import EditReport, LockReport
from keylatch.locks._sealing import find_layers
from keylatch.locks._secret import LockSecret


def model_lock(model: nn.Module, spec: InputSpec, editor: Editor, key: EditKey) -> Locked:
    """Lock a network that was trained on images edited under a key, as `edit_tune` does.

    The editor, without its text encoder, becomes a part of the locked network; the key becomes its gate tensors.

    Args:
        model: In evaluation mode; it is copied, not changed.
        spec: Size and value range of its images.
        editor: The editor.
        key: The key, made with this editor.

    Returns:
        The locked module, its secret and a report.

    Raises:
        LockError: If the key was made with another editor or for other images, or the network does not care for it.
    """
    if (spec.height, spec.width) != (key.height, key.width) or spec.dtype != "float32":
        raise LockError(
            f"the key is for float images of {key.height} x {key.width}, the network takes {spec.dtype} "
            f"{spec.height} x {spec.width}",
            hint="draw the key for this network's images",
        )
    key.require(editor)
    device = device_of(model)
    edit = KeyedEdit(copy.deepcopy(editor.edit(spec.height, spec.width, key.settings)), editor.digest, key.settings)
    plain, _ = capture(model, spec)
    multiply_adds = multiply_adds_of(plain)
    whole = EditedNetwork(edit, copy.deepcopy(model), spec).to(device).eval()
    graph, outputs = capture(whole, spec)
    description = EditDescription(editor.kind, editor.digest, key.settings, edit.names)
    module = LockedModule(spec, drop_unused(graph), outputs, edit=description)
    secret = LockSecret.of_edit(key)
    images = images_for(spec, None).to(device)[:CHECK_IMAGES]
    whole.edit.hold(key.values)
    keyed, _ = capture(whole, spec)
    errors = prove(module, secret, images, reference_outputs(keyed, images))
    report = EditReport(
        editor.kind, editor.digest, key.settings.steps, multiply_adds_of(graph) - multiply_adds,
        sum(value.numel() for value in key.values.values()),
    )  # fmt: skip
    parameters = sum(layer.parameters for layer in find_layers(plain))
    return Locked(module, secret, LockReport((), 0, 0.0, multiply_adds, *errors, parameters, edit=report))
