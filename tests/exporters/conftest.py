"""Artifacts that the exporter tests share; nobody writes into them."""

from __future__ import annotations

import pytest
from artifacts import Artifact, make_artifact

import networks


@pytest.fixture(scope="session")
def digits() -> networks.Digits:
    return networks.trained_digits()


@pytest.fixture(scope="session")
def locked_digits(digits: networks.Digits) -> networks.Locked:
    # Two of the three gated inputs have 64 channels: equal shapes must not become one tensor.
    return networks.lock(digits.network, layers=["6", "9", "14"])


@pytest.fixture(scope="session")
def artifact(locked_digits: networks.Locked, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_artifact(locked_digits, tmp_path_factory.mktemp("float32") / "digits.latch")


@pytest.fixture(scope="session")
def half_artifact(locked_digits: networks.Locked, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_artifact(locked_digits, tmp_path_factory.mktemp("half") / "digits.latch", precision="float16")


@pytest.fixture(scope="session")
def byte_artifact(locked_digits: networks.Locked, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_artifact(locked_digits, tmp_path_factory.mktemp("bytes") / "digits.latch", uint8_input=True)
