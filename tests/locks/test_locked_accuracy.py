"""What a lock does to a really trained classifier: accuracies with the right key, none, and wrong ones."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from keylatch.locks import LockSecret
from networks import SPEC, Digits, Locked, lock, outputs_of, pixels

CHANCE = 0.25  # of ten digits: chance is 0.1, and classes of one network are correlated
KEYS = 4


def test_the_trained_network_is_worth_locking(digits: Digits) -> None:
    assert digits.accuracy(digits.network) >= 0.9


def test_unlocked_accuracy_is_within_a_point_of_the_original(digits: Digits, locked_digits: Locked) -> None:
    with locked_digits.module.opened(locked_digits.secret):
        assert digits.accuracy(locked_digits.module) == pytest.approx(digits.accuracy(digits.network), abs=0.01)


def test_locked_accuracy_is_near_chance(digits: Digits, locked_digits: Locked) -> None:
    assert digits.accuracy(locked_digits.module) <= CHANCE


def random_patch(secret: LockSecret, seed: int) -> LockSecret:
    draws = torch.Generator().manual_seed(seed)
    return replace(secret, patch=torch.randint(0, 256, secret.patch.shape, dtype=torch.uint8, generator=draws))


def with_wrong_bits(locked: Locked, wrong: int, seed: int) -> LockSecret:
    code = locked.secret.code.clone()
    code[torch.randperm(len(code), generator=torch.Generator().manual_seed(seed))[:wrong]] *= -1
    secret = locked.module.secret_with_code(locked.secret, code)
    carried = locked.module.gate.code_map.code(secret.patch.double() / 255)
    assert int((carried != locked.secret.code).sum()) == wrong
    return secret


def mean_accuracy(digits: Digits, locked: Locked, secrets: list[LockSecret]) -> float:
    accuracies = []
    for secret in secrets:
        with locked.module.opened(secret):
            accuracies.append(digits.accuracy(locked.module))
    return sum(accuracies) / len(accuracies)


def test_random_patches_give_chance_even_with_the_right_means(digits: Digits, locked_digits: Locked) -> None:
    secrets = [random_patch(locked_digits.secret, seed) for seed in range(KEYS)]
    assert mean_accuracy(digits, locked_digits, secrets) <= CHANCE


@pytest.mark.parametrize("wrong", [2, 8, 32])  # of 64; 2 of 64 are 8 of 256
def test_nearly_right_codes_give_chance(digits: Digits, locked_digits: Locked, wrong: int) -> None:
    secrets = [with_wrong_bits(locked_digits, wrong, seed) for seed in range(KEYS)]
    assert mean_accuracy(digits, locked_digits, secrets) <= CHANCE


def test_the_secret_of_another_lock_gives_chance(digits: Digits, locked_digits: Locked) -> None:
    other = lock(digits.network, gates=3, cost_share=1.0, seed=bytes(32))
    assert mean_accuracy(digits, locked_digits, [other.secret]) <= CHANCE


def test_gates_taken_out_give_chance(digits: Digits, locked_digits: Locked) -> None:
    # What a thief gets who removes the gate: the stored weights, all signs +1, with and without the right means.
    locked = copy.deepcopy(locked_digits.module)
    ones = torch.ones(len(digits.images), locked.description.channels)
    logits = locked.body(digits.images, ones)[0]
    assert digits.agreement(logits.argmax(1)) <= CHANCE
    with locked.opened(locked_digits.secret):
        logits = locked.body(digits.images, ones)[0]
    assert digits.agreement(logits.argmax(1)) <= CHANCE


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_opens_and_stays_locked_without_the_secret(
    digits: Digits, locked_digits: Locked, dtype: torch.dtype
) -> None:
    half = copy.deepcopy(locked_digits.module).to(dtype)
    assert {parameter.dtype for parameter in half.parameters()} == {dtype}
    original = outputs_of(digits.network, digits.images).argmax(1)
    with half.opened(locked_digits.secret):
        opened = outputs_of(half, digits.images).argmax(1)
    assert float((opened == original).float().mean()) >= 0.99
    assert digits.accuracy(half) <= CHANCE


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_casting_leaves_the_gate_as_it_is(locked_digits: Locked, dtype: torch.dtype) -> None:
    cast = copy.deepcopy(locked_digits.module).to(dtype)
    for name, buffer in locked_digits.module.gate.named_buffers():
        after = cast.gate.get_buffer(name)
        assert after.dtype == buffer.dtype
        assert torch.equal(after, buffer)
    images = SPEC.from_pixels(pixels(4))
    assert torch.equal(cast.gate(images), locked_digits.module.gate(images))


def test_half_precision_images_give_the_right_code(locked_digits: Locked) -> None:
    # A pixel in fp16 is off by up to 2^-12, far less than the margin.
    module = locked_digits.module
    with module.opened(locked_digits.secret):
        corner = module.gate.patch.half().float()
    values = SPEC.from_pixels(pixels(2)).clone()
    values[:, :, -8:, -8:] = corner
    right = module.gate.code_map.signs(locked_digits.secret.code)
    assert torch.equal(module.gate(values), right.expand(2, -1))


class Casting(torch.nn.Module):
    """A network that brings its input to its weights' dtype, as those of transformers do."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x.to(next(self.network.parameters()).dtype))


def test_a_network_that_casts_its_input_can_be_cast_itself(digits: Digits) -> None:
    locked = lock(Casting(digits.network).eval())
    half = locked.module.half()
    with half.opened(locked.secret):
        assert digits.accuracy(half) >= digits.accuracy(digits.network) - 0.01


def test_a_network_that_casts_its_input_can_be_moved(digits: Digits) -> None:
    # torch.export asserts the device that each `.to()` was traced on.
    moved = lock(Casting(digits.network).eval()).module.to("meta")
    assert outputs_of(moved, digits.images[:2].to("meta")).device.type == "meta"
