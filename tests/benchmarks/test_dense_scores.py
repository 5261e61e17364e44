"""Average precision and mean intersection over union on cases that can be counted by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from data_pack.dense_scores import average_precision, mean_iou, overlaps, suppress

CAT, DOG = 3.0, 7.0
HERE, THERE = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 70.0, 60.0)
NOTHING = np.zeros((0, 6))


def boxes(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, dtype=np.float64)


def test_overlaps_are_shared_by_whole() -> None:
    corners = boxes((0, 0, 10, 10), (5, 0, 15, 10), (20, 20, 30, 30))
    assert overlaps(corners, corners) == pytest.approx(np.array([[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]]))


def test_of_boxes_that_overlap_the_best_of_each_class_stays() -> None:
    near = (1.0, 0.0, 11.0, 10.0)
    found = boxes((CAT, *HERE, 0.5), (CAT, *near, 0.9), (DOG, *HERE, 0.4), (CAT, *THERE, 0.1))
    kept = suppress(found, 0.65)
    assert [tuple(row) for row in kept] == [(CAT, *near, 0.9), (DOG, *HERE, 0.4), (CAT, *THERE, 0.1)]
    assert len(suppress(found, 0.65, most=1)) == 1


def test_perfect_boxes_have_a_precision_of_one_and_none_of_zero() -> None:
    real = [boxes((CAT, *HERE), (DOG, *THERE))]
    assert average_precision([boxes((CAT, *HERE, 0.9), (DOG, *THERE, 0.2))], real) == pytest.approx(100)
    assert average_precision([NOTHING], real) == 0


def test_a_miss_before_a_hit_halves_precision_and_a_second_guess_is_a_miss() -> None:
    real = [boxes((CAT, *HERE))]
    assert average_precision([boxes((CAT, *THERE, 0.9), (CAT, *HERE, 0.8))], real) == pytest.approx(50)
    assert average_precision([boxes((CAT, *HERE, 0.9), (CAT, *HERE, 0.8))], real) == pytest.approx(100)


def test_half_of_the_boxes_found_gives_half_of_the_recalls() -> None:
    real = [boxes((CAT, *HERE)), boxes((CAT, *THERE))]
    found = [boxes((CAT, *HERE, 0.9)), NOTHING]
    assert average_precision(found, real) == pytest.approx(100 * 51 / 101)


def test_mean_iou_counts_classes_that_occur_and_leaves_out_what_is_not_judged() -> None:
    real = np.array([[0, 0, 1, 1], [0, 0, 1, 255]], dtype=np.uint8)
    found = np.array([[0, 0, 0, 1], [0, 0, 1, 2]])
    assert mean_iou([found], [real], 3) == pytest.approx(100 * (4 / 5 + 2 / 3) / 2)
