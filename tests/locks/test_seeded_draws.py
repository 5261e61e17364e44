"""Draws from a seed: uniform, independent by purpose, the same on every machine."""

from __future__ import annotations

import hashlib

import pytest
import torch

from keylatch.errors import LockError
from keylatch.locks._randomness import SeededDraws

SEED = bytes(range(32))


def draws(purpose: str = "test", seed: bytes = SEED) -> SeededDraws:
    return SeededDraws(seed, purpose)


def test_the_stream_is_hkdf_then_shake_as_documented() -> None:
    import hmac

    extracted = hmac.digest(bytes(32), SEED, "sha256")
    key = hmac.digest(extracted, b"keylatch/1 test" + b"\x01", "sha256")
    stream = draws()
    for block in (1, 2):
        assert stream.bytes(50) == hashlib.shake_256(key + block.to_bytes(8, "big")).digest(50)


def test_one_seed_and_purpose_give_the_same_draws_again() -> None:
    first, second = draws(), draws()
    for draw in (lambda d: d.signs(100), lambda d: d.uniform(7), lambda d: d.normal(7), lambda d: d.permutation(50)):
        assert torch.equal(draw(first), draw(second))


@pytest.mark.parametrize("other", [("another", SEED), ("test", bytes(32)), ("test ", SEED)])
def test_another_purpose_or_seed_gives_unrelated_draws(other: tuple[str, bytes]) -> None:
    same = float((draws().signs(4096) == draws(*other).signs(4096)).float().mean())
    assert abs(same - 0.5) < 0.05


def test_draws_one_after_the_other_differ() -> None:
    stream = draws()
    assert abs(float((stream.signs(4096) == stream.signs(4096)).float().mean()) - 0.5) < 0.05


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(LockError, match=f"a seed has 32 bytes, got {length}") as caught:
        draws(seed=bytes(length))
    assert caught.value.hint


def test_signs_are_balanced_and_of_any_shape() -> None:
    signs = draws().signs(40, 333)
    assert signs.shape == (40, 333)
    assert signs.dtype == torch.int8
    assert set(signs.unique().tolist()) == {-1, 1}
    assert abs(float(signs.float().mean())) < 0.03  # 3.5 standard deviations
    assert float(signs.float().mean(0).abs().max()) < 0.9  # no column stuck
    bits = draws().signs(8 * 4096).view(-1, 8).float()
    assert float(bits.mean(0).abs().max()) < 0.06  # no bit of a byte stuck


def test_uniform_draws_fill_the_open_unit_interval() -> None:
    values = draws().uniform(20_000)
    assert values.dtype == torch.float64
    assert 0 < float(values.min()) < 1e-3
    assert 1 - 1e-3 < float(values.max()) < 1
    histogram = torch.histc(values, 20, 0, 1)
    assert float(((histogram - 1000) ** 2 / 1000).sum()) < 45  # chi-square, 19 degrees of freedom, p = 7e-4


def test_normal_draws_have_unit_variance() -> None:
    values = draws().normal(20_000)
    assert abs(float(values.mean())) < 0.03
    assert abs(float(values.var()) - 1) < 0.04
    assert abs(float((values.abs() < 1).double().mean()) - 0.6827) < 0.015


@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_a_permutation_has_every_number_once(count: int) -> None:
    assert sorted(draws().permutation(count).tolist()) == list(range(count))


def test_permutations_are_uniform() -> None:
    stream = draws()
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(3000):
        order = tuple(stream.permutation(3).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 22  # 5 degrees of freedom, p = 5e-4


def test_numbers_below_a_bound_are_rejected_rather_than_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    # 2^32 = 3 * 1431655765 + 1: the last word has no full cycle and must be drawn again.
    words = [2**32 - 1, 5]
    stream = draws()
    monkeypatch.setattr(stream, "bytes", lambda count: words.pop(0).to_bytes(count, "big"))
    assert stream._below(3) == 5 % 3
    assert words == []
