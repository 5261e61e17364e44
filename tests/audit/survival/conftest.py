"""Worlds that the survival tests share; nobody writes into them."""

from __future__ import annotations

import pytest
from survival_world import World, code_world, withheld_world

from keylatch.audit._clock import Clock
from keylatch.audit.survival import SurvivalRow, measure_survival


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return code_world(tmp_path_factory.mktemp("float32"), "float32")


@pytest.fixture(scope="session")
def withheld(tmp_path_factory: pytest.TempPathFactory) -> World:
    return withheld_world(tmp_path_factory.mktemp("withheld"))


@pytest.fixture(scope="session")
def rows(world: World) -> list[SurvivalRow]:
    return measure_survival(world.target, world.owner, world.images, Clock())
