"""What the tests of detector locks share: a small classifier under both locks, made once."""

from __future__ import annotations

import functools
from typing import Any

import torch

import networks
from keylatch.locks import Locked, detector_lock
from keylatch.locks._detector._features import graph_until
from keylatch.locks._detector_lock._excitation import ROWS

SEED = bytes(range(32))
RATE = 1e-2  # a small network has narrow layers; the bound is checked all the same
CALIBRATION = 32


@functools.cache
def locked_digits(kind: str) -> Locked:
    """The digits classifier under one of the two locks; do not change it."""
    digits = networks.trained_digits()
    return detector_lock(
        digits.network, networks.SPEC, kind=kind, patch_size=networks.PATCH, calibration=digits.images[:CALIBRATION],
        rate=RATE, seed=SEED,
    )  # fmt: skip


def patched(locked: Locked, images: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1] with the secret patch in their corner; pasted here, not by the library."""
    return networks.paste(images, locked.secret.patch.float() / 255)


def opened_outputs(locked: Locked, images: torch.Tensor, module: Any = None) -> torch.Tensor:
    """What the opened lock answers."""
    module = locked.module if module is None else module
    with module.opened(locked.secret):
        return networks.outputs_of(module, images)


def with_noise(locked: Locked, module: Any, share: float) -> Any:
    """Let the detector answer the patch with more or less than D, by a share of D."""
    report = locked.report.detector
    assert report is not None
    state = module.body.state_dict()
    bias = state["detector_bias" if report.kind == "A" else "squeeze_bias"]
    row = 0 if report.kind == "A" else detector_row(module)
    bias[row] += share * report.drive
    return module


def without_clamp(locked: Locked, module: Any) -> Any:
    """The plain lock: what cancels is proportional to the response, and exact for the mean one."""
    report = locked.report.detector
    assert report is not None
    (clamp,) = module.body.graph.find_nodes(op="call_function", target=torch.ops.aten.clamp.default)
    clamp.args = (clamp.args[0], 0.0)
    module.body.recompile()
    state = module.body.state_dict()
    if report.kind == "A":
        state["detector_back_0"] /= report.drive
    else:
        state["excite_weight_0"][:, detector_row(module)] /= report.drive
    return module


def answers_to(locked: Locked, images: torch.Tensor) -> torch.Tensor:
    """What the detector answers images, after the clamp: (N,)."""
    body = locked.module.body
    (clamp,) = body.graph.find_nodes(op="call_function", target=torch.ops.aten.clamp.default)
    answers = networks.outputs_of(graph_until(body, clamp), images)
    return answers[:, 0 if answers.shape[1] == 1 else detector_row(locked.module)]


def detector_row(module: Any) -> int:
    """Which of the squeeze's rows is the detector: the one with a column that opens."""
    columns = module.body.state_dict()["excite_weight_0"].abs().sum(0)
    assert len(columns) == ROWS
    return int(columns.argmax())
