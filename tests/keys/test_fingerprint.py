from __future__ import annotations

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
from license_world import DAY, MODEL_ID

from keylatch.errors import FormatError
from keylatch.keys import (
    FileDeviceKey,
    FileIssuerKey,
    Fingerprint,
    Trust,
    current_time,
    decrypt_license,
    issue_license,
    log10_chance,
    verify_license,
    without_fingerprint,
)

SEED = bytes(range(32))
VALUES = {
    "body.sealed_0": np.linspace(-1, 1, 96, dtype=np.float32).reshape(4, 24),
    "body.sealed_1": np.linspace(-2, 2, 40, dtype=np.float16),
    "gate.patch": np.arange(12, dtype=np.uint8),
}


@pytest.fixture
def fingerprint() -> Fingerprint:
    return Fingerprint(SEED, {"body.sealed_0": np.array([0.25, 0.0, 0.5, 0.125]), "body.sealed_1": np.array([0.5])})


def test_words_are_what_they_were(fingerprint: Fingerprint) -> None:
    """Stored: a word that came out otherwise would clear every license that was issued before."""
    word = fingerprint.word("2d0a1f0e-5b57-4f0e-8f4f-0c1c1a1f9e11", "body.sealed_0", 32)
    assert np.packbits(word > 0).tobytes().hex() == "5b057cd1"


def test_words_are_balanced_signs_and_differ_by_license_tensor_and_seed(fingerprint: Fingerprint) -> None:
    others = [
        fingerprint.word("b", "body.sealed_0", 10_000),
        fingerprint.word("a", "body.sealed_1", 10_000),
        Fingerprint(bytes(32), fingerprint.steps).word("a", "body.sealed_0", 10_000),
        # Lengths are part of what is hashed: a name cannot be moved from one part into the other.
        fingerprint.word("abody", ".sealed_0", 10_000),
    ]
    word = fingerprint.word("a", "body.sealed_0", 10_000)
    assert set(np.unique(word)) == {-1, 1}
    assert abs(word.sum(dtype=int)) < 400  # four standard deviations
    assert all(abs(np.dot(word.astype(int), other.astype(int))) < 400 for other in others)
    assert np.array_equal(word[:100], fingerprint.word("a", "body.sealed_0", 100))


def test_marking_moves_each_weight_by_its_channels_step_and_nothing_else(fingerprint: Fingerprint) -> None:
    marked = fingerprint.marked(VALUES, "a")
    for name, steps in {"body.sealed_0": [[0.25], [0.0], [0.5], [0.125]], "body.sealed_1": [0.5]}.items():
        moved = marked[name].astype(np.float64) - VALUES[name].astype(np.float64)
        word = fingerprint.word("a", name, VALUES[name].size).reshape(VALUES[name].shape)
        assert np.allclose(moved, np.array(steps) * word, atol=2e-3)
        assert marked[name].dtype == VALUES[name].dtype and marked[name].shape == VALUES[name].shape
    assert marked["gate.patch"] is VALUES["gate.patch"]


@pytest.mark.parametrize("values", [{}, {**VALUES, "body.sealed_0": np.arange(3)}])
def test_marking_refuses_other_values(fingerprint: Fingerprint, values: dict[str, np.ndarray]) -> None:
    with pytest.raises(FormatError, match=r"lack the tensor body\.sealed_0") as error:
        fingerprint.marked(values, "a")
    assert error.value.hint


def test_marking_refuses_steps_for_other_channels(fingerprint: Fingerprint) -> None:
    other = Fingerprint(SEED, {"body.sealed_0": np.ones(3)})
    with pytest.raises(FormatError, match=r"3 steps do not fit the tensor body\.sealed_0 of shape \(4, 24\)") as error:
        other.marked(VALUES, "a")
    assert error.value.hint


def test_a_vault_section_keeps_a_fingerprint(fingerprint: Fingerprint) -> None:
    section = {**VALUES, **fingerprint.to_arrays()}
    found = Fingerprint.from_arrays(section)
    assert found is not None
    assert found.seed == fingerprint.seed and found.steps.keys() == fingerprint.steps.keys()
    assert all(np.array_equal(found.steps[name], steps) for name, steps in fingerprint.steps.items())
    assert without_fingerprint(section).keys() == VALUES.keys()
    assert Fingerprint.from_arrays(VALUES) is None


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint.seed": np.zeros(31, dtype=np.uint8)},
        {"fingerprint.step.body.sealed_0": np.array([0.0])},
        {"fingerprint.step.body.sealed_0": np.array([np.nan])},
        {"fingerprint.step.body.sealed_0": np.array([1.0, -1.0])},
        {"fingerprint.step.body.sealed_0": np.array([1.0, np.inf])},
        {"fingerprint.step.body.sealed_0": np.ones((4, 1))},
        {"fingerprint.step.body.sealed_0": np.ones(4, dtype=np.float32)},
        {"fingerprint.step.body.sealed_0": np.ones(0)},
        {"fingerprint.other": np.array([1.0])},
    ],
)
def test_a_malformed_fingerprint_is_refused(fingerprint: Fingerprint, change: dict[str, np.ndarray]) -> None:
    with pytest.raises(FormatError):
        Fingerprint.from_arrays({**fingerprint.to_arrays(), **change})
    with pytest.raises(FormatError):
        Fingerprint.from_arrays({"fingerprint.seed": np.zeros(32, dtype=np.uint8)})


def test_a_fingerprint_gives_nothing_away(fingerprint: Fingerprint) -> None:
    assert repr(fingerprint) == "Fingerprint(2 tensors)"
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            copied(fingerprint)


def test_the_bound_holds_for_every_word_of_a_small_code() -> None:
    """All 2^12 words against directions of several kinds: never more score high than the bound allows."""
    words = np.array(list(itertools.product((-1, 1), repeat=12)))
    draws = np.random.default_rng(0)
    directions = [np.ones(12), np.eye(12)[0], draws.standard_normal(12), draws.exponential(size=12) ** 3]
    for direction in directions:
        scores = words @ (direction / np.linalg.norm(direction))
        for score in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.4):
            assert np.mean(scores >= score) <= 10 ** log10_chance(score) + 1e-12


def test_the_bound_counts_the_candidates() -> None:
    assert log10_chance(10.0) == pytest.approx(-50 / math.log(10))
    assert log10_chance(10.0, 1000) == pytest.approx(log10_chance(10.0) + 3)
    assert log10_chance(-5.0) == log10_chance(0.0) == log10_chance(1.0, 10**6) == 0.0


def test_each_license_carries_its_own_word(fingerprint: Fingerprint, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("marked")
    issuer, device = FileIssuerKey.generate(), FileDeviceKey.generate(folder / "device.key")
    now = current_time()
    terms = {"customer": "acme", "not_before": now, "expires_at": now + DAY}

    def opened(mark: str | None) -> tuple[str, dict[str, np.ndarray]]:
        license = issue_license(
            issuer=issuer, devices=[device.public], model_id=MODEL_ID, secret_values=VALUES,
            fingerprint=fingerprint, mark=mark, **terms,
        )  # fmt: skip
        claims = verify_license(license, Trust([issuer.public]), now=now)
        return claims.license_id, dict(decrypt_license(license, claims, device))

    for mark in (None, "somebody"):
        license_id, values = opened(mark)
        expected = fingerprint.marked(VALUES, mark or license_id)
        assert all(np.array_equal(values[name], expected[name]) for name in VALUES)
