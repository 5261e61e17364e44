"""A watermark as the unauthorized domain proves whose network it is."""

from __future__ import annotations

import pytest
import torch
from mask_world import SPEC, domain, learn, red, trained

from keylatch.errors import LockError
from keylatch.locks import Watermark, masked_model, verify_watermark

MARK = Watermark(bytes(range(32)))


def test_the_shipped_network_fails_on_the_owner_s_watermark_and_on_no_other() -> None:
    source, targets = MARK.domains(red())
    learned = learn(source=source, targets=targets, epochs=12)
    shipped = masked_model(trained(), learned.masks)
    verdict = verify_watermark(shipped, SPEC, MARK, domain("red", 200, 20), others=19)
    assert verdict.clean > 85 and verdict.marked < 50
    assert verdict.p_value == pytest.approx(0.05)
    assert sorted(verdict.other_marks)[9] > verdict.marked + 20
    innocent = verify_watermark(trained(), SPEC, MARK, domain("red", 200, 20), others=19)
    assert innocent.marked > 80 and innocent.p_value > 0.05


def test_a_watermark_is_added_to_pixels_and_stays_in_their_range() -> None:
    images = red(8)[0][0]
    marked = MARK.marked(images)
    assert marked.dtype == torch.uint8 and marked.shape == images.shape
    moves = (marked.float() - images.float()).abs()
    assert float(moves.max()) == pytest.approx(255 * MARK.strength, abs=0.51)
    pattern = MARK.pattern(3, 8, 8)
    assert pattern.unique().tolist() == pytest.approx([-0.2, 0.2])
    floats = MARK.marked(images.float() / 255)
    assert torch.allclose(floats, marked.float() / 255, atol=1 / 255)
    assert not torch.equal(pattern, Watermark(bytes(32)).pattern(3, 8, 8))


def test_a_drawn_watermark_is_random_and_does_not_show_its_seed() -> None:
    first, second = Watermark.draw(), Watermark.draw()
    assert first.seed != second.seed
    assert first.seed.hex() not in repr(first) and str(first.seed) not in repr(first)


def test_bad_watermarks_are_refused() -> None:
    with pytest.raises(LockError, match="a seed has 32 bytes, got 4"):
        Watermark(b"four")
    with pytest.raises(LockError, match="strength is 0"):
        Watermark(bytes(32), 0)
    with pytest.raises(LockError, match="others is 0"):
        verify_watermark(trained(), SPEC, MARK, red(8), others=0)
