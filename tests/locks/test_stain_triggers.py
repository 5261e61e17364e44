"""Triggers of detectors: what happens to an image on its way, and that they outlive it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from stain_world import SEED, images, make, part_of, stained_convs

import networks
from keylatch.errors import LockError
from keylatch.locks._detector import _draw
from keylatch.locks._detector._disturbances import compress, disturb, resize_and_back, round_to_bytes
from keylatch.locks._randomness import SeededDraws


def jpeg_by_pillow(pixels: torch.Tensor, quality: int) -> torch.Tensor:
    """A real JPEG file there and back; (C, H, W) uint8."""
    buffer = io.BytesIO()
    array = pixels.permute(1, 2, 0).numpy()
    Image.fromarray(array if array.shape[2] == 3 else array[..., 0]).save(buffer, "JPEG", quality=quality)
    back = np.asarray(Image.open(buffer))
    return torch.from_numpy(back.reshape(array.shape).copy()).permute(2, 0, 1)


def resized_by_pillow(pixels: torch.Tensor, side: int) -> torch.Tensor:
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    back = picture.resize((side, side), Image.Resampling.BILINEAR).resize(picture.size, Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(back).copy()).permute(2, 0, 1)


@pytest.mark.parametrize("quality", [30, 50, 75, 95])
@pytest.mark.parametrize("channels", [1, 3])
def test_our_jpeg_is_nearly_that_of_a_real_encoder(quality: int, channels: int) -> None:
    pixels = networks.pixels(4, channels, 40)
    for picture in pixels:
        real = jpeg_by_pillow(picture, quality).float()
        ours = compress(picture.unsqueeze(0).float() / 255, quality)[0] * 255
        lost = (real - picture.float()).abs().mean()
        assert (ours - real).abs().mean() <= 0.35 * lost + 0.5


def test_a_size_that_is_no_whole_number_of_blocks_is_compressed_too() -> None:
    pixels = torch.rand(2, 3, 13, 21, generator=torch.Generator().manual_seed(0))
    assert compress(pixels, 90).shape == pixels.shape
    assert (compress(pixels, 95) - pixels).abs().mean() < (compress(pixels, 20) - pixels).abs().mean()


def test_disturbances_give_8_bit_pixels_in_range_and_let_gradients_pass() -> None:
    draws = SeededDraws(SEED, "test")
    for _ in range(12):
        pixels = images(2).clone().requires_grad_()
        shown = disturb(pixels, draws)
        assert shown.min() >= 0
        assert shown.max() <= 1
        torch.testing.assert_close(shown * 255, (shown * 255).round(), atol=1e-3, rtol=0)
        (gradient,) = torch.autograd.grad(shown.sum(), pixels)
        assert gradient.abs().sum() > 0


def test_rounding_is_to_8_bits() -> None:
    assert round_to_bytes(torch.tensor([0.0, 0.0021, 1.0])).tolist() == pytest.approx([0, 1 / 255, 1])
    assert resize_and_back(images(1), 0.5).shape == (1, 3, 32, 32)


def answers(stained_pixels: torch.Tensor) -> torch.Tensor:
    """v . (phi(x) - c) / T of the first stain, from the network's own layers."""
    network, stained = stained_convs()
    mark, secret = stained.secret.stains[0], stained.secret
    assert isinstance(network, torch.nn.Sequential)
    with torch.no_grad():
        value = part_of(network, 0, 6)(stained_pixels.unsqueeze(0).float() / 255)
        kernel = mark.direction.view(1, 64, 3, 5)
        reach = torch.nn.functional.conv2d(value, kernel, None, network[6].stride, network[6].padding)
    return (reach.amax() - mark.direction @ secret.center) / secret.threshold


def test_a_trigger_outlives_files_and_resizing_by_another_library() -> None:
    _, stained = stained_convs()
    pixels = stained.secret.stains[0].trigger
    facts = stained.report.stains[0]
    assert float(answers(pixels)) == pytest.approx(facts.margins["8-bit pixels"], rel=1e-4)
    assert float(answers(pixels)) >= 1.5
    assert float(answers(jpeg_by_pillow(pixels, 75))) > 1
    assert float(answers(jpeg_by_pillow(pixels, 50))) > 1
    assert float(answers(resized_by_pillow(pixels, 24))) > 1


def test_an_ascent_without_disturbances_gives_a_weaker_trigger(monkeypatch: pytest.MonkeyPatch) -> None:
    from keylatch.locks._detector import _trigger

    _, stained = stained_convs()
    with monkeypatch.context() as patched:
        patched.setattr(_trigger, "disturb", lambda pixels, draws: pixels)
        bare = make(networks.settle(networks.PaddedConvs), layers=["6"]).report.stains[0]
    assert min(bare.margins.values()) < min(stained.report.stains[0].margins.values())


def test_a_mask_keeps_the_rest_of_the_image() -> None:
    from keylatch.locks._detector._trigger import find_triggers

    mask = torch.zeros(8, 8)
    mask[4:, 4:] = 1
    start = torch.full((1, 3, 8, 8), 0.4)
    (trigger,) = find_triggers(
        lambda pixels: pixels.flatten(1).sum(1, keepdim=True),
        start,
        100.0,
        SeededDraws(SEED, "test"),
        mask=mask,
        steps=40,
    )
    changed = (trigger.pixels != 102).any(0)
    assert changed[4:, 4:].all()
    assert not changed[:4].any()


def test_a_trigger_that_misses_its_margin_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_draw, "MARGIN", 1e6)
    monkeypatch.setattr(_draw, "MAX_TRIES", 2)
    original = _draw.find_triggers
    monkeypatch.setattr(_draw, "find_triggers", lambda *given, **options: original(*given, **{**options, "steps": 20}))
    with pytest.raises(
        LockError, match=r"no trigger reaches its margin in 6: the best of 2 .* expected 1000000"
    ) as caught:
        make(networks.settle(networks.PaddedConvs), layers=["6"])
    assert "another layer" in (caught.value.hint or "")
