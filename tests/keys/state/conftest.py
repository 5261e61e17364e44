"""A device with a state, without and with a counter."""

from __future__ import annotations

from pathlib import Path

import pytest
from license_world import World
from state_world import StateWorld, make_state


@pytest.fixture
def device(world: World, tmp_path: Path) -> StateWorld:
    return make_state(world, tmp_path)


@pytest.fixture
def counted(world: World, tmp_path: Path) -> StateWorld:
    return make_state(world, tmp_path, with_counter=True)
