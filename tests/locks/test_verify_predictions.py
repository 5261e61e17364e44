"""Stains found from predictions alone: an exact test that assumes nothing of the suspect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from stain_world import stained_convs

import networks
from keylatch.errors import LockError
from keylatch.locks import StainMark, StainSecret, verify_stain_predictions

LEVEL = 0.04  # two stains among eight probes: 1/28 at best


def predictions_of(network: torch.nn.Module, secret: StainSecret) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = networks.outputs_of(network, secret.probes().float() / 255).numpy()
    return values


def made_up(stains: int, decoys: int, classes: int = 6, seed: int = 0) -> StainSecret:
    """A secret with random outputs, for the statistics alone."""
    generator = torch.Generator().manual_seed(seed)

    def draw(place: int) -> StainMark:
        before = torch.randn(classes, generator=generator)
        after = before + 3 * torch.randn(classes, generator=generator)
        return StainMark(torch.ones(4) / 2, place, torch.zeros(1, 2, 2, dtype=torch.uint8), 1.0, -1.0, before, after)

    marks = tuple(draw(place) for place in range(stains + decoys))
    order = torch.randperm(stains + decoys, generator=generator)
    return StainSecret(
        "0.weight", "replacement", networks.SPEC, torch.zeros(4), 1.0, marks[:stains], marks[stains:], order, bytes(32)
    )


def answers(secret: StainSecret, *, stained: bool) -> npt.NDArray[Any]:
    """What a perfect copy of the stained or unstained network would predict."""
    rows = [mark.expected if stained and place < len(secret.stains) else mark.original
            for place, mark in enumerate(secret.marks)]  # fmt: skip
    return torch.stack(rows)[secret.order].numpy()


def test_a_stained_network_is_told_from_an_unstained_one_by_logits_probabilities_or_classes() -> None:
    network, stained = stained_convs()
    secret = stained.secret
    for predictions in (
        predictions_of(stained.model, secret),
        torch.softmax(torch.from_numpy(predictions_of(stained.model, secret)), 1).numpy(),
    ):
        verdict = verify_stain_predictions(predictions, secret, significance=LEVEL)
        assert verdict.stained
        assert verdict.p_value == verdict.smallest_p_value == pytest.approx(1 / 28)
        assert min(verdict.likeness) > 0.7 > 0.3 > max(verdict.decoy_likeness)
    assert not verify_stain_predictions(predictions_of(network, secret), secret, significance=LEVEL).stained
    labels = made_up(4, 16)
    classes = answers(labels, stained=True).argmax(1)
    assert verify_stain_predictions(classes, labels).stained
    assert not verify_stain_predictions(answers(labels, stained=False).argmax(1), labels).stained


def test_what_softmax_does_not_see_does_not_count() -> None:
    secret = made_up(3, 9)
    shifted = answers(secret, stained=True) + np.arange(12)[:, None]
    assert verify_stain_predictions(shifted, secret).likeness == pytest.approx((1, 1, 1), abs=1e-4)


def test_innocent_suspects_have_p_values_as_chance_has_them() -> None:
    draws = np.random.default_rng(0)
    values = np.array([
        verify_stain_predictions(draws.normal(size=(9, 6)), made_up(2, 7, seed=seed), significance=0.05).p_value
        for seed in range(800)
    ])  # fmt: skip
    for level in (1 / 36, 0.1, 0.3):
        assert abs((values <= level).mean() - np.floor(level * 36 + 1e-9) / 36) < 4 * np.sqrt(level / 800)


def test_a_suspect_that_likes_every_stain_and_every_decoy_is_not_accused() -> None:
    secret = made_up(4, 16)
    all_of_them = torch.stack([mark.expected for mark in secret.marks])[secret.order].numpy()
    verdict = verify_stain_predictions(all_of_them, secret)
    assert not verdict.stained
    assert verdict.p_value > 0.5


def test_many_probes_are_judged_by_random_choices() -> None:
    secret = made_up(10, 40)
    verdict = verify_stain_predictions(answers(secret, stained=True), secret)
    assert verdict.p_value == verdict.smallest_p_value == pytest.approx(1e-5, rel=1e-3)


@pytest.mark.parametrize(
    ("stains", "decoys", "missing", "message"),
    [
        (1, 0, 0, "too few predictions for a verdict: 1 stains among 0 decoys give a p-value of 1 at best"),
        (1, 20, 0, "1 stains among 20 decoys give a p-value of 0.048 at best, expected 0.01"),
        (4, 16, 17, "too few predictions"),
    ],
)
def test_too_few_predictions_are_no_verdict(stains: int, decoys: int, missing: int, message: str) -> None:
    secret = made_up(stains, decoys)
    given = answers(secret, stained=True).astype(float)
    given[:missing] = np.nan
    with pytest.raises(LockError, match=message) as caught:
        verify_stain_predictions(given, secret)
    assert caught.value.hint


def test_a_few_missing_predictions_are_left_out() -> None:
    secret = made_up(4, 16)
    given = answers(secret, stained=True).astype(float)
    given[:3] = np.nan
    verdict = verify_stain_predictions(given, secret)
    assert verdict.stains + verdict.decoys == 17
    assert verdict.stained


def test_predictions_of_another_number_or_width_are_refused() -> None:
    secret = made_up(4, 16)
    with pytest.raises(LockError, match="19 predictions for 20 probes"):
        verify_stain_predictions(answers(secret, stained=True)[1:], secret)
    with pytest.raises(LockError, match="predictions have 5 scores, expected 6"):
        verify_stain_predictions(answers(secret, stained=True)[:, 1:], secret)
    unrecorded = tuple(replace(mark, original=torch.zeros(0), expected=torch.zeros(0)) for mark in secret.marks)
    with pytest.raises(LockError, match="too large to be recorded"):
        verify_stain_predictions(
            answers(secret, stained=True), replace(secret, stains=unrecorded[:4], decoys=unrecorded[4:])
        )
