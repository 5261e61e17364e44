"""The one fixture of these tests."""

from __future__ import annotations

import pytest
from license_world import World

from keylatch.keys import FileDeviceKey, FileIssuerKey


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    directory = tmp_path_factory.mktemp("keys")
    return World(
        issuer=FileIssuerKey.generate(),
        foreign_issuer=FileIssuerKey.generate(),
        device=FileDeviceKey.generate(directory / "device.key"),
        foreign_device=FileDeviceKey.generate(directory / "foreign.key"),
        device_path=directory / "device.key",
    )
