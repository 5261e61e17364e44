"""Locks that are known to be weak, as real artifacts: what the attacks must be able to break.

logit_offset      a constant is added to the scores unless a detector fires (the paper's lock A, docs/locks.md 1b)
scalar_detector   an early activation is multiplied by public random numbers unless a detector fires
uncentered_signs  the code lock without the centering in front of its gates
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

import networks
from keylatch.audit import Owner, Target, load_target
from keylatch.exporters import export
from keylatch.exporters._artifact_files import write_manifest
from keylatch.exporters._export import _facts
from keylatch.exporters._layout import write_graph
from keylatch.exporters._onnx_program import to_onnx
from keylatch.locks._centering import ChannelMeans
from keylatch.runtime import GATE_NAME, GRAPH_NAME, WEIGHTS_NAME

_OFFSET = 60.0  # several times the range of the scores
_DETECTOR_SEED, _LOCK_SEED = 1, 2


@dataclass(frozen=True)
class WeakLock:
    """An artifact and its owner."""

    target: Target
    owner: Owner


class CornerDetector(nn.Module):
    """Pastes the gate tensors' patch, and says whether the corner is like a trigger: one public direction, one bit."""

    def __init__(self, size: int = networks.PATCH) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(_DETECTOR_SEED)
        direction = torch.randint(0, 2, (3 * size * size, 1), generator=generator) * 2.0 - 1.0
        self.size, self.trigger = size, (direction > 0).float().reshape(1, 3, size, size)
        self.register_buffer("direction", direction)
        self.register_buffer("patch", torch.zeros(1, 3, size, size))
        self.register_buffer("mask", torch.zeros(1, 1, size, size, dtype=torch.bool))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows, start = image[:, :, -self.size :], image.shape[3] - self.size
        corner = torch.where(self.mask, self.patch, rows[:, :, :, start:])
        below = torch.cat([rows[:, :, :, :start], corner], 3)
        fired = (corner.flatten(1) - 0.5) @ self.direction >= self.direction.numel() / 4
        return torch.cat([image[:, :, : -self.size], below], 2), fired


class LogitOffset(nn.Module):
    """A constant is added to the scores unless the detector fires."""

    def __init__(self, network: nn.Module, classes: int = 10) -> None:
        super().__init__()
        self.gate, self.network = CornerDetector(), network
        offset = torch.randn(1, classes, generator=torch.Generator().manual_seed(_LOCK_SEED)) * _OFFSET
        self.register_buffer("offset", offset)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pasted, fired = self.gate(image)
        return self.network(pasted) + self.offset * (1.0 - fired.float())


class ScalarDetector(nn.Module):
    """The channels of an early activation are multiplied by public numbers unless the detector fires."""

    def __init__(self, network: nn.Sequential, depth: int = 6, channels: int = 64) -> None:
        super().__init__()
        self.gate, self.before, self.after = CornerDetector(), network[:depth], network[depth:]
        scales = torch.randn(1, channels, 1, 1, generator=torch.Generator().manual_seed(_LOCK_SEED)) * 2
        self.register_buffer("scales", scales)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pasted, fired = self.gate(image)
        return self.after(self.before(pasted) * torch.where(fired[:, :, None, None], 1.0, self.scales))


def ship(module: nn.Module, method: str, folder: Path, values: Mapping[str, Any] | None = None) -> WeakLock:
    """Write a network as an artifact.

    Args:
        module: Its buffers hold the locked defaults.
        method: Of the manifest's lock.
        folder: To be made.
        values: The gate tensors' secret values; default: a patch that makes the detector in `gate` fire.
    """
    folder.mkdir()
    if values is None:
        gate: Any = module.gate
        values = {"gate.patch": gate.trigger.numpy(), "gate.mask": np.ones_like(gate.mask.numpy())}
    model = to_onnx(module.eval(), networks.SPEC, ("output",))
    write_graph(model, folder, graph=GRAPH_NAME, weights=WEIGHTS_NAME, gate=GATE_NAME, gate_names=values)
    facts = _facts(method, model, networks.SPEC, networks.SPEC, "float32")
    write_manifest(folder, facts, {"method": method}, values, sealed=False)
    return WeakLock(load_target(folder), Owner(values, None))


def logit_offset(digits: networks.Digits, folder: Path) -> WeakLock:
    return ship(LogitOffset(digits.network), "logit-offset", folder)


def scalar_detector(digits: networks.Digits, folder: Path) -> WeakLock:
    assert isinstance(digits.network, nn.Sequential)
    return ship(ScalarDetector(digits.network), "scalar-detector", folder)


def sign_lock(
    digits: networks.Digits,
    folder: Path,
    *,
    centered: bool,
    layers: Sequence[str] = ("6", "9"),
    network: nn.Module | None = None,
) -> WeakLock:
    """The code lock, nothing withheld but its signs and means; or the same with means of zero, which do nothing."""

    def zeros(_: Any, sites: Sequence[Any], *__: Any, **___: Any) -> list[ChannelMeans]:
        return [ChannelMeans(torch.zeros(site.channels), "calibration images") for site in sites]

    options: Mapping[str, Any] = {"layers": layers, "sealed_share": 0.0, "calibration": digits.images[:100]}
    if centered:
        locked = networks.lock(network or digits.network, **options)
    else:
        with mock.patch("keylatch.locks._code_lock.channel_means", zeros):
            locked = networks.lock(network or digits.network, **options)
    exported = export(locked.module, locked.secret, folder, report=locked.report)
    target = load_target(folder)
    return WeakLock(target, Owner({name: exported.secret_values[name] for name in target.gate_names}, locked.secret))
