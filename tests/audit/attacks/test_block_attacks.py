"""Attacks on block transforms, on small networks that are really trained."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import block_world
import numpy as np
import pytest
import torch
from attack_world import World
from block_world import Make, marked
from torch import nn

from keylatch.audit._attack import Attack, Given
from keylatch.audit._audit import _key_space
from keylatch.audit._owner import owner_from_vault, with_values
from keylatch.audit.attacks import ATTACKS
from keylatch.audit.attacks._block_key import Behind, block_key, block_values, pixels_of
from keylatch.audit.attacks.base_matching import BaseMatching
from keylatch.audit.attacks.block_feature_matching import BlockFeatureMatching
from keylatch.audit.attacks.block_key_gradient import BlockKeyGradient
from keylatch.audit.attacks.block_key_search import BlockKeySearch
from keylatch.audit.attacks.fine_tuning import FineTuning
from keylatch.audit.attacks.interception import Interception
from keylatch.audit.attacks.known_pair import KnownPair, recovered_transform
from keylatch.audit.attacks.near_block_key import NearBlockKey
from keylatch.audit.attacks.near_key import NearKey
from keylatch.audit.attacks.random_block_key import RandomBlockKey
from keylatch.audit.attacks.random_key import RandomKey
from keylatch.audit.attacks.stem_matching import StemMatching, match_stems
from keylatch.errors import InputError
from keylatch.keys import Vault
from keylatch.locks import BlockTransform, block_lock

BLOCK_ATTACKS: tuple[Attack, ...] = (
    RandomBlockKey(), NearBlockKey(), BlockKeySearch(), BlockKeyGradient(), BlockFeatureMatching(), StemMatching(),
    KnownPair(),
)  # fmt: skip
CHANCE = 100 / block_world.CLASSES
LONE = ["absorbed", "absorbed, bytes", "trained", "trained, bytes", "ffx", "ffx, bytes"]


def recovered(world: World, count: int = 1) -> BlockTransform:
    key = block_key(world.target)
    assert key is not None
    before = pixels_of(world.target.spec, world.images[:count])
    return recovered_transform(key, before, block_world.key_of(world).values(before))[0]


@pytest.mark.parametrize("name", marked(LONE))
def test_the_owner_s_key_opens_and_random_ones_guess(name: str, locked: Make) -> None:
    world = locked(name)
    assert world.accuracy(world.owner.unlocked(world.target)) > 70
    reached = [world.accuracy(world.run(RandomBlockKey(), seed=seed).predict) for seed in range(3)]
    assert max(reached) < 40 and sum(reached) / 3 < CHANCE + 15


@pytest.mark.parametrize("name", marked(LONE))
def test_a_guessed_key_fills_the_gate_as_the_owner_s_does(name: str, locked: Make) -> None:
    world = locked(name)
    values = block_values(world.target, block_world.key_of(world))
    assert values.keys() == world.owner.values.keys()
    for tensor, value in values.items():
        assert np.array_equal(value.numpy(), world.owner.values[tensor]), tensor


@pytest.mark.parametrize("name", marked(LONE))
def test_the_network_behind_the_gate_sees_what_the_opened_one_sees(name: str, locked: Make) -> None:
    world, images = locked(name), locked(name).images[:20]
    with torch.no_grad():
        expected = world.owner.unlocked(world.target)(images)
        found = Behind(world.target)(block_world.key_of(world).values(pixels_of(world.target.spec, images)))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_network_s_own_depth_to_space_is_not_taken_for_the_gate_s(tmp_path: Path) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 32, 4, 4), nn.PixelShuffle(2), nn.Conv2d(8, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    right = block_world.key(("shf", "np"), 4)
    lock = block_lock(network, block_world.SPEC, right, absorb=True)
    world, plain = block_world.shipped(lock, network, tmp_path), torch.rand(2, 3, 32, 32)
    assert "DepthToSpace" in {node.op for node in world.base.nodes}
    with torch.no_grad():
        found, expected = Behind(world.target)(right.values(plain)), Behind(world.target)(plain)
    assert found.shape == (2, 10) and not torch.allclose(found, expected)


def test_beside_a_code_a_random_key_is_one_of_both(locked: Make) -> None:
    world = locked("beside a code")
    names = ["blocks.permutation", "gate.mask"]
    with torch.no_grad():
        values = world.run(RandomKey()).predict.values(world.images[:1], names)  # type: ignore[attr-defined]
    order = values["blocks.permutation"]
    assert values["gate.mask"].all() and torch.equal(order.sort().values, torch.arange(48))
    assert not torch.equal(order, torch.arange(48))


@pytest.mark.parametrize("name", marked(["absorbed", "absorbed, bytes", "trained", "trained, bytes", "beside a code"]))
def test_one_pair_gives_the_whole_key_of_shf_and_np(name: str, locked: Make) -> None:
    world = locked(name)
    assert block_world.same_keys(recovered(world), block_world.key_of(world))


@pytest.mark.parametrize("name", marked(["trained", "trained, bytes", "absorbed", "ffx", "ffx, bytes"]))
def test_a_known_pair_opens_the_model_and_is_no_break(name: str, locked: Make) -> None:
    world = locked(name)
    assert [variant.counts for variant in world.variants(KnownPair())] == [False, False]
    opened = world.accuracy(world.owner.unlocked(world.target))
    assert world.accuracy(world.run(KnownPair(), Given(pairs=10)).predict) > opened - 3
    assert "never leave a Keylatch runtime" in KnownPair().summary


@pytest.mark.parametrize("name", marked(["ffx", "ffx, bytes"]))
def test_pairs_give_what_they_show_of_a_table(name: str, locked: Make) -> None:
    world = locked(name)
    pixels = torch.randint(256, (20, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found, right = recovered(world, 10), block_world.key_of(world)
    assert found.divisor == right.divisor
    assert torch.equal(found.values(pixels), right.values(pixels))
    note = world.run(KnownPair(), Given(pairs=1)).note
    seen = int(note.split()[0])
    assert 100 < seen < 256 and note == f"{seen} of 256 table entries were seen"


def test_a_pair_gives_the_key_but_not_the_code_beside_it(locked: Make) -> None:
    world = locked("beside a code")
    assert world.accuracy(world.run(KnownPair()).predict) < 40


@pytest.mark.parametrize("name", marked(["absorbed", "absorbed, bytes"]))
def test_an_absorbed_key_is_read_off_the_public_base(name: str, locked: Make) -> None:
    world = locked(name)
    match = match_stems(world.target, world.base)
    assert block_world.same_keys(match.transform, block_world.key_of(world)) and match.similarity > 0.999
    outcome = world.run(StemMatching(), Given(base=True))
    assert world.accuracy(outcome.predict) == world.accuracy(world.owner.unlocked(world.target))
    assert [variant.counts for variant in world.variants(StemMatching())] == [True]


def test_a_base_that_the_stem_was_trained_away_from_still_gives_the_key(locked: Make) -> None:
    world = locked("absorbed")
    base, generator = copy.deepcopy(world.base), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter += 0.1 * parameter.std(correction=0) * torch.randn(parameter.shape, generator=generator)
    match = match_stems(world.target, base)
    assert block_world.same_keys(match.transform, block_world.key_of(world)) and match.similarity < 0.999


@pytest.mark.parametrize("name", marked(["trained stem", "sealed"]))
def test_a_key_that_was_trained_in_or_whose_stem_is_withheld_is_not_read(name: str, locked: Make) -> None:
    world = locked(name)
    match = match_stems(world.target, world.base)
    right = (match.transform.permutation == block_world.key_of(world).permutation).double().mean()
    assert right < 0.2 and match.similarity < 0.7
    assert world.accuracy(world.run(StemMatching()).predict) < 40


def test_a_code_beside_an_absorbed_key_is_read_off_the_base_too(locked: Make) -> None:
    world = locked("beside a code")
    outcome = world.run(StemMatching())
    assert world.right_signs(outcome.signs) == [1.0, 1.0] and world.accuracy(outcome.predict) > 90
    assert world.accuracy(world.run(BaseMatching()).predict) < 40  # which does not know of the stem


def test_base_matching_takes_a_withheld_stem_from_the_base_and_needs_no_key(locked: Make) -> None:
    world = locked("sealed")
    assert world.accuracy(world.run(BaseMatching()).predict) > 90


def test_a_network_without_a_patchify_stem_is_not_matched(locked: Make) -> None:
    assert locked("trained").variants(StemMatching()) == []
    absorbed = locked("absorbed")
    assert list(StemMatching().variants(absorbed.target, replace(absorbed.resources, base=False))) == []


@pytest.mark.parametrize("name", marked(["trained", "ffx", "ffx, bytes"]))
def test_near_keys_degrade_with_their_wrong_entries(name: str, locked: Make) -> None:
    world = locked(name)
    variants = world.variants(NearBlockKey())
    assert [dict(variant.settings) for variant in variants] == [{"wrong_entries": 2}, {"wrong_entries": 4}]
    assert not any(variant.counts for variant in variants)
    runs = [[NearBlockKey().run(world.case(variant, seed=seed)).predict for seed in range(4)] for variant in variants]
    few, many = (sum(map(world.accuracy, predicts)) / 4 for predicts in runs)
    assert world.accuracy(world.owner.unlocked(world.target)) > few > many


def test_a_near_key_is_the_key_but_for_as_many_entries_as_it_says(locked: Make) -> None:
    world = locked("trained, bytes")
    counts = [variant.settings["wrong_entries"] for variant in world.variants(NearBlockKey())]
    assert counts == [2, 4, 12]
    near = NearBlockKey().run(world.case(world.variants(NearBlockKey())[-1])).predict
    with torch.no_grad():
        values = near.values(world.images[:1], list(world.owner.values))  # type: ignore[attr-defined]
    wrong = {name: int((values[name].numpy() != right).sum()) for name, right in world.owner.values.items()}
    assert wrong == {"blocks.permutation": 12, "blocks.inversion": 12}


def test_near_keys_are_judged_by_the_key_space_of_what_locks(locked: Make) -> None:
    setting, space = _key_space(locked("trained, bytes").target)
    assert (setting, space.unit, space.size) == ("wrong_entries", "entries", 48)
    assert -space.log2_chance(0) == pytest.approx(block_world.key_of(locked("trained, bytes")).log2_key_space)
    setting, space = _key_space(locked("beside a code").target)
    assert (setting, space.unit, -space.log2_chance(0)) == ("wrong_bits", "bits", space.size)


def test_beside_a_code_near_keys_have_the_right_code(locked: Make) -> None:
    world = locked("beside a code")
    assert world.accuracy(NearBlockKey().run(world.case(world.variants(NearBlockKey())[0])).predict) > 80


def test_near_keys_and_pairs_need_the_owner(locked: Make) -> None:
    world = locked("trained")
    for attack in (NearBlockKey(), KnownPair()):
        variant = world.variants(attack)[0]
        with pytest.raises(InputError, match="owner"):
            attack.run(world.case(variant, owner=None))
        assert list(attack.variants(world.target, replace(world.resources, owner=False))) == []


def test_a_lock_without_blocks_has_no_variants(world: World) -> None:
    assert [attack.name for attack in BLOCK_ATTACKS if world.variants(attack)] == []


def test_only_what_applies_to_a_block_transform_has_variants(locked: Make) -> None:
    named = {attack.name for attack in ATTACKS if locked("absorbed").variants(attack)}
    assert not locked("trained").variants(Interception())  # whose transformed image stands in the graph
    assert {attack.name for attack in BLOCK_ATTACKS} | {"no-key", "fine-tune-last", "fine-tune-all"} <= named
    assert not named & {attack.name for attack in (RandomKey(), NearKey(), Interception(), BaseMatching())}
    beside = {attack.name for attack in ATTACKS if locked("beside a code").variants(attack)}
    assert {"random-key", "near-key", "near-block-key", "known-pair", "stem-matching", "block-key-search"} <= beside
    assert not beside & {"random-block-key", "block-key-gradient", "interception"}


@pytest.mark.parametrize("name", marked(["absorbed", "ffx"]))
def test_fine_tuning_trains_a_network_behind_a_block_transform(name: str, locked: Make) -> None:
    world = locked(name)
    (variant,) = (each for each in world.variants(FineTuning("all")) if each.given.labeled == 150)
    outcome = FineTuning("all").run(world.case(variant))
    assert world.accuracy(outcome.predict) > world.accuracy(world.target.network()) + 20
    assert not world.variants(FineTuning("gates"))
    trained = {name for name, _ in outcome.predict.named_parameters()}  # type: ignore[attr-defined]
    keyed = [tensor.replace(".", "%2E") for tensor in world.target.gate_names]
    assert trained and not any(tensor in name for tensor in keyed for name in trained)


def test_the_vault_gives_the_owner_s_block_key(locked: Make) -> None:
    world = locked("trained")
    assert world.owner.secret is not None
    vault = Vault({"lock": world.owner.secret.to_arrays(), world.target.model_id: dict(world.owner.values)})
    owner = owner_from_vault(vault, world.target)
    assert owner.secret is not None and owner.secret.blocks is not None
    assert block_world.same_keys(owner.secret.blocks, block_world.key_of(world)) and owner.signs(world.target) == ()
    opened = with_values(world.target, owner.values)
    assert world.accuracy(opened) == world.accuracy(world.owner.unlocked(world.target))
