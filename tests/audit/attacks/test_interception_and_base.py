"""Attacks that have more than the artifact: an intercepted input, or the public base."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from attack_world import World, make_world

import networks
from keylatch.audit._attack import Given
from keylatch.audit.attacks._layer_matching import matching_signs
from keylatch.audit.attacks.base_matching import BaseMatching, open_with_base
from keylatch.audit.attacks.interception import Interception, recovered_patch, transformed_image


@pytest.fixture(scope="module")
def sealed_world(trained: networks.Digits, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A lock that withholds the first layers too, one of them gated."""
    return make_world(trained, tmp_path_factory.mktemp("sealed"), sealed_share=0.6)


def test_one_intercepted_input_gives_all_signs_and_the_accuracy(world: World) -> None:
    outcome = world.run(Interception(), Given(pairs=1, unlabeled=200))
    assert world.right_signs(outcome.signs) == [1.0, 1.0, 1.0]
    assert world.accuracy(outcome.predict) > 90


def test_intercepted_inputs_alone_are_enough(world: World) -> None:
    assert world.accuracy(world.run(Interception(), Given(pairs=10)).predict) > 80


def test_interception_does_not_count_as_an_outsider_s_attack(world: World) -> None:
    assert [variant.counts for variant in world.variants(Interception())] == [False, False]
    assert Interception().variants(world.target, replace(world.resources, owner=False)) == []


def test_the_intercepted_value_is_the_pasted_image(world: World) -> None:
    name, images = transformed_image(world.target), world.images[:2]
    assert name is not None
    secret = world.owner.secret
    assert secret is not None
    pasted = world.owner.unlocked(world.target).values(images, [name])[name]
    expected = networks.paste((images * 255).round().to(torch.uint8), secret.patch).float() / 255
    torch.testing.assert_close(pasted[:, :, -8:, -8:], expected[:, :, -8:, -8:])
    assert torch.equal(pasted[:, :, :-8], images[:, :, :-8])


def test_pixels_that_still_vary_are_not_taken_for_the_patch(world: World) -> None:
    before = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    after = before.clone()
    after[:, :, -8:-4, -8:] = 0.25
    patch, mask = recovered_patch(world.target, before, after)
    assert mask.shape == (1, 1, 8, 8) and mask[0, 0, :4].all() and not mask[0, 0, 4:].any()
    assert (patch[:, :, :4] == 0.25).all()


def test_the_base_gives_all_signs_and_the_accuracy_without_a_label(world: World) -> None:
    outcome = world.run(BaseMatching(), Given(unlabeled=200, base=True))
    assert world.right_signs(outcome.signs) == [1.0, 1.0, 1.0]
    assert world.accuracy(outcome.predict) > 90


def test_the_base_s_weights_stand_in_for_withheld_ones(sealed_world: World) -> None:
    outcome = sealed_world.run(BaseMatching(), Given(unlabeled=200, base=True))
    assert sealed_world.accuracy(outcome.predict) > 90
    assert sealed_world.accuracy(sealed_world.run(Interception()).predict) < 50  # what a patch alone is worth


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
