"""One tiny locked model for all these tests, and a copy of it for each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from clocks import Clocks
from runtime_world import LockedModel

from keylatch.keys import FileDeviceKey, FileIssuerKey, _clock, current_time
from keylatch.runtime import _session
from tools import folder_with_leases


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> LockedModel:
    """Read only: tests that write take `model`."""
    import torch
    from torch import nn

    from keylatch.exporters import export
    from keylatch.locks import InputSpec, code_lock, sample_images

    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU(), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(24 * 8 * 8, 80)).eval()
    spec = InputSpec(3, 32, 32)
    locked = code_lock(network, spec, patch_size=8, minimum_channels=16, seed=bytes(32), sealed_share=0)
    folder = tmp_path_factory.mktemp("made")
    exported = export(locked.module, locked.secret, folder / "tiny.latch")
    images = spec.from_pixels(sample_images(3, 3, 32, 32))
    with torch.no_grad():
        wrong = locked.module(images).numpy()
        with locked.module.opened(locked.secret):
            right = locked.module(images).numpy()
    return LockedModel(
        path=exported.path,
        model_id=exported.model_id,
        section=dict(exported.secret_values),
        defaults={name: tensor.numpy().copy() for name, tensor in locked.module.gate_tensors().items()},
        images=images.numpy(),
        keyed=right,
        locked=wrong,
        issuer=FileIssuerKey.generate(),
        foreign_issuer=FileIssuerKey.generate(),
        device=FileDeviceKey.generate(folder / "device.key"),
        foreign_device=FileDeviceKey.generate(folder / "foreign.key"),
    )


@pytest.fixture
def model(made: LockedModel, tmp_path: Path) -> LockedModel:
    """A copy that a test may damage."""
    path = tmp_path / "tiny.latch"
    shutil.copytree(made.path, path)
    return replace(made, path=path)


@pytest.fixture
def leases(tmp_path: Path) -> Iterator[Path]:
    """A folder whose file system grants leases."""
    with folder_with_leases(tmp_path) as folder:
        yield folder


@pytest.fixture
def leased(made: LockedModel, leases: Path) -> LockedModel:
    """A copy there."""
    path = leases / "leased.latch"
    shutil.copytree(made.path, path)
    return replace(made, path=path)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """Clocks that a test sets, in the place of the machine's."""
    clocks = Clocks(wall=float(current_time()))
    monkeypatch.setattr(_clock, "_read_clock", clocks.read)
    monkeypatch.setattr(_session, "_now", clocks.read)
    return clocks
