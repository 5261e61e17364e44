"""From patch to code to gate signs, and back from a code to a patch."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from keylatch.errors import LockError
from keylatch.locks import IMAGENET_MEAN, IMAGENET_STD, InputSpec, PatchPlace, log2_chance_within
from keylatch.locks._code import FAN_IN, UNITS, CodeMap, as_signs, code_bits_for, draw_code_map, tie_break
from keylatch.locks._patch import find_patch
from keylatch.locks._patch_gate import PatchGate
from keylatch.locks._randomness import SeededDraws
from networks import PUBLIC_SEED, SPEC, pixels, prepare

BITS, PIXELS, CHANNELS = 64, 192, 300


@pytest.fixture(scope="module")
def code_map() -> CodeMap:
    return draw_code_map(PUBLIC_SEED, code_bits=BITS, pixels=PIXELS, channels=CHANNELS)


def codes(count: int, bits: int = BITS) -> list[torch.Tensor]:
    stream = SeededDraws(bytes(32), "test codes")
    return [stream.signs(bits) for _ in range(count)]


def test_rows_of_the_projection_are_orthonormal(code_map: CodeMap) -> None:
    gram = code_map.projection @ code_map.projection.T
    assert code_map.projection.shape == (BITS, PIXELS)
    assert torch.allclose(gram, torch.eye(BITS, dtype=torch.float64), atol=1e-12)


def test_rows_of_the_projection_point_anywhere(code_map: CodeMap) -> None:
    # Without fixing the signs of R, a QR decomposition favors one half space.
    diagonals = [
        draw_code_map(bytes([i]) * 32, code_bits=64, pixels=64, channels=1).projection.diagonal() for i in range(8)
    ]
    assert abs(float(torch.cat(diagonals).sign().mean())) < 0.2


def test_expansion_and_picks_have_their_documented_ranges(code_map: CodeMap) -> None:
    assert code_map.expansion.shape == (BITS, UNITS)
    assert code_map.expansion.dtype == torch.int8
    assert set(code_map.expansion.unique().tolist()) == {-1, 1}
    assert code_map.picks.shape == (FAN_IN, CHANNELS)
    assert int(code_map.picks.min()) >= 0
    assert int(code_map.picks.max()) < UNITS


def test_the_five_units_of_a_channel_are_distinct(code_map: CodeMap) -> None:
    assert all(len(set(column.tolist())) == FAN_IN for column in code_map.picks.T)


def test_channels_pick_different_units(code_map: CodeMap) -> None:
    assert len({tuple(sorted(column.tolist())) for column in code_map.picks.T}) == CHANNELS
    assert len(code_map.picks.unique()) > 0.7 * UNITS  # 1500 picks of 1024 leave a quarter out


def test_the_map_follows_from_the_public_seed_alone(code_map: CodeMap) -> None:
    torch.manual_seed(1)
    again = draw_code_map(PUBLIC_SEED, code_bits=BITS, pixels=PIXELS, channels=CHANNELS)
    other = draw_code_map(bytes(32), code_bits=BITS, pixels=PIXELS, channels=CHANNELS)
    for name in ("projection", "expansion", "picks"):
        assert torch.equal(getattr(again, name), getattr(code_map, name))
        assert not torch.equal(getattr(other, name), getattr(code_map, name))


def test_signs_are_never_zero_and_zero_counts_as_plus() -> None:
    signs = as_signs(torch.tensor([0.0, -0.0, 1e-30, -1e-30, 5.0, -5.0]))
    assert signs.tolist() == [1, 1, 1, -1, 1, -1]
    assert signs.dtype == torch.float32


def test_a_tie_of_an_even_code_never_gives_zero_and_is_broken_by_one() -> None:
    half = torch.ones(BITS, dtype=torch.int8)
    half[: BITS // 2] = -1
    ones = torch.ones(BITS, UNITS, dtype=torch.int8)
    tied = CodeMap(torch.eye(BITS, PIXELS, dtype=torch.float64), ones, torch.zeros(FAN_IN, 3, dtype=torch.int64))
    assert tied.signs(half).tolist() == [1, 1, 1]
    half[0] = 1
    half[-1] = -1
    half[-2] = -1  # one more minus than plus, by two: below the tie break
    assert tied.signs(half).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("bits", [64, 65])
def test_no_sum_is_closer_to_zero_than_one(bits: int) -> None:
    # On zero itself rounding would decide.
    sums = torch.arange(-bits, bits + 1, 2) + tie_break(bits)
    assert float(sums.abs().min()) == 1


@pytest.mark.parametrize("bits", [64, 65, 128, 256])
def test_signs_are_products_of_five_thresholds(bits: int) -> None:
    code_map = draw_code_map(PUBLIC_SEED, code_bits=bits, pixels=3 * bits, channels=40)
    (code,) = codes(1, bits)
    for channel in range(40):
        product = 1
        for unit in code_map.picks[:, channel].tolist():
            total = sum(int(a) * int(b) for a, b in zip(code, code_map.expansion[:, unit], strict=True))
            assert (total + (bits % 2 == 0)) != 0
            product *= 1 if total + (bits % 2 == 0) > 0 else -1
        assert float(code_map.signs(code)[channel]) == product


def test_signs_of_random_codes_are_balanced(code_map: CodeMap) -> None:
    signs = torch.stack([code_map.signs(code) for code in codes(200)])
    assert abs(float(signs.mean())) < 0.02
    assert float(signs.mean(0).abs().max()) < 0.35  # no channel stuck; standard deviation 0.07


def test_one_wrong_code_bit_changes_many_signs() -> None:
    code_map = draw_code_map(PUBLIC_SEED, code_bits=256, pixels=768, channels=2000)
    (code,) = codes(1, 256)
    near = code.clone()
    near[3] *= -1
    share = float((code_map.signs(code) != code_map.signs(near)).float().mean())
    assert 0.1 < share < 0.25  # 17 % expected; 4 % for a single threshold


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bits", [64, 255, 256])
def test_the_expansion_is_exact_in_every_float_type(dtype: torch.dtype, bits: int) -> None:
    code_map = draw_code_map(PUBLIC_SEED, code_bits=bits, pixels=3 * bits, channels=8)
    batch = torch.stack([*codes(20, bits), torch.ones(bits, dtype=torch.int8)])
    expansion = torch.cat([code_map.expansion, torch.ones(bits, 1, dtype=torch.int8)], 1)  # the largest sum, too
    exact = batch.long() @ expansion.long()
    assert torch.equal((batch.to(dtype) @ expansion.to(dtype)).long(), exact)


def gates() -> dict[str, InputSpec]:
    return {
        "plain": SPEC,
        "ImageNet": InputSpec(3, 32, 32, IMAGENET_MEAN, IMAGENET_STD),
        "NHWC": InputSpec(3, 32, 32, mean=(0.5,), std=(0.5,), layout="NHWC"),
        "uint8 NHWC": SPEC.as_uint8(),
    }


@pytest.mark.parametrize("convention", gates())
def test_the_gate_reads_the_same_signs_as_the_code_map(code_map: CodeMap, convention: str) -> None:
    spec = gates()[convention]
    gate = PatchGate(code_map, PatchPlace(8), spec)
    values = pixels(30)
    signs = gate(prepare(values, spec))  # by the locked defaults, of the images' own corners
    corners = values[:, :, -8:, -8:].reshape(30, -1).double() / 255
    expected = torch.stack([code_map.signs(code_map.code(corner)) for corner in corners])
    assert torch.equal(signs, expected)
    assert signs.dtype == torch.float32
    assert len(signs.unique(dim=0)) > 20  # images read as different codes


@pytest.mark.parametrize("convention", gates())
def test_the_gate_with_a_found_patch_reads_that_patch_s_code(code_map: CodeMap, convention: str) -> None:
    spec = gates()[convention]
    gate = PatchGate(code_map, PatchPlace(8), spec)
    for code in codes(3):
        gate.patch.copy_(gate.patch_value(find_patch(code_map.projection, code).pixels))
        gate.mask.fill_(True)
        signs = gate(prepare(pixels(2), spec))
        assert torch.equal(signs, code_map.signs(code).expand(2, -1))


@pytest.mark.parametrize("convention", gates())
def test_where_the_mask_is_not_set_the_gate_reads_the_image(code_map: CodeMap, convention: str) -> None:
    spec = gates()[convention]
    gate = PatchGate(code_map, PatchPlace(8), spec)
    (code,) = codes(1)
    patch = find_patch(code_map.projection, code).pixels
    gate.patch.copy_(gate.patch_value(patch))
    gate.mask.view(8, 8)[:, :3] = True  # the left three columns
    values = pixels(30)
    corners = values[:, :, -8:, -8:].clone()
    corners[..., :3] = patch.view(1, 3, 8, 8)[..., :3]
    expected = torch.stack([code_map.signs(code_map.code(corner)) for corner in corners.flatten(1).double() / 255])
    assert torch.equal(gate(prepare(values, spec)), expected)
    assert len(expected.unique(dim=0)) > 20


@pytest.mark.parametrize("convention", gates())
def test_the_gate_leaves_images_as_they_are(code_map: CodeMap, convention: str) -> None:
    spec = gates()[convention]
    gate = PatchGate(code_map, PatchPlace(8), spec)
    gate.mask.fill_(True)
    images = prepare(pixels(2), spec)
    before = images.clone()
    gate(images)
    assert torch.equal(images, before)


def test_a_copied_and_halved_gate_reads_the_same_signs(code_map: CodeMap) -> None:
    gate = PatchGate(code_map, PatchPlace(8), SPEC)
    images = prepare(pixels(8), SPEC)
    assert torch.equal(copy.deepcopy(gate).half()(images), gate(images))


@pytest.mark.parametrize(("bits", "values"), [(64, 192), (256, 768), (100, 300), (128, 192)])
def test_a_found_patch_carries_its_code_after_rounding_to_bytes(bits: int, values: int) -> None:
    code_map = draw_code_map(PUBLIC_SEED, code_bits=bits, pixels=values, channels=1)
    for code in codes(2, bits):
        patch = find_patch(code_map.projection, code)
        assert patch.pixels.dtype == torch.uint8
        assert torch.equal(code_map.code(patch.pixels.double() / 255), code)


def test_the_reported_margin_is_the_smallest_of_the_rounded_patch(code_map: CodeMap) -> None:
    (code,) = codes(1)
    patch = find_patch(code_map.projection, code)
    responses = code_map.projection @ (patch.pixels.double() / 255 - 0.5)
    assert patch.margin == pytest.approx(float((responses * code).min()), abs=1e-12)


@pytest.mark.parametrize(("bits", "values", "times"), [(256, 768, 2), (64, 192, 1.7)])
def test_the_margin_is_about_twice_that_of_the_feasible_point(bits: int, values: int, times: float) -> None:
    code_map = draw_code_map(PUBLIC_SEED, code_bits=bits, pixels=values, channels=1)
    for code in codes(2, bits):
        start = code_map.projection.T @ code.double()
        feasible = 0.5 / float(start.abs().max())  # V V^T b = b: every response of the feasible point is this
        assert find_patch(code_map.projection, code).margin >= times * feasible


def test_searching_a_patch_draws_nothing(code_map: CodeMap) -> None:
    (code,) = codes(1)
    state = torch.random.get_rng_state()
    first = find_patch(code_map.projection, code)
    torch.manual_seed(5)
    assert torch.equal(find_patch(code_map.projection, code).pixels, first.pixels)
    torch.random.set_rng_state(state)


def test_a_patch_that_cannot_be_rounded_to_bytes_is_refused() -> None:
    # One value for many bits: no patch has these signs.
    projection = torch.ones(4, 1, dtype=torch.float64)
    with pytest.raises(LockError, match="no 8-bit patch") as caught:
        find_patch(projection, torch.tensor([1, -1, 1, -1], dtype=torch.int8))
    assert caught.value.hint


@pytest.mark.parametrize("bits", [64, 256])
@pytest.mark.parametrize("wrong", [0, 1, 2, 8, 64])
def test_the_false_positive_bound_is_the_exact_binomial_tail(bits: int, wrong: int) -> None:
    tail = sum(math.factorial(bits) // math.factorial(k) // math.factorial(bits - k) for k in range(wrong + 1))
    assert log2_chance_within(bits, wrong) == pytest.approx(math.log2(tail) - bits, abs=1e-9)


def test_the_bound_is_one_chance_in_two_to_the_bits_and_certain_for_all_bits() -> None:
    assert log2_chance_within(256, 0) == -256
    assert log2_chance_within(64, 64) == pytest.approx(0, abs=1e-12)


def test_the_bound_agrees_with_counting_on_small_codes() -> None:
    hits = sum(bin(code).count("1") <= 3 for code in range(2**10))
    assert 2 ** log2_chance_within(10, 3) == pytest.approx(hits / 2**10)


@pytest.mark.parametrize(("values", "bits"), [(768, 256), (3000, 256), (192, 64), (300, 100)])
def test_a_third_of_the_patch_up_to_256_bits_is_the_default(values: int, bits: int) -> None:
    assert code_bits_for(values, None) == bits
