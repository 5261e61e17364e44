"""The rules by which attacks are judged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from audit_world import FakeAttack

from keylatch.audit import Given, Variant
from keylatch.audit._cells import Measurement
from keylatch.audit._plan import Cell
from keylatch.audit._result import BaselineResult, NotRun
from keylatch.audit._tally import attack_row, baseline_row, chance_baseline, grouped, had_less_time
from keylatch.audit._verdict import KeySpace, beats, better_baseline, judge, near_keys
from keylatch.locks import log2_chance_within

CODE = KeySpace("bits", 256, lambda wrong: log2_chance_within(256, wrong))
CHANCE = BaselineResult("chance", 0, 10.0, 10.0, 10.0, 0)


def baseline(name: str, labeled: int, accuracy: float) -> BaselineResult:
    return BaselineResult(name, labeled, accuracy, accuracy, accuracy, 2)


BASELINES = [
    baseline("from scratch", 10, 30.0), baseline("from scratch", 100, 60.0), baseline("public base", 0, 20.0),
    baseline("public base", 10, 25.0), baseline("public base", 100, 70.0),
]  # fmt: skip


def group(*accuracies: float, **variant: Any) -> list[tuple[Cell, Measurement]]:
    attack = FakeAttack(lambda case: pytest.fail(), name=variant.pop("name", "guess"))
    cut = variant.pop("truncated", False)
    chosen = Variant(**{"given": Given(), "label": "all", **variant})
    return [
        (Cell(attack, chosen, seed), Measurement(accuracy, 2.0 + seed, 9.0, {"steps": 100 + seed}, "seen", cut))
        for seed, accuracy in enumerate(accuracies)
    ]


def row(*accuracies: float, baselines: Any = BASELINES, judged: bool = True, **variant: Any) -> Any:
    return attack_row(group(*accuracies, **variant), baselines, CHANCE, judged=judged)


@pytest.mark.parametrize(
    ("recovered", "base", "expected"),
    [(15.0, 10.0, False), (15.01, 10.0, True), (55.1, 50.1, False), (64.3, 59.3, False), (9.0, 10.0, False)],
)
def test_a_break_is_more_than_five_points(recovered: float, base: float, expected: bool) -> None:
    assert beats(recovered, base) is expected


@pytest.mark.parametrize(
    ("given", "name", "accuracy"),
    [
        (Given(), "chance", 10.0),
        (Given(unlabeled=500), "chance", 10.0),
        (Given(labeled=10), "from scratch", 30.0),
        (Given(labeled=100), "public base", 70.0),
        (Given(labeled=50), "public base", 20.0),
        (Given(base=True), "public base", 20.0),
        (Given(key="a random key"), "chance", 10.0),
    ],
)
def test_an_attack_is_compared_with_the_best_that_the_same_things_give(
    given: Given, name: str, accuracy: float
) -> None:
    better = better_baseline(given, BASELINES, CHANCE)
    assert (better.name, better.accuracy) == (name, accuracy)
    assert better_baseline(given, [], CHANCE) is CHANCE


def test_a_baseline_worse_than_chance_is_no_baseline() -> None:
    assert better_baseline(Given(labeled=10), [baseline("from scratch", 10, 7.0)], CHANCE) is CHANCE


@pytest.mark.parametrize(
    ("labels", "expected", "words"),
    [([0, 1, 2, 3], 25.0, "one of 4 classes"), ([0, 0, 0, 3], 75.0, "always the most frequent class")],
)
def test_chance_is_the_better_guess(labels: list[int], expected: float, words: str) -> None:
    chance = chance_baseline(torch.tensor(labels), 4)
    assert (chance.accuracy, chance.note) == (expected, words)


def test_the_mean_decides_and_the_spread_is_shown() -> None:
    broken = row(40.0, 34.0, given=Given(labeled=10), baselines=BASELINES[:1])
    assert (broken.recovered, broken.low, broken.high, broken.seeds, broken.broken) == (37.0, 34.0, 40.0, 2, True)
    assert (broken.baseline, broken.baseline_name, broken.seconds) == (30.0, "from scratch", 2.5)
    assert broken.cost == {"steps": 100.5}
    assert broken.note == "seen"
    holds = row(40.0, 30.0, given=Given(labeled=10), baselines=BASELINES[:1])
    assert not holds.broken
    assert holds.note == "seen; 1 of 2 seeds above the baseline's margin, the mean is not"


def test_what_no_outsider_can_do_is_no_break() -> None:
    assert not row(99.0, 99.0, counts=False).broken


def test_a_break_is_not_claimed_without_its_baseline() -> None:
    unjudged = row(99.0, 99.0, judged=False)
    assert not unjudged.broken and "not judged" in unjudged.note
    assert "not judged" not in row(9.0, judged=False).note


def test_a_break_beside_a_baseline_that_was_cut_short_says_so() -> None:
    cut = baseline_row(group(30.0, 30.0, given=Given(labeled=10), truncated=True, name="from scratch"))
    found = row(90.0, 90.0, given=Given(labeled=10), baselines=[cut])
    assert found.broken and "the baseline was cut short" in found.note
    assert "baseline" not in row(31.0, given=Given(labeled=10), baselines=[cut]).note


@pytest.mark.parametrize(
    ("labeled", "truncated", "seconds", "expected"),
    [(10, True, 9.5, True), (10, True, 8.5, False), (10, False, 9.5, False), (20, True, 9.5, False)],
)
def test_a_baseline_is_fair_if_it_had_the_attack_s_time_or_needed_no_more(
    labeled: int, truncated: bool, seconds: float, expected: bool
) -> None:
    trained = group(30.0, 30.0, given=Given(labeled=10), truncated=truncated)  # 9 s were allowed
    attack = [
        (cell, replace(measurement, seconds=seconds)) for cell, measurement in group(90.0, given=Given(labeled=labeled))
    ]
    assert had_less_time(trained, attack) is expected


def test_cells_are_grouped_by_everything_but_the_seed() -> None:
    one, other = group(1.0, 2.0, settings={"wrong_bits": 1}), group(3.0, settings={"wrong_bits": 2})
    assert grouped([one[0], other[0], one[1]]) == [one, other]


def test_the_effective_key_is_what_it_takes_to_come_near_enough() -> None:
    rows, bits = near_keys({1: [90.0, 80.0], 2: [20.0, 16.0], 4: [15.0, 15.0], 8: [11.0, 9.0]}, CODE, 10.0)
    assert [(entry.wrong, entry.opens) for entry in rows] == [(1, True), (2, True), (4, False), (8, False)]
    assert (rows[0].recovered, rows[0].low, rows[0].high, rows[0].seeds) == (85.0, 80.0, 90.0, 2)
    expected = 256 - torch.tensor(1 + 256 + 256 * 255 // 2).log2()
    assert bits == pytest.approx(float(expected), abs=1e-3)
    assert rows[1].log2_chance == -bits
    assert (rows[1].unit, rows[1].share) == ("bits", 100 / 128)


def test_a_key_that_must_be_exact_has_all_its_bits() -> None:
    assert near_keys({1: [10.0, 12.0]}, CODE, 10.0)[1] == 256
    assert near_keys({}, CODE, 10.0) == ((), None)


def test_a_lucky_key_far_out_does_not_count() -> None:
    rows, bits = near_keys({1: [10.0], 64: [16.0]}, CODE, 10.0)
    assert bits == 256 and not any(entry.opens for entry in rows)


def test_the_verdict_names_the_worst_break() -> None:
    found = judge([row(9.0), row(60.0, name="small"), row(80.0, 84.0, name="large")], 256.0, [])
    assert found.verdict == "broken"
    assert found.summary == (
        "Broken: large (all) recovers 82.0 %, where the better baseline, chance, has 10.0 %; 1 more beat theirs."
    )


@pytest.mark.parametrize(("bits", "verdict"), [(79.9, "broken"), (80.0, "holds"), (None, "holds")])
def test_a_key_worth_less_than_80_bits_is_a_break(bits: float | None, verdict: str) -> None:
    found = judge([row(9.0)], bits, [])
    assert found.verdict == verdict
    assert ("80 bits" in found.summary) == (verdict == "broken")


def test_a_lock_that_was_not_fully_attacked_does_not_hold() -> None:
    missing = [NotRun(f"attack-{number}", "all, seed 1", "no time was left") for number in range(5)]
    found = judge([row(9.0)], 256.0, missing)
    assert found.verdict == "incomplete"
    assert "5 measurements were not made: attack-0 (all, seed 1)" in found.summary and "and 2 more" in found.summary
    cut = judge([row(9.0, truncated=True)], 256.0, [])
    assert cut.verdict == "incomplete" and "1 measurement was cut short: guess (all)" in cut.summary
    assert judge([row(90.0, truncated=True)], 256.0, missing).verdict == "broken"
    assert judge([row(9.0)], 256.0, [NotRun("jpeg", "75", "no time was left", matters=False)]).verdict == "holds"


def test_a_lock_that_holds_says_how_near_the_nearest_came() -> None:
    found = judge([row(9.0), row(33.0, name="near", given=Given(labeled=10), baselines=BASELINES[:1])], 256.0, [])
    assert found.verdict == "holds"
    assert found.summary == (
        "It holds: no attack comes more than 5 points above the better baseline. The nearest is near (all) with "
        "33.0 %, beside 30.0 % from the network trained from scratch."
    )
