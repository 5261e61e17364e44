"""Keys of block transforms: drawn from a seed, counted, near ones, and kept to themselves."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import traceback
from collections.abc import Callable

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keylatch.errors import FormatError, LockError
from keylatch.locks._block_key_space import log2_chance_near
from keylatch.locks._block_transform import BlockTransform, Step, identity_transform
from keylatch.locks._ffx import byte_table
from keylatch.locks._randomness import SeededDraws

SEED = bytes(range(32))
KEYS = ("permutation", "negated", "encrypted", "table")
ALL: tuple[Step, ...] = ("shf", "np", "ffx")


def draw(*steps: Step, block_size: int = 4, channels: int = 3, seed: bytes | None = SEED) -> BlockTransform:
    return BlockTransform.draw(steps, block_size=block_size, channels=channels, seed=seed)


def equal(first: BlockTransform, second: BlockTransform) -> list[str]:
    return [name for name in KEYS if torch.equal(getattr(first, name), getattr(second, name))]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wrong(first: torch.Tensor, second: torch.Tensor) -> int:
    return int((first != second).sum())


def half_of(stream: SeededDraws, entries: int) -> list[bool]:
    chosen = set(stream.permutation(entries)[: entries // 2].tolist())
    return [entry in chosen for entry in range(entries)]


def test_each_step_is_drawn_from_its_own_stream_of_the_seed() -> None:
    key = draw(*ALL)
    ffx = SeededDraws(SEED, "block transform ffx")
    assert key.permutation.tolist() == SeededDraws(SEED, "block transform shf").permutation(48).tolist()
    assert key.negated.tolist() == half_of(SeededDraws(SEED, "block transform np"), 48)
    assert key.encrypted.tolist() == half_of(ffx, 48)
    assert torch.equal(key.table, byte_table(ffx.bytes(32)))


def test_what_np_negates_before_shf_moves_with_it() -> None:
    after, before = draw("shf", "np"), draw("np", "shf")
    assert equal(after, before) == ["permutation", "encrypted", "table"]
    assert torch.equal(before.negated, after.negated[after.permutation])


def test_steps_that_are_left_out_do_nothing() -> None:
    plain = identity_transform(4, 3)
    assert equal(draw("shf"), plain) == ["negated", "encrypted", "table"]
    assert equal(draw("np"), plain) == ["permutation", "encrypted", "table"]
    assert equal(draw("ffx"), plain) == ["permutation", "negated"]
    assert equal(draw(*ALL), plain) == []


@settings(deadline=None, max_examples=25)
@given(st.binary(min_size=32, max_size=32), st.integers(2, 9), st.integers(1, 4))
def test_a_key_is_a_permutation_two_exact_halves_and_an_injective_table(seed: bytes, size: int, channels: int) -> None:
    key = draw(*ALL, block_size=size, channels=channels, seed=seed)
    entries = channels * size * size
    assert key.parameters == entries
    assert [getattr(key, name).dtype for name in KEYS] == [torch.int64, torch.bool, torch.bool, torch.int16]
    assert sorted(key.permutation.tolist()) == list(range(entries))
    assert len(key.negated) == len(key.encrypted) == entries
    assert int(key.negated.sum()) == int(key.encrypted.sum()) == entries // 2
    assert len(set(key.table.tolist())) == 256


@settings(deadline=None, max_examples=10)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_one_seed_gives_one_key_and_two_seeds_give_two(seed: bytes, other: bytes) -> None:
    assert equal(draw(*ALL, seed=seed), draw(*ALL, seed=seed)) == list(KEYS)
    assert equal(draw(*ALL, seed=seed), draw(*ALL, seed=other)) == (list(KEYS) if seed == other else [])


def test_without_a_seed_every_key_is_its_own() -> None:
    assert equal(draw(*ALL, seed=None), draw(*ALL, seed=None)) == []


def test_global_generators_are_neither_used_nor_touched() -> None:
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist()
        key = draw(*ALL)
        near = key.near(4, generator())
        identity_transform(4, 3)
        draw(*ALL, seed=None).values(torch.zeros(1, 3, 8, 8))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.random.get_state()[1].tolist() == before[1]
        found.append((key, near))
    (first, first_near), (second, second_near) = found
    assert equal(first, second) == equal(first_near, second_near) == list(KEYS)


@pytest.mark.parametrize(("size", "shf", "np_"), [(2, 28.8, 9.9), (4, 202.9, 44.9), (8, 1184, 188), (16, 6259, 763)])
def test_key_spaces_are_the_published_ones(size: int, shf: float, np_: float) -> None:
    digits = 1 if size < 8 else 0

    def bits(*steps: Step) -> float:
        return draw(*steps, block_size=size).log2_key_space

    assert round(bits("shf"), digits) == shf
    halves = bits("shf", "np") - bits("shf")
    assert round(halves, digits) == np_
    assert bits("ffx") == pytest.approx(halves + 256)
    assert bits(*ALL) == pytest.approx(bits("shf") + 2 * halves + 256)
    if size > 2:
        assert bits("np") == pytest.approx(halves)


def test_the_key_space_of_an_odd_block_counts_its_smaller_half() -> None:
    assert draw("np", block_size=3).log2_key_space == pytest.approx(math.log2(math.comb(27, 13)))


@pytest.mark.parametrize("steps", [("shf",), ("np",), ("ffx",), ALL])
@pytest.mark.parametrize(
    ("asked", "found"),
    [(1, 2), (2, 2), (3, 4), (12, 12), (47, 48), (48, 48), (0.01, 2), (0.05, 4), (0.25, 12), (1.0, 48)],
)
def test_a_near_key_is_wrong_in_as_many_entries_of_every_step(
    steps: tuple[Step, ...], asked: float, found: int
) -> None:
    key = draw(*steps)
    near = key.near(asked, generator())
    assert wrong(key.permutation, near.permutation) == (found if "shf" in steps else 0)
    assert wrong(key.negated, near.negated) == (found if "np" in steps else 0)
    assert wrong(key.encrypted, near.encrypted) == (found if "ffx" in steps else 0)
    assert torch.equal(key.table, near.table)
    assert sorted(near.permutation.tolist()) == list(range(48))
    assert int(near.negated.sum()) == int(key.negated.sum())
    assert int(near.encrypted.sum()) == int(key.encrypted.sum())
    assert (near.steps, near.block_size, near.channels) == (key.steps, key.block_size, key.channels)


def test_near_keys_are_drawn_from_the_generator_and_leave_the_right_key_alone() -> None:
    key = draw(*ALL)
    assert equal(key.near(8, generator(1)), key.near(8, generator(1))) == list(KEYS)
    assert equal(key.near(8, generator(1)), key.near(8, generator(2))) == ["table"]
    one = generator()
    assert equal(key.near(8, one), key.near(8, one)) == ["table"]
    assert equal(key, draw(*ALL)) == list(KEYS)


def test_a_block_of_odd_length_has_near_keys_of_even_count() -> None:
    key = draw("shf", "np", block_size=3)
    near = key.near(27, generator())
    assert wrong(key.permutation, near.permutation) == wrong(key.negated, near.negated) == 26


def test_a_near_key_shows_nearly_the_same_image() -> None:
    key, pixels = draw(*ALL), torch.rand((2, 3, 16, 16), generator=generator())
    right = key.values(pixels)
    shares = [float((key.near(count, generator()).values(pixels) != right).float().mean()) for count in (2, 12, 48)]
    assert 0 < shares[0] < 0.15 < shares[1] < 0.75 < shares[2]


@pytest.mark.parametrize("asked", [0, -1, 49, 0.0, -0.5, 1.01, float("nan")])
def test_a_near_key_with_no_or_too_many_wrong_entries_is_refused(asked: float) -> None:
    with pytest.raises(LockError, match=f"{asked} wrong entries cannot be had, .* 1 to 48") as caught:
        draw("shf").near(asked, generator())
    assert caught.value.hint


def test_a_transform_without_steps_has_no_near_key() -> None:
    with pytest.raises(LockError, match="no key to come near") as caught:
        identity_transform(4, 3).near(2, generator())
    assert caught.value.hint


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((), "without steps does nothing, expected one or more of shf, np, ffx"),
        (("shf", "rot"), "unknown step 'rot'"),
        (("SHF",), "unknown step 'SHF'"),
        ("shf", "unknown step 's'"),
        (("shf", "np", "shf"), r"steps shf\+np\+shf repeat one"),
        (("ffx", "ffx"), "repeat one"),
        (("ffx", "shf"), r"steps ffx\+shf go on after ffx"),
        (("shf", "ffx", "np"), "go on after ffx"),
    ],
)
def test_steps_that_are_no_transform_are_refused(steps: tuple[Step, ...], message: str) -> None:
    with pytest.raises(LockError, match=message) as caught:
        draw(*steps)
    assert caught.value.hint


def test_np_alone_in_the_smallest_blocks_is_refused_with_its_key_space() -> None:
    with pytest.raises(LockError, match=r"np alone with blocks of 2 x 2 has 9\.9 bits of keys") as caught:
        draw("np", block_size=2)
    assert "4 x 4" in str(caught.value.hint)
    assert draw("np", "shf", block_size=2).parameters == 12


@pytest.mark.parametrize(
    "make", [lambda *sizes: draw("shf", block_size=sizes[0], channels=sizes[1]), identity_transform]
)
@pytest.mark.parametrize(
    ("size", "channels", "message"),
    [
        (1, 3, "blocks of 1 x 1 pixels hide nothing"),
        (0, 3, "blocks of 0 x 0"),
        (-4, 3, "expected 2 x 2 or larger"),
        (148, 3, "blocks of 148 x 148 with 3 channels have 65712 entries, expected at most 65536"),
        (257, 1, "66049 entries"),
        (4, 0, "0 channels are no image"),
        (4, -3, "-3 channels are no image"),
    ],
)
def test_blocks_of_impossible_sizes_are_refused(
    make: Callable[..., BlockTransform], size: int, channels: int, message: str
) -> None:
    with pytest.raises(LockError, match=message) as caught:
        make(size, channels)
    assert caught.value.hint


def test_the_largest_block_is_taken() -> None:
    assert identity_transform(256, 1).parameters == 65536


@pytest.mark.parametrize("length", [0, 16, 33])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(LockError, match=f"a seed has 32 bytes, got {length}"):
        draw("shf", seed=bytes(length))


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{0!r}".format])
def test_showing_a_key_shows_nothing_of_it(show: Callable[[object], str]) -> None:
    assert show(draw("shf", "np")) == "BlockTransform(shf+np, blocks of 4 x 4 x 3, 247.8 bits)"
    assert show(identity_transform(2, 1)) == "BlockTransform(no steps, blocks of 2 x 2 x 1, 0.0 bits)"


def test_a_traceback_with_locals_shows_nothing_of_a_key() -> None:
    key = draw(*ALL)
    try:
        raise ValueError(f"failed with {key}")
    except ValueError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "BlockTransform(shf+np+ffx" in shown
    assert "tensor(" not in shown


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_key_is_not_pickled_or_copied(protocol: int) -> None:
    for take in (lambda key: pickle.dumps(key, protocol), copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="vault"):
            take(draw("shf"))


@pytest.mark.parametrize("steps", [("shf",), ("np",), ("ffx",), ("np", "shf"), ALL, ()])
def test_a_key_round_trips_through_the_arrays_of_a_vault(steps: tuple[Step, ...]) -> None:
    key = draw(*steps) if steps else identity_transform(4, 3)
    arrays = key.to_arrays()
    names = ["encrypted", "negated", "permutation", "size", "steps", "table"]
    assert sorted(arrays) == [f"blocks.{name}" for name in names]
    again = BlockTransform.from_arrays(safetensors.numpy.load(safetensors.numpy.save(arrays)))
    assert equal(again, key) == list(KEYS)
    assert (again.steps, again.block_size, again.channels) == (steps, 4, 3)
    pixels = torch.rand((1, 3, 8, 8), generator=generator())
    assert torch.equal(again.values(pixels), key.values(pixels))


def test_a_near_key_round_trips_too() -> None:
    near = draw(*ALL).near(0.25, generator())
    assert equal(BlockTransform.from_arrays(near.to_arrays()), near) == list(KEYS)


@pytest.mark.parametrize("missing", ["permutation", "negated", "encrypted", "table", "steps", "size"])
def test_a_vault_that_lacks_an_array_is_refused(missing: str) -> None:
    arrays = {name: value for name, value in draw(*ALL).to_arrays().items() if name != f"blocks.{missing}"}
    with pytest.raises(FormatError, match="the vault holds no block key") as caught:
        BlockTransform.from_arrays(arrays)
    assert caught.value.hint


def stored_steps(steps: str) -> np.ndarray:
    return np.frombuffer(steps.encode("latin-1"), dtype=np.uint8)


DAMAGE = {
    "a repeated entry": ("permutation", np.zeros(48, dtype=np.int64), "damaged: permutation"),
    "an entry too large": ("permutation", np.arange(1, 49), "damaged: permutation"),
    "a short permutation": ("permutation", np.arange(47), r"permutation int64 \(47,\), expected int64 \(48,\)"),
    "a narrow permutation": ("permutation", np.arange(48, dtype=np.int32), "permutation int32"),
    "no half": ("negated", np.zeros(48, dtype=bool), "damaged: negated"),
    "numbers for a half": ("negated", np.zeros(48, dtype=np.uint8), "negated uint8"),
    "a matrix for a half": ("encrypted", np.zeros((6, 8), dtype=bool), r"encrypted bool \(6, 8\)"),
    "all of it": ("encrypted", np.ones(48, dtype=bool), "damaged: encrypted"),
    "a number twice": ("table", np.arange(256, dtype=np.int16) // 2, "damaged: table"),
    "a number too large": ("table", np.arange(800, 1056, dtype=np.int16), "damaged: table"),
    "a number below 0": ("table", np.arange(-1, 255, dtype=np.int16), "damaged: table"),
    "a short table": ("table", np.arange(255, dtype=np.int16), "table int16"),
    "a size of zero": ("size", np.array([0, 3]), "the vault holds no block key: blocks of 0 x 0"),
    "a huge size": ("size", np.array([2**31, 3]), "expected at most 65536"),
    "three sizes": ("size", np.array([4, 4, 3]), "size int64"),
    "another size": ("size", np.array([2, 3]), "expected int64 \\(12,\\)"),
    "an unknown step": ("steps", stored_steps("shf+rot"), "unknown step 'rot'"),
    "no ASCII": ("steps", stored_steps("\xff"), "unknown step"),
    "a step twice": ("steps", stored_steps("shf+shf"), "repeat one"),
    "ffx first": ("steps", stored_steps("ffx+shf+np"), "go on after ffx"),
    "no shf": ("steps", stored_steps("np+ffx"), "damaged: permutation"),
    "no np": ("steps", stored_steps("shf+ffx"), "damaged: negated"),
    "no ffx": ("steps", stored_steps("shf+np"), "damaged: encrypted"),
    "no step": ("steps", stored_steps(""), "damaged: permutation"),
    "wide steps": ("steps", np.zeros(3, dtype=np.int64), "steps int64"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_key_is_refused(damage: str) -> None:
    name, value, message = DAMAGE[damage]
    arrays = draw(*ALL).to_arrays() | {f"blocks.{name}": value}
    with pytest.raises(FormatError, match=message) as caught:
        BlockTransform.from_arrays(arrays)
    assert caught.value.hint
    assert caught.value.__cause__ is None


def test_a_table_without_ffx_is_refused() -> None:
    arrays = draw("shf").to_arrays() | {"blocks.table": draw("ffx").table.numpy()}
    with pytest.raises(FormatError, match="damaged: table"):
        BlockTransform.from_arrays(arrays)


@pytest.mark.parametrize("wrong_entries", range(7))
def test_the_chance_to_come_near_is_the_share_of_keys_that_are(wrong_entries: int) -> None:
    orders = list(itertools.permutations(range(6)))
    moved = sum(sum(place != entry for place, entry in enumerate(order)) <= wrong_entries for order in orders)
    halves = [set(half) for half in itertools.combinations(range(6), 3)]
    flipped = sum(len(half ^ {0, 1, 2}) <= wrong_entries for half in halves)
    shuffled, negated = moved / len(orders), flipped / len(halves)
    assert 2 ** log2_chance_near(("shf",), 6, wrong_entries) == pytest.approx(shuffled)
    assert 2 ** log2_chance_near(("np",), 6, wrong_entries) == pytest.approx(negated)
    assert 2 ** log2_chance_near(("shf", "np"), 6, wrong_entries) == pytest.approx(shuffled * negated)
    assert 2 ** log2_chance_near(("ffx",), 6, wrong_entries) == pytest.approx(negated)


def test_no_wrong_entry_is_the_whole_key_but_for_the_password() -> None:
    assert log2_chance_near(("shf", "np"), 768, 0) == pytest.approx(-draw("shf", "np", block_size=16).log2_key_space)
    assert log2_chance_near(ALL, 768, 0) == pytest.approx(256 - draw(*ALL, block_size=16).log2_key_space)
