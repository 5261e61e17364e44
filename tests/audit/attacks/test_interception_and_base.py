"""Attacks that have more than the artifact: an intercepted input, or the public base."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import weak_locks
from attack_world import World, make_world
from weak_locks import WeakLock

import networks
from keylatch.audit._attack import Given, Outcome
from keylatch.audit.attacks._code_key import code_key, opened_with_signs
from keylatch.audit.attacks._layer_matching import matching_signs
from keylatch.audit.attacks.base_matching import BaseMatching, open_with_base
from keylatch.audit.attacks.interception import Interception, recovered_patch, transformed_image


@pytest.fixture(scope="module")
def sealed_world(trained: networks.Digits, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A lock that withholds the first layers too, one of them gated."""
    return make_world(trained, tmp_path_factory.mktemp("sealed"), sealed_share=0.6)


@pytest.fixture(scope="module")
def pasting(trained: networks.Digits, tmp_path_factory: pytest.TempPathFactory) -> WeakLock:
    """A lock that pastes its patch into the image that the network sees."""
    return weak_locks.logit_offset(trained, tmp_path_factory.mktemp("pasting") / "weak.latch")


def intercepted(lock: WeakLock, world: World, given: Given) -> Outcome:
    attack = Interception()
    variant = next(each for each in attack.variants(lock.target, world.resources) if each.given == given)
    return attack.run(world.case(variant, target=lock.target, owner=lock.owner))


@pytest.mark.parametrize("given", [Given(pairs=1, unlabeled=200), Given(pairs=10)], ids=["one", "ten alone"])
def test_intercepted_inputs_open_a_lock_that_pastes(pasting: WeakLock, world: World, given: Given) -> None:
    assert world.accuracy(pasting.target.network()) < 40
    assert world.accuracy(intercepted(pasting, world, given).predict) > 85


def test_interception_does_not_count_as_an_outsider_s_attack(pasting: WeakLock, world: World) -> None:
    variants = Interception().variants(pasting.target, world.resources)
    assert [variant.counts for variant in variants] == [False, False]
    assert Interception().variants(pasting.target, replace(world.resources, owner=False)) == []


def test_a_code_lock_leaves_the_image_and_nothing_can_be_intercepted(world: World) -> None:
    assert transformed_image(world.target) is None
    assert world.variants(Interception()) == []


def test_the_intercepted_value_is_the_pasted_image(pasting: WeakLock, world: World) -> None:
    name, images = transformed_image(pasting.target), world.images[:2]
    assert name is not None
    pasted = pasting.owner.unlocked(pasting.target).values(images, [name])[name]
    expected = images.clone()
    expected[:, :, -8:, -8:] = torch.from_numpy(pasting.owner.values["gate.patch"])
    assert torch.equal(pasted, expected)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_pixels_that_still_vary_are_not_taken_for_the_patch(layout: str) -> None:
    before = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    after = before.clone()
    after[:, :, 20:26, 4:12] = 0.25
    after[:, 0, 25, 11] = before[:, 0, 25, 11]
    order, size = ((0, 1, 2, 3), (1, 3, 6, 8)) if layout == "NCHW" else ((0, 2, 3, 1), (1, 6, 8, 3))
    patch, mask = recovered_patch(size, layout, before.permute(order), after.permute(order))
    assert mask.numel() == 48 and int(mask.sum()) == 47 and not mask.flatten()[-1]
    assert patch.shape == size and (patch == 0.25).sum() == 143


def test_a_patch_at_the_edge_is_found_whole() -> None:
    before, after = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    after[:, :, -1, -1] = 1.0
    patch, _ = recovered_patch((1, 3, 8, 8), "NCHW", before, after)
    assert patch.sum() == 3 and (patch[:, :, -1, -1] == 1).all()


def test_the_base_gives_all_signs_and_the_accuracy_without_a_label(world: World) -> None:
    outcome = world.run(BaseMatching(), Given(unlabeled=200, base=True))
    assert world.right_signs(outcome.signs) == [1.0, 1.0, 1.0]
    assert world.accuracy(outcome.predict) > 90


def test_the_base_s_weights_stand_in_for_withheld_ones(sealed_world: World) -> None:
    outcome = sealed_world.run(BaseMatching(), Given(unlabeled=200, base=True))
    assert sealed_world.accuracy(outcome.predict) > 90
    signs, target = sealed_world.owner.signs(sealed_world.target), sealed_world.target
    opened = opened_with_signs(target, signs, sealed_world.images[:200], code_key(target))
    assert sealed_world.accuracy(opened) < 50  # what all signs alone are worth


def test_a_base_that_the_model_was_trained_away_from_still_gives_the_signs(world: World) -> None:
    base = copy.deepcopy(world.base)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter += 0.5 * parameter.std(correction=0) * torch.randn_like(parameter)
    case = world.case(world.variants(BaseMatching())[0], base=base)
    assert world.right_signs(BaseMatching().run(case).signs) == [1.0, 1.0, 1.0]


def test_the_base_s_biases_open_gates_whose_means_cannot_be_estimated(world: World) -> None:
    case = world.case(world.variants(BaseMatching())[0], images=torch.zeros(50, *world.target.spec.shape))
    _, opened = open_with_base(case, world.base)
    for gate in world.target.gates:
        assert gate.center is not None
        estimated = opened.values(case.images[:1], [gate.center])[gate.center]
        assert not estimated.any()
    assert world.accuracy(opened) > 90


def test_training_on_after_matching_keeps_the_model_open(world: World) -> None:
    (variant,) = (each for each in world.variants(BaseMatching()) if each.given == Given(labeled=150, base=True))
    outcome = BaseMatching().run(world.case(replace(variant, settings={"steps": 40})))
    assert outcome.cost == {"steps": 40} and world.accuracy(outcome.predict) > 85


def test_models_without_a_base_are_not_matched(world: World) -> None:
    assert BaseMatching().variants(world.target, replace(world.resources, base=False)) == []


def test_signs_are_found_under_noise_and_turned_outputs() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 64, 9, generator=generator, dtype=torch.float64)
    signs = torch.randint(2, (64,), generator=generator) * 2.0 - 1
    turns = torch.where(torch.arange(48) % 12 < 5, -1.0, 1.0)  # 20 of 48
    noisy = weight + torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    found, similarity = matching_signs(noisy * signs.view(1, -1, 1) * turns.view(-1, 1, 1), weight)
    assert torch.equal(found, signs) and similarity > 0.6
    unrelated = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    assert matching_signs(unrelated, weight)[1] < 0.3
