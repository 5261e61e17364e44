"""Searches for a block transform's key, by queries and by gradient, on small networks that are really trained."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import block_world
import pytest
import torch
from attack_world import World
from block_world import Make, marked

from keylatch.audit._attack import Attack, Outcome
from keylatch.audit.attacks import block_key_search
from keylatch.audit.attacks._assignment import greedy_assignment
from keylatch.audit.attacks._block_key import block_key
from keylatch.audit.attacks.block_feature_matching import BlockFeatureMatching
from keylatch.audit.attacks.block_key_gradient import BlockKeyGradient, RelaxedKey, sinkhorn
from keylatch.audit.attacks.block_key_search import BlockKeySearch
from keylatch.audit.attacks.stem_matching import StemMatching
from keylatch.errors import InputError


def shortened(world: World, attack: Attack, **settings: int) -> Outcome:
    (variant,) = world.variants(attack)
    return attack.run(world.case(replace(variant, settings={**variant.settings, **settings})))


def test_the_search_climbs_from_chance_where_blocks_are_small(locked: Make) -> None:
    world = locked("trained")
    outcome = shortened(world, BlockKeySearch(), sweeps=3)
    start, reached = (float(part.strip("%")) for part in outcome.note.split()[1:4:2])
    assert reached >= start + 40
    assert world.accuracy(outcome.predict) > 60 and outcome.cost == {"queries": 1 + 3 * (66 + 12)}


def test_beside_a_closed_code_the_search_finds_nothing(locked: Make) -> None:
    world = locked("beside a code")
    outcome = shortened(world, BlockKeySearch(), sweeps=1, queries=150)
    assert outcome.cost == {"queries": 150} and world.accuracy(outcome.predict) < 35


def test_the_search_s_moves_are_all_exchanges_and_all_flips(locked: Make) -> None:
    key = block_key(locked("ffx").target)
    assert key is not None
    start = key.random(torch.Generator().manual_seed(0))
    moved = [move(start) for move in block_key_search.moves(key, torch.Generator().manual_seed(1))]
    orders = {tuple(each.permutation.tolist()) for each in moved}
    assert len(moved) == 66 + 12 + 12 and len(orders) == 1 + 66
    for field in ("negated", "encrypted"):
        flips = [int((getattr(each, field) != getattr(start, field)).sum()) for each in moved]
        assert sorted(set(flips)) == [0, 1] and sum(flips) == 12


def test_a_search_keeps_what_is_not_worse_and_stops_at_its_queries(locked: Make) -> None:
    world = locked("trained")
    key = block_key(world.target)
    assert key is not None
    merits = iter([0.5, 0.4, 0.5, 0.6, 0.6])
    start, clock = key.random(torch.Generator().manual_seed(0)), world.case(world.variants(BlockKeySearch())[0]).clock
    moves = list(islice(block_key_search.moves(key, torch.Generator().manual_seed(1)), 10))
    found = block_key_search.climb(lambda _: next(merits), start, iter(moves), clock, 5)
    expected = moves[3](moves[2](moves[1](start)))
    assert block_world.same_keys(found.transform, expected) and (found.start, found.reached, found.queries) == (
        0.5,
        0.6,
        5,
    )


@pytest.mark.parametrize("name", marked(["trained", "trained, bytes", "absorbed, bytes"]))
def test_the_gradient_opens_a_small_network(name: str, locked: Make) -> None:
    world = locked(name)
    assert world.accuracy(shortened(world, BlockKeyGradient(), restarts=1).predict) > 80


def test_feature_maps_of_the_base_lead_to_the_key_without_a_label(locked: Make) -> None:
    world = locked("absorbed")  # under its key it has the very feature maps of the base
    (variant,) = world.variants(BlockFeatureMatching())
    assert variant.given.labeled == 0 and variant.given.base
    outcome = shortened(world, BlockFeatureMatching(), restarts=1)
    assert "distance" in outcome.note and outcome.cost == {"steps": 200}
    assert world.accuracy(outcome.predict) > 80


def test_a_base_of_another_architecture_gives_no_feature_maps_to_match(locked: Make) -> None:
    world = locked("trained")
    (variant,) = world.variants(BlockFeatureMatching())
    outcome = BlockFeatureMatching().run(replace(world.case(variant), base=locked("absorbed").base))
    assert outcome.note == "no layer of the base is like one of the model's"
    with pytest.raises(InputError, match="needs the public base"):
        BlockFeatureMatching().run(replace(world.case(variant), base=None))


def test_ffx_has_no_slope_to_descend_on(locked: Make) -> None:
    for attack in (BlockKeyGradient(), BlockFeatureMatching(), StemMatching()):
        assert locked("ffx").variants(attack) == []


def test_a_relaxed_key_that_is_sure_shows_what_its_rounded_key_shows(locked: Make) -> None:
    key = block_key(locked("trained").target)
    assert key is not None
    right, relaxed = key.random(torch.Generator().manual_seed(0)), RelaxedKey(key, torch.Generator())
    relaxed.order.data = 50 * torch.eye(12)[right.permutation]
    relaxed.negation.data = 50 * (right.negated * 2.0 - 1)
    assert block_world.same_keys(relaxed.rounded(), right)
    pixels = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(relaxed.shown(pixels, 0.5), right.values(pixels))


def test_sinkhorn_s_rows_and_columns_add_up_to_one() -> None:
    shares = sinkhorn(torch.randn(20, 20, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(shares.sum(0), torch.ones(20))
    torch.testing.assert_close(shares.sum(1), torch.ones(20), rtol=1e-3, atol=1e-3)


def test_an_assignment_is_a_permutation_that_takes_the_best_first() -> None:
    assert greedy_assignment(torch.tensor([[9.0, 8.0, 0.0], [7.0, 1.0, 0.0], [6.0, 5.0, 0.0]])).tolist() == [0, 2, 1]
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(greedy_assignment(torch.eye(30)[order]), order)
    assert greedy_assignment(torch.full((5, 5), torch.nan)).sort().values.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("method", [BlockKeySearch(), BlockKeyGradient()], ids=lambda each: each.name)
def test_an_expired_clock_ends_a_block_search_with_what_it_has(method: Attack, locked: Make) -> None:
    world = locked("trained")
    outcome = method.run(world.case(world.variants(method)[0], seconds=0))
    assert outcome.truncated and outcome.predict(world.images[:2]).shape == (2, 10)
