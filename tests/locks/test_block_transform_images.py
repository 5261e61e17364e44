"""Which images a block transform takes, wherever and however they lie, and what it says of those it does not take."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from keylatch.errors import LockError
from keylatch.locks._block_transform import BlockTransform, Step

SEED = bytes(range(32))
COMBINATIONS: list[list[Step]] = [["shf"], ["np"], ["ffx"], ["shf", "np"], ["np", "shf", "ffx"]]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def draw(*steps: Step, block_size: int = 4, channels: int = 3) -> BlockTransform:
    return BlockTransform.draw(steps, block_size=block_size, channels=channels, seed=SEED)


def bytes_of(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("steps", COMBINATIONS, ids="+".join)
def test_every_image_and_block_is_transformed_alike(steps: list[Step]) -> None:
    block = bytes_of(1, 3, 4, 4)
    shown = draw(*steps).values(block)
    assert torch.equal(draw(*steps).values(block.repeat(3, 1, 2, 5)), shown.repeat(3, 1, 2, 5))


def test_images_may_lie_in_memory_in_any_way() -> None:
    pixels = bytes_of(2, 3, 8, 12)
    key = draw("shf", "np", "ffx")
    for laid in (pixels.contiguous(memory_format=torch.channels_last), pixels.mT.contiguous().mT):
        assert not laid.is_contiguous()
        assert torch.equal(key.values(laid), key.values(pixels))
    assert key.values(pixels).is_contiguous()


def test_an_empty_batch_stays_empty() -> None:
    for pixels in (torch.zeros(0, 3, 8, 8), bytes_of(0, 3, 8, 8)):
        assert draw("shf", "ffx").values(pixels).shape == (0, 3, 8, 8)


def test_gradients_go_back_through_linear_steps() -> None:
    pixels = torch.rand((1, 3, 4, 4), generator=torch.Generator().manual_seed(0)).requires_grad_()
    key = draw("shf", "np")
    key.values(pixels).sum().backward()
    signs = torch.zeros(48).index_copy(0, key.permutation, 1 - 2 * key.negated.float())
    assert torch.equal(pixels.grad.permute(0, 2, 3, 1).reshape(48), signs)


class Images(Dataset):
    def __init__(self, key: BlockTransform) -> None:
        self.key = key

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.key.values(bytes_of(1, 3, 8, 8, seed=index))[0]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_data_loader_with_workers_gives_the_same() -> None:
    key = draw("shf", "np", "ffx")
    expected = key.values(torch.cat([bytes_of(1, 3, 8, 8, seed=index) for index in range(4)]))
    loader = DataLoader(Images(key), batch_size=4, num_workers=1, multiprocessing_context="fork", timeout=120)
    assert torch.equal(next(iter(loader)), expected)


@pytest.mark.parametrize("steps", COMBINATIONS, ids="+".join)
def test_the_key_follows_the_images_to_their_device(steps: list[Step]) -> None:
    """The meta device has shapes and no values, and takes no tensors that were left behind."""
    shown = draw(*steps).values(bytes_of(2, 3, 8, 8).to("meta"))
    assert (shown.device.type, shown.shape) == ("meta", (2, 3, 8, 8))


@pytest.mark.gpu
@pytest.mark.parametrize("steps", COMBINATIONS, ids="+".join)
def test_a_gpu_gives_the_same_bits(steps: list[Step]) -> None:
    pixels, key = bytes_of(4, 3, 32, 32), draw(*steps)
    for images in (pixels, pixels / 255):
        assert torch.equal(key.values(images.cuda()).cpu(), key.values(images))


BAD_IMAGES = [
    ((3, 8, 8), r"images of shape \(3, 8, 8\) are no batch, expected \(N, 3, H, W\)"),
    ((1, 1, 3, 8, 8), r"are no batch"),
    ((1, 1, 8, 8), r"images are grayscale \(1 channel\), the block key is for RGB \(3 channels\)"),
    ((1, 4, 8, 8), r"images are RGBA \(4 channels\), the block key is for RGB \(3 channels\)"),
    ((1, 8, 8, 3), r"images are of 8 channels, the block key is for RGB"),
    ((1, 3, 224, 225), r"224 x 225 is not divisible into blocks of 4 x 4"),
    ((1, 3, 6, 8), r"6 x 8 is not divisible into blocks of 4 x 4"),
]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("shape", "message"), BAD_IMAGES)
def test_images_of_another_kind_or_size_are_refused(shape: tuple[int, ...], message: str, dtype: torch.dtype) -> None:
    for key in (draw("shf"), draw("ffx")):
        with pytest.raises(LockError, match=message) as caught:
            key.values(torch.zeros(shape, dtype=dtype))
        assert caught.value.hint
    if dtype == torch.uint8:
        with pytest.raises(LockError, match=message):
            draw("shf").bytes(torch.zeros(shape, dtype=dtype))


def test_color_images_do_not_fit_a_key_for_grayscale_ones() -> None:
    with pytest.raises(LockError, match=r"images are RGB \(3 channels\), .* grayscale \(1 channel\)") as caught:
        draw("shf", channels=1).values(bytes_of(1, 3, 8, 8))
    assert "convert('L')" in str(caught.value.hint)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0, float("nan"), float("inf"), float("-inf")])
def test_floats_outside_the_unit_interval_are_refused(value: float, dtype: torch.dtype) -> None:
    pixels = torch.full((2, 3, 8, 8), 0.5, dtype=dtype)
    pixels[1, 2, 3, 4] = value
    for key in (draw("shf"), draw("ffx")):
        with pytest.raises(LockError, match=r"expected \[0, 1\]") as caught:
            key.values(pixels)
        assert "before normalization" in str(caught.value.hint)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int64, torch.bool, torch.complex64])
def test_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(LockError, match=f"images are {dtype}, expected uint8, or float") as caught:
        draw("shf").values(torch.zeros((1, 3, 8, 8), dtype=dtype))
    assert caught.value.hint


def test_bytes_of_ffx_and_of_floats_are_refused() -> None:
    with pytest.raises(LockError, match="numbers after ffx reach 999 and are no bytes") as caught:
        draw("shf", "ffx").bytes(bytes_of(1, 3, 8, 8))
    assert caught.value.hint
    with pytest.raises(LockError, match=r"images are torch.float32, expected uint8") as caught:
        draw("shf").bytes(torch.zeros(1, 3, 8, 8))
    assert caught.value.hint
