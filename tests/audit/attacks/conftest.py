"""A small network trained on handwritten digits, and locked models made of it; nobody changes them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import attack_world
import block_world
import pytest
import torch
from torch import nn

import networks
from keylatch.audit._attack import Attack, Case, Variant


@pytest.fixture(scope="session")
def trained() -> networks.Digits:
    """The network with images it has not seen, and their labels."""
    return networks.trained_digits()


@pytest.fixture(scope="session")
def digits(trained: networks.Digits) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, 3, 32, 32) float32 images and (n,) labels that the network has not seen."""
    return trained.images, trained.labels


@pytest.fixture(scope="session")
def trained_network(trained: networks.Digits) -> nn.Module:
    """A convolutional network with batch normalization, about 97 % right."""
    return trained.network


@pytest.fixture(scope="session")
def world(trained: networks.Digits, tmp_path_factory: pytest.TempPathFactory) -> attack_world.World:
    """The network with three gates, a code of 64 bits and means of unlabeled images."""
    return attack_world.make_world(trained, tmp_path_factory.mktemp("locked"))


@pytest.fixture(scope="session")
def locked_artifact(world: attack_world.World) -> Path:
    """The artifact's directory."""
    return world.target.path


@pytest.fixture(scope="session")
def case_for(world: attack_world.World) -> Callable[..., Case]:
    """Makes the case of an attack's variant (its first, by default) on the locked digits."""

    def make(attack: Attack, variant: Variant | None = None, **options: object) -> Case:
        return world.case(world.variants(attack)[0] if variant is None else variant, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory) -> block_world.Make:
    """Makes each of the models with a block transform once."""

    @functools.cache
    def make(name: str) -> attack_world.World:
        return block_world.MAKERS[name](tmp_path_factory.mktemp("blocks"))

    return make
