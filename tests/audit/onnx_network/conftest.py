"""Artifacts that the tests of ONNX networks share; nobody writes into them."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx_graphs import LockedFiles

import networks
from keylatch.exporters import Exported, export, export_plain


@pytest.fixture(scope="session")
def locked() -> networks.Locked:
    return networks.lock(networks.settle(networks.PaddedConvs), layers=["3", "6", "11"])


@pytest.fixture(scope="session")
def artifact(locked: networks.Locked, tmp_path_factory: pytest.TempPathFactory) -> LockedFiles:
    """A locked network as its owner ships it."""
    exported: Exported = export(locked.module, locked.secret, tmp_path_factory.mktemp("locked") / "tiny.latch")
    values = {name: value for name, value in exported.secret_values.items() if not name.startswith("known_answer.")}
    return LockedFiles(exported.path / "model.onnx", values)


@pytest.fixture(scope="session")
def half_artifact(locked: networks.Locked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("half") / "tiny.latch"
    return export(locked.module, locked.secret, path, precision="float16").path / "model.onnx"


@pytest.fixture(scope="session")
def byte_artifact(locked: networks.Locked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bytes") / "tiny.latch"
    return export(locked.module, locked.secret, path, uint8_input=True).path / "model.onnx"


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain network: convolutions with batch normalization before them."""
    path = tmp_path_factory.mktemp("plain") / "plain"
    return export_plain(networks.settle(networks.PreActivation), networks.SPEC, path)
