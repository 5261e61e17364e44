"""Put an edit in front of a network that was trained on edited images."""

from __future__ import annotations

import copy
import secrets
from dataclasses import replace

import torch
from torch import nn

from keylatch.errors import LockError
from keylatch.locks._capture import capture, drop_unused, flat_tensors
from keylatch.locks._gate_sites import multiply_adds_of
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._lock_proof import CHECK_IMAGES, device_of, images_for, prove
from keylatch.locks._locked import Locked
from keylatch.locks._locked_module import LockedModule
from keylatch.locks._model_lock._edit_gate import EditDescription, EditedNetwork, KeyedEdit
from keylatch.locks._model_lock._edit_key import EditKey
from keylatch.locks._model_lock._editor import Editor
from keylatch.locks._randomness import SEED_BYTES, SeededDraws
from keylatch.locks._report import EditReport, LockReport
from keylatch.locks._sealing import find_layers
from keylatch.locks._secret import LockSecret
from keylatch.locks._withheld._choice import Order
from keylatch.locks._withheld._seal import Sealed, seal_weights

_NETWORK = "network."  # what an `EditedNetwork` calls it


def model_lock(
    model: nn.Module,
    spec: InputSpec,
    editor: Editor,
    key: EditKey,
    *,
    sealed_share: float = 0.0,
    by: Order = "influence",
    seed: bytes | None = None,
) -> Locked:
    """Lock a network that was trained on images edited under a key, as `edit_tune` does.

    The editor, without its text encoder, becomes a part of the locked network; the key becomes its gate tensors. By
    itself this does not stop fine-tuning (docs/locks.md); weights that the file does not have do.

    Args:
        model: In evaluation mode; it is copied, not changed.
        spec: Size and value range of its images.
        editor: The editor.
        key: The key, made with this editor.
        sealed_share: Of the network's weights, 0 to 1: what is withheld beside the key, as `seal_lock` does it.
        by: How they are chosen, as for `seal_lock`; influence is measured behind the edit, on made images.
        seed: 32 bytes that the stand-ins and a random choice are drawn from; nothing secret follows from it; default
            fresh.

    Returns:
        The locked module, its secret and a report.

    Raises:
        LockError: If the key was made with another editor or for other images, the network does not care for it, or
            the share is no share.
    """
    if not 0 <= sealed_share <= 1:  # false for nan
        raise LockError(f"a sealed share of {sealed_share} is not between 0 and 1", hint="give e.g. 0.1, or 0 for none")
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
    images = images_for(spec, None).to(device)
    whole.edit.hold(key.values)
    with torch.no_grad():
        reference = [output.clone() for output in flat_tensors(whole(images[:CHECK_IMAGES]))]
    secret = LockSecret.of_edit(key)
    sealed = _sealed(module, secret, sealed_share, by, images, seed) if sealed_share else None
    if sealed is not None:
        secret = replace(secret, withheld=sealed.originals)
    errors = prove(module, secret, images[:CHECK_IMAGES], reference)
    report = EditReport(
        editor.kind, editor.digest, key.settings.steps, multiply_adds_of(graph) - multiply_adds,
        sum(value.numel() for value in key.values.values()),
    )  # fmt: skip
    parameters = sum(layer.parameters for layer in find_layers(plain))
    facts = LockReport((), 0, 0.0, multiply_adds, *errors, parameters, edit=report)
    if sealed is not None:
        facts = replace(facts, sealed_parameters=sealed.withheld, seal=sealed.report)
    return Locked(module, secret, facts)


def _sealed(
    module: LockedModule, secret: LockSecret, share: float, by: Order, images: torch.Tensor, seed: bytes | None
) -> Sealed:
    with module.opened(secret):
        keyed = copy.deepcopy(module.body)
    draws = SeededDraws(secrets.token_bytes(SEED_BYTES) if seed is None else seed, "sealed weights")
    return seal_weights(module, keyed, share, by, "weights", images, draws, source="made images", within=_NETWORK)
