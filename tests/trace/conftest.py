"""A marked model that the tests of tracing share; nobody writes into it."""

from __future__ import annotations

import pytest
from trace_world import MarkedModel, marked_model

import networks
from keylatch.exporters import export


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> MarkedModel:
    digits = networks.trained_digits()
    locked = networks.lock(digits.network, layers=["14"], sealed_share=0.4)
    path = tmp_path_factory.mktemp("marked") / "digits.latch"
    return marked_model(export(locked.module, locked.secret, path, fingerprint=True), digits)
