"""The proof that a session is really unlocked: sturdy against rounding, deaf to a locked network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from runtime_world import LockedModel

from keylatch.errors import IntegrityError
from keylatch.runtime import InferenceSession, choose_pairs, known_answer_input, new_question, values_to_license
from keylatch.runtime import _known_answer as known

Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture
def outputs() -> tuple[Array, Array]:
    """A keyed and an unrelated, locked output of an imagined network: (8, 20)."""
    draws = np.random.default_rng(5)
    return draws.normal(size=(8, 20)).astype(np.float32), draws.normal(size=(8, 20)).astype(np.float32)


def seal(keyed: Array, locked: Array) -> dict[str, Array]:
    pairs, bits = choose_pairs(keyed, locked, np.random.default_rng(1))
    section = {**new_question(8), known.PAIRS: pairs, known.BITS: bits}
    _, answer = known.split_license(values_to_license(section))
    return answer


def test_the_keyed_output_passes_and_the_locked_one_fails(outputs: tuple[Array, Array]) -> None:
    answer = seal(*outputs)
    known.verify_known_answer(answer, outputs[0])
    with pytest.raises(IntegrityError):
        known.verify_known_answer(answer, outputs[1])


@pytest.mark.parametrize("seed", range(20))
def test_noise_of_one_percent_of_the_range_passes(outputs: tuple[Array, Array], seed: int) -> None:
    keyed, locked = outputs
    noise = np.random.default_rng(seed).uniform(-0.01, 0.01, keyed.shape) * np.ptp(keyed)
    known.verify_known_answer(seal(keyed, locked), (keyed + noise).astype(np.float32))


@pytest.mark.parametrize("seed", range(20))
def test_pairs_are_as_far_apart_as_the_precision_asks(outputs: tuple[Array, Array], seed: int) -> None:
    """An artifact whose rounding moves outputs by 5 % of their range, each way, is still told from a locked one."""
    pairs, bits = choose_pairs(*outputs, np.random.default_rng(1), rounding=0.05)
    section = {**new_question(8), known.PAIRS: pairs, known.BITS: bits}
    draws = np.random.default_rng(seed)
    keyed, locked = (output + draws.uniform(-0.05, 0.05, output.shape) * np.ptp(outputs[0]) for output in outputs)
    assert known.wrong_answers(section, keyed) == 0
    assert known.wrong_answers(section, locked) >= len(pairs) // 2
    nearer, _ = choose_pairs(*outputs, np.random.default_rng(1))
    gaps = [np.abs(np.diff(outputs[0].ravel()[chosen])).min() / np.ptp(outputs[0]) for chosen in (pairs, nearer)]
    assert gaps[0] >= 0.2 > 0.1 > gaps[1]


def test_half_precision_passes(outputs: tuple[Array, Array]) -> None:
    known.verify_known_answer(seal(*outputs), outputs[0].astype(np.float16))


def test_noise_of_the_whole_range_fails(outputs: tuple[Array, Array]) -> None:
    keyed, locked = outputs
    noise = np.random.default_rng(0).normal(size=keyed.shape) * np.ptp(keyed)
    with pytest.raises(IntegrityError):
        known.verify_known_answer(seal(keyed, locked), keyed + noise)


STUCK: dict[str, Callable[[Array], Array]] = {
    "zeros": np.zeros_like,
    "ones": np.ones_like,
    "rising": lambda x: np.arange(x.size, dtype=np.float32).reshape(x.shape),
    "falling": lambda x: -np.arange(x.size, dtype=np.float32).reshape(x.shape),
    "negated": lambda x: -x,
    "rolled": lambda x: np.roll(x, 1),
    "too short": lambda x: x[:1],
    "empty": lambda x: x[:0],
    "one NaN": lambda x: np.where(np.arange(x.size).reshape(x.shape) == 3, np.nan, x),
    "infinite": lambda x: np.where(x == x.max(), np.inf, x),
}


@pytest.mark.parametrize("case", STUCK)
def test_other_outputs_fail(outputs: tuple[Array, Array], case: str) -> None:
    with pytest.raises(IntegrityError):
        known.verify_known_answer(seal(*outputs), STUCK[case](outputs[0]))


def test_pairs_have_a_wide_gap_and_half_of_them_tell(outputs: tuple[Array, Array]) -> None:
    keyed, locked = (output.ravel() for output in outputs)
    pairs, bits = choose_pairs(*outputs, np.random.default_rng(1))
    assert pairs.shape == (known.MAX_PAIRS, 2)
    assert pairs.dtype == np.int64
    assert bits.dtype == np.bool_
    assert np.array_equal(bits, keyed[pairs[:, 0]] > keyed[pairs[:, 1]])
    gaps = np.abs(keyed[pairs[:, 0]] - keyed[pairs[:, 1]])
    assert gaps.min() >= known.WIDE_GAP * np.ptp(keyed)
    wrong = bits != (locked[pairs[:, 0]] > locked[pairs[:, 1]])
    assert wrong.sum() == known.MAX_PAIRS // 2


def test_nothing_is_chosen_where_nothing_tells(outputs: tuple[Array, Array]) -> None:
    pairs, bits = choose_pairs(outputs[0], outputs[0], np.random.default_rng(1))
    assert (len(pairs), len(bits)) == (0, 0)
    constant = np.ones_like(outputs[0])
    assert len(choose_pairs(constant, outputs[1], np.random.default_rng(1))[0]) == 0


def test_the_license_holds_the_answer_only_as_a_mac(made: LockedModel) -> None:
    values = made.values()
    assert known.BITS not in values
    bits = made.section[known.BITS]
    assert all(np.packbits(bits).tobytes() not in value.tobytes() for value in values.values())
    assert set(values) == {name for name in made.section if name != known.BITS} | {known.KEY, known.TAG}


def test_each_license_has_a_key_of_its_own(made: LockedModel) -> None:
    one, two = made.values(), made.values()
    assert not np.array_equal(one[known.KEY], two[known.KEY])
    assert not np.array_equal(one[known.TAG], two[known.TAG])


def test_secret_values_and_answer_are_told_apart_by_name(made: LockedModel) -> None:
    gate, answer = known.split_license(made.values())
    assert set(gate) == set(made.defaults)
    assert set(answer) == {known.SEED, known.IMAGES, known.PAIRS, known.KEY, known.TAG}


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
def test_the_fixed_input_follows_from_the_seed(dtype: str) -> None:
    question = new_question(3)
    images = known_answer_input(question, (3, 8, 8), dtype)
    assert images.shape == (3, 3, 8, 8)
    assert images.dtype == dtype
    assert np.array_equal(images, known_answer_input(question, (3, 8, 8), dtype))
    assert not np.array_equal(images, known_answer_input(new_question(3), (3, 8, 8), dtype))
    assert 0 <= images.min() < images.max() < (256 if dtype == "uint8" else 1)


def test_the_fixed_input_is_the_same_for_ever() -> None:
    """Licenses hold answers to it: another input would refuse every license there is."""
    question = {known.SEED: np.arange(32, dtype=np.uint8), known.IMAGES: np.array([1])}
    assert known_answer_input(question, (8,), "uint8").tolist() == [[100, 124, 114, 46, 95, 142, 179, 38]]


def test_the_check_holds_on_the_real_model(made: LockedModel) -> None:
    _, answer = known.split_license(made.values())
    image = known_answer_input(answer, (3, 32, 32), "float32")
    keyed = made.open().run(None, {"image": image})[0]
    locked = InferenceSession.locked(made.path).run(None, {"image": image})[0]
    known.verify_known_answer(answer, keyed)
    noise = np.random.default_rng(0).uniform(-0.01, 0.01, keyed.shape) * np.ptp(keyed)
    known.verify_known_answer(answer, keyed + noise)
    with pytest.raises(IntegrityError):
        known.verify_known_answer(answer, locked)
