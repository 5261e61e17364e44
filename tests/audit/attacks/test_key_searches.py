"""Searches for a key find it where a lock is weak: a short code, or signs that are linear thresholds of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from attack_world import World, fan_in, least_bits, make_world

import networks
from keylatch.audit._attack import Attack, Outcome
from keylatch.audit._centers import estimate_centers
from keylatch.audit.attacks import key_gradient, key_hill_climbing
from keylatch.audit.attacks._code_key import code_key, opened_with_signs
from keylatch.audit.attacks._sign_search import SignObjective, information_loss
from keylatch.audit.attacks.key_gradient import KeyGradient, relaxed_signs
from keylatch.audit.attacks.key_hill_climbing import KeyHillClimbing
from keylatch.audit.attacks.trigger_inversion import TriggerInversion, as_input, find_pasted

BITS = 16


@pytest.fixture(scope="module")
def weak(trained: networks.Digits, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A lock with a short code, whose signs are single thresholds of it."""
    with fan_in(1), least_bits(BITS):
        return make_world(trained, tmp_path_factory.mktemp("weak"), code_bits=BITS)


@pytest.fixture
def linear(weak: World) -> Iterator[World]:
    """The weak lock, and its public map while a test attacks it."""
    with fan_in(1):
        yield weak


def attack(world: World, method: Attack, labeled: bool, **settings: int) -> Outcome:
    (variant,) = (each for each in world.variants(method) if bool(each.given.labeled) is labeled)
    return method.run(world.case(replace(variant, settings=settings), seconds=120))


def wrong_bits(world: World, code: torch.Tensor) -> int:
    secret = world.owner.secret
    assert secret is not None
    return int((code != secret.code).sum())


def right_signs(world: World) -> Sequence[torch.Tensor]:
    return world.owner.signs(world.target)


@pytest.mark.parametrize("labeled", [True, False])
def test_hill_climbing_opens_a_weak_lock(linear: World, labeled: bool) -> None:
    outcome = attack(linear, KeyHillClimbing(), labeled, queries=500)
    assert linear.accuracy(outcome.predict) > 80


def test_hill_climbing_mends_one_wrong_bit(world: World) -> None:
    key, secret = code_key(world.target), world.owner.secret
    assert key is not None and secret is not None
    objective = SignObjective(world.target, world.images[:60], world.labels[:60])
    everything = torch.arange(60)

    def loss(code: torch.Tensor) -> float:
        with torch.no_grad():
            return float(objective(key.signs(code), everything))

    start = secret.code.float()
    start[5] *= -1
    case = world.case(world.variants(KeyHillClimbing())[0])
    found = key_hill_climbing.climb(loss, start, case.generator, case.clock, 200)
    assert wrong_bits(world, found.code) == 0 and found.loss < loss(start) / 2


def test_the_gradient_leads_a_random_code_to_the_right_one(linear: World) -> None:
    key = code_key(linear.target)
    assert key is not None
    case = linear.case(linear.variants(KeyGradient())[-1])
    objective = SignObjective(linear.target, case.images, case.labels)
    starts = [torch.randn(key.bits, generator=case.generator) * 0.5 for _ in range(4)]  # not every one leads there
    found = [key_gradient.descend(key, objective, start, case.generator, case.clock, 80) for start in starts]
    best = min(range(4), key=lambda each: found[each].loss)
    assert wrong_bits(linear, torch.where(starts[best] >= 0, 1, -1)) >= 5
    assert wrong_bits(linear, found[best].code) <= 2


def test_gradient_search_opens_a_weak_lock(linear: World) -> None:
    outcome = attack(linear, KeyGradient(), labeled=False, steps=60, restarts=2, queries=60)
    assert linear.accuracy(outcome.predict) > 80


def test_trigger_inversion_opens_a_weak_lock(linear: World) -> None:
    outcome = attack(linear, TriggerInversion(), labeled=True, steps=60, restarts=1)
    assert linear.accuracy(outcome.predict) > 80


@pytest.mark.slow
@pytest.mark.parametrize("method", [KeyHillClimbing(), KeyGradient(), TriggerInversion()], ids=lambda each: each.name)
@pytest.mark.parametrize("labeled", [True, False])
def test_no_search_finds_a_whole_code(world: World, method: Attack, labeled: bool) -> None:
    outcome = attack(world, method, labeled, steps=100, restarts=2, queries=300)
    assert world.accuracy(outcome.predict) < 30


@pytest.mark.parametrize("method", [KeyHillClimbing(), KeyGradient(), TriggerInversion()], ids=lambda each: each.name)
def test_an_expired_clock_ends_a_search_with_what_it_has(world: World, method: Attack) -> None:
    outcome = method.run(world.case(world.variants(method)[0], seconds=0))
    assert outcome.truncated
    assert outcome.predict(world.images[:2]).shape == (2, 10)


def test_relaxed_signs_are_the_code_s_own_and_have_slopes(world: World) -> None:
    key = code_key(world.target)
    assert key is not None
    code = torch.randn(key.bits, generator=torch.Generator().manual_seed(0)).requires_grad_()
    signs = relaxed_signs(key, code)
    assert torch.equal(signs.detach().round(), key.gate.code_map.signs(torch.where(code >= 0, 1.0, -1.0)))
    (slope,) = torch.autograd.grad(signs[0], [code])
    assert slope.abs().sum() > 0


def test_a_search_s_loss_is_that_of_the_network_it_opens(world: World) -> None:
    images, labels = world.images[:64], world.labels[:64]
    loss = SignObjective(world.target, images, labels)(right_signs(world), torch.arange(64))
    opened = opened_with_signs(world.target, right_signs(world), images, code_key(world.target))
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(opened(images), labels)
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-3)


def test_centers_are_means_of_the_sources_as_they_are_then(world: World) -> None:
    network = world.owner.unlocked(world.target)
    gate = world.target.gates[-1]
    assert gate.center is not None
    estimate_centers(network, world.target.gates, world.images[:70])
    with torch.no_grad():
        values = network.values(world.images[:70], [gate.source, gate.center])
    torch.testing.assert_close(values[gate.source].mean(0, keepdim=True), values[gate.center])


def test_deciding_on_one_class_is_not_rewarded() -> None:
    decided = torch.eye(4).repeat(3, 1) * 20
    collapsed = torch.eye(4)[:1].repeat(12, 1) * 20
    assert float(information_loss(decided)) < -1.3
    assert float(information_loss(collapsed)) == pytest.approx(0, abs=1e-3)
    assert float(information_loss(torch.zeros(12, 4))) == pytest.approx(0, abs=1e-6)


def test_the_patch_and_its_mask_are_found_in_the_graph(world: World) -> None:
    pasted = find_pasted(world.target)
    assert pasted is not None and (pasted.patch, pasted.mask) == ("gate.patch", "gate.mask")


def test_searched_pixels_are_bytes_in_the_input_s_convention(world: World) -> None:
    values = as_input(world.target, torch.rand(1, 3, 8, 8)) * 255
    torch.testing.assert_close(values, values.round())
