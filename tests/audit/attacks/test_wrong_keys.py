"""The artifact as it is, and opened with keys that are not right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_world import World

from keylatch.audit._owner import Owner
from keylatch.audit.attacks.near_key import NearKey, _spoiled
from keylatch.audit.attacks.no_key import NoKey
from keylatch.audit.attacks.random_key import RandomKey, resampled
from keylatch.errors import InputError


def test_the_locked_network_guesses_and_the_owner_s_key_opens_it(world: World) -> None:
    assert world.accuracy(world.run(NoKey()).predict) < 30
    assert world.accuracy(world.owner.unlocked(world.target)) > 90


def test_no_key_runs_the_artifact_unchanged(world: World) -> None:
    images = world.images[:5]
    assert torch.equal(world.run(NoKey()).predict(images), world.target.network()(images))


def test_a_random_key_is_another_one_for_each_seed_and_opens_nothing(world: World) -> None:
    outcomes = [world.run(RandomKey(), seed=seed) for seed in (0, 1)]
    assert all(world.accuracy(outcome.predict) < 30 for outcome in outcomes)
    codes = [outcome.predict.values(world.images[:1], ["gate.patch"])["gate.patch"] for outcome in outcomes]  # type: ignore[attr-defined]
    assert not torch.equal(*codes)


def test_a_random_key_s_patch_is_in_force_and_its_means_are_those_of_the_network(world: World) -> None:
    outcome, gate = world.run(RandomKey()), world.target.gates[1]
    with torch.no_grad():
        values = outcome.predict.values(world.images[:200], ["gate.mask", gate.source, gate.center])  # type: ignore[attr-defined]
    assert values["gate.mask"].all()
    torch.testing.assert_close(values[gate.source].mean((0, 2, 3)), values[gate.center].flatten())


@pytest.mark.parametrize(
    "default",
    [
        torch.randperm(20),
        torch.rand(4, 5),
        torch.full((8,), 3.0),
        torch.tensor([True, False] * 20),
        torch.arange(9) % 3,
    ],
)
def test_resampled_tensors_are_of_the_same_kind_and_not_the_same(default: torch.Tensor) -> None:
    drawn = resampled(default, torch.Generator().manual_seed(0))
    assert drawn.dtype == default.dtype and drawn.shape == default.shape and not torch.equal(drawn, default)


def test_a_permutation_is_resampled_as_one() -> None:
    drawn = resampled(torch.arange(30), torch.Generator().manual_seed(0))
    assert torch.equal(drawn.sort().values, torch.arange(30))


def test_near_keys_of_a_code_differ_in_as_many_bits_as_they_say(world: World) -> None:
    counts = [variant.settings["wrong_bits"] for variant in world.variants(NearKey())]
    assert counts == [1, 3, 16]
    assert not any(variant.counts for variant in world.variants(NearKey()))


def test_a_key_with_no_wrong_bit_opens_and_one_with_a_quarter_wrong_does_not(world: World) -> None:
    (variant,) = (each for each in world.variants(NearKey()) if each.settings["wrong_bits"] == 16)
    right = world.case(variant)
    object.__setattr__(right, "variant", type(variant)(variant.given, settings={"wrong_bits": 0}))
    assert world.accuracy(NearKey().run(right).predict) > 90
    assert world.accuracy(NearKey().run(world.case(variant)).predict) < 30


def test_near_keys_need_the_owner(world: World) -> None:
    with pytest.raises(InputError, match="owner"):
        NearKey().run(world.case(world.variants(NearKey())[0], owner=None))


def test_a_share_of_a_secret_tensor_s_entries_becomes_the_locked_default_s(world: World) -> None:
    name = world.target.gates[0].center
    assert name is not None
    right = world.owner.values[name]
    spoiled = _spoiled(world.case(world.variants(NearKey())[0]), {name: right}, 0.25)[name]
    default = world.target.network().initializer(name).numpy()
    assert np.count_nonzero(spoiled != right) == round(0.25 * right.size)
    assert np.array_equal(spoiled[spoiled != right], default[spoiled != right])


def test_locks_without_a_code_have_near_keys_by_entries(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(world.target.manifest.lock, "method", "other")
    owner = Owner(world.owner.values, None)
    labels = [variant.given.key for variant in world.variants(NearKey())]
    assert labels == [f"a key with {share} of every gate tensor wrong" for share in (
        "one entry", "1% of the entries", "5% of the entries", "25% of the entries"
    )]  # fmt: skip
    last = world.case(world.variants(NearKey())[-1], owner=owner)
    assert world.accuracy(NearKey().run(last).predict) < 90
