"""Audit: attack your own locked model before you ship it.

    _audit             an audit from end to end
    _scene             what it works on, checked
    _target            the locked model, as an outsider has it
    _gates             where its lock meets the network
    _owner             what its owner alone knows
    _images            labeled images, and their split
    _attack            what an attack is
    _draw              what an attacker is given
    _training          the one training loop
    _centers           what a gate subtracts, estimated
    _baselines         what somebody gets without the locked weights
    _scratch           the same architecture with fresh weights
    _public_base       a public network with a fresh last layer
    _linear_layers     linear layers and their weights
    _probe             linear classifiers on what a network computes inside
    _plan              which measurements, in which order
    _timetable         the time, shared out
    _runner            one measurement after the other
    _clock             a time limit
    _threads           how many threads to compute with
    _allocator         memory that PyTorch frees, kept
    _cells             results of single measurements, kept
    _files             files written whole
    _survival          what changes of the model do, beside attacks
    _tally             from measurements to rows
    _verdict           the rules by which they are judged
    _result            the result, and its JSON
    _machine           where it ran
    onnx_network       ONNX graphs as trainable modules
    attacks            the attacks
    survival           the changes
    report             the result as a page

Nothing but the command and benchmarks imports it.
"""

from __future__ import annotations

from keylatch.errors import MissingExtraError

try:
    import onnx as _onnx  # noqa: F401
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError("auditing", error.name or "torch", "export") from None

from keylatch.audit._allocator import keep_freed_memory
from keylatch.audit._attack import Attack, Case, Given, Outcome, Resources, Variant
from keylatch.audit._audit import LEAST_SEEDS, AuditOptions, run_audit
from keylatch.audit._clock import Clock
from keylatch.audit._files import write_text_whole
from keylatch.audit._images import LEAST_EVALUATION, AuditImages, LabeledImages, check_images, split_images
from keylatch.audit._owner import Owner, owner_from_vault
from keylatch.audit._result import FORMAT, AuditResult
from keylatch.audit._runner import Watch
from keylatch.audit._scene import PlainNetwork, Scene, load_plain, require_locked
from keylatch.audit._survival import Survival
from keylatch.audit._target import Target, load_target

__all__ = [
    "FORMAT",
    "LEAST_EVALUATION",
    "LEAST_SEEDS",
    "Attack",
    "AuditImages",
    "AuditOptions",
    "AuditResult",
    "Case",
    "Clock",
    "Given",
    "LabeledImages",
    "Outcome",
    "Owner",
    "PlainNetwork",
    "Resources",
    "Scene",
    "Survival",
    "Target",
    "Variant",
    "Watch",
    "check_images",
    "keep_freed_memory",
    "load_plain",
    "load_target",
    "owner_from_vault",
    "require_locked",
    "run_audit",
    "split_images",
    "write_text_whole",
]
