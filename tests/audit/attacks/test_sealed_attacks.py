"""Sealed weights under attack: the places are public, so attacks find them and train them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from attack_world import World

import networks
from keylatch.audit import Owner, load_target
from keylatch.audit._attack import Given
from keylatch.audit.attacks._all_weights import all_weights
from keylatch.audit.attacks._withheld import withheld_weights
from keylatch.audit.attacks.fine_tuning import FineTuning
from keylatch.audit.attacks.no_key import NoKey
from keylatch.audit.attacks.zero_refill import ZeroRefill, _withheld
from keylatch.audit.onnx_network import load_onnx_network
from keylatch.exporters import export, export_plain
from keylatch.locks import Locked, seal_lock


@pytest.fixture(scope="module")
def sealed(trained: networks.Digits, tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Locked]:
    folder = tmp_path_factory.mktemp("sealed")
    locked = seal_lock(trained.network, networks.SPEC, share=0.05, seed=bytes(32))
    exported = export(locked.module, locked.secret, folder / "digits.latch", report=locked.report)
    export_plain(trained.network, networks.SPEC, folder / "plain")
    target = load_target(folder / "digits.latch")
    values = {name: exported.secret_values[name] for name in target.gate_names}
    base = load_onnx_network(Path(folder / "plain" / "model.onnx"))
    return World(target, Owner(values, locked.secret), trained.images, trained.labels, base), locked


def test_withheld_places_are_found_in_the_graph(sealed: tuple[World, Locked]) -> None:
    world, locked = sealed
    image = torch.zeros(1, *world.target.spec.shape)
    found = _withheld(world.target.network().float(), world.target, image)
    assert sorted(int(places.sum()) for places in found.values()) == sorted(
        part.weights for part in locked.module.withheld.parts
    )
    assert withheld_weights(world.target) == locked.module.withheld.names()


def test_all_weights_are_trained_with_the_withheld_ones(sealed: tuple[World, Locked]) -> None:
    world, locked = sealed
    network = world.target.network().float()
    trained = {value.numel() for value in all_weights(network, world.target)}
    assert {part.weights for part in locked.module.withheld.parts} <= trained


def test_refilling_trains_the_withheld_places_alone(sealed: tuple[World, Locked]) -> None:
    world, _ = sealed
    outcome = world.run(ZeroRefill(), Given(labeled=world.variants(ZeroRefill())[0].given.labeled))
    before, after = world.target.network().state_dict(), outcome.predict.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert world.accuracy(outcome.predict) > world.accuracy(world.run(NoKey()).predict) + 10


def test_fine_tuning_runs_on_a_network_without_gates(sealed: tuple[World, Locked]) -> None:
    world, _ = sealed
    assert not world.target.gates
    assert world.accuracy(world.run(FineTuning("all")).predict) > world.accuracy(world.run(NoKey()).predict)


def test_the_owner_s_values_open_it(sealed: tuple[World, Locked], trained: networks.Digits) -> None:
    world, _ = sealed
    unlocked = world.owner.unlocked(world.target)
    with torch.no_grad():
        expected = trained.network(trained.images[:20])
        assert networks.relative_error(unlocked(trained.images[:20]), expected) < 1e-4
