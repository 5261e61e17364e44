"""The budget is kept: by sharing the time out, and by leaving out what there is no time for. No real time passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from audit_world import FakeAttack, FakeTime, Shipped, Watcher, knowing, plan, run, small_scene

from keylatch.audit import AuditOptions, Case, Clock, Given, Outcome, Scene, Survival, Variant, run_audit
from keylatch.audit._cells import CellStore
from keylatch.audit._result import SurvivalRow
from keylatch.audit._runner import Runner
from keylatch.audit._timetable import Timetable


@pytest.fixture
def scene(shipped: Shipped) -> Scene:
    return small_scene(shipped.target)


def working(
    scene: Scene, time: FakeTime, *, wanted: float, step: float = 0.5, evaluation: float = 0.0, weight: float = 1.0,
    name: str = "fake", budgets: int = 1,
) -> FakeAttack:  # fmt: skip
    """An attack that wants so many seconds, and looks at the clock once a step; its model takes time to measure too."""
    known = knowing(scene.images.evaluation, 10)

    def predict(batch: torch.Tensor) -> torch.Tensor:
        time.spend(evaluation * len(batch) / 100)
        return known(batch)

    def work(case: Case) -> Outcome:
        spent = 0.0
        while spent < wanted and not case.clock.expired:
            time.spend(step)
            spent += step
        return Outcome(predict, truncated=spent < wanted)

    return FakeAttack(work, [Variant(Given(), f"budget {n}", weight=weight) for n in range(budgets)], name=name)


@pytest.mark.parametrize("seconds", [30.0, 120.0, 600.0])
@pytest.mark.parametrize("evaluation", [0.0, 1.5])
@pytest.mark.parametrize("step", [0.1, 1.5])
def test_greedy_attacks_take_the_budget_and_hardly_more(
    seconds: float, evaluation: float, step: float, scene: Scene, tmp_path: Path, fake_time: FakeTime
) -> None:
    attack = working(scene, fake_time, wanted=1e6, step=step, evaluation=evaluation, budgets=10)
    start = fake_time.now
    runner = run(scene, [attack], tmp_path, seconds=seconds)
    assert 0.7 * seconds <= fake_time.now - start <= 1.1 * seconds
    assert all(measurement.truncated for _, measurement in runner.measured)


def test_evaluations_to_come_are_kept_back(scene: Scene, tmp_path: Path, fake_time: FakeTime) -> None:
    attack = working(scene, fake_time, wanted=1e6, step=0.1, evaluation=1.5, budgets=20)
    runner = run(scene, [attack], tmp_path, seconds=65, seeds=[0])
    assert len(runner.measured) >= 19  # the first one is run before anybody knows how long an evaluation takes


@pytest.mark.parametrize("evaluation", [8.0, 12.0, 19.0, 25.0])
def test_no_cell_begins_that_could_not_be_measured_in_time(
    evaluation: float, scene: Scene, tmp_path: Path, fake_time: FakeTime
) -> None:
    start = fake_time.now
    attack = working(scene, fake_time, wanted=1e6, step=1.4, evaluation=evaluation, budgets=9)
    run(scene, [attack], tmp_path, seconds=60)
    assert fake_time.now - start <= 66


def test_time_that_is_not_used_goes_to_the_others(scene: Scene, tmp_path: Path, fake_time: FakeTime) -> None:
    quick = working(scene, fake_time, wanted=1, name="quick", budgets=9, weight=1)
    slow = working(scene, fake_time, wanted=60, name="slow", weight=1)
    runner = run(scene, [quick, slow], tmp_path, seconds=200, seeds=[0])
    assert not any(measurement.truncated for _, measurement in runner.measured)  # an even share were 20 s


def test_shares_go_by_weight(scene: Scene, tmp_path: Path, fake_time: FakeTime) -> None:
    light = working(scene, fake_time, wanted=1e6, step=0.01, weight=1, name="light")
    heavy = working(scene, fake_time, wanted=1e6, step=0.01, weight=3, name="heavy")
    runner = run(scene, [light, heavy], tmp_path, seconds=100, seeds=[0])
    first, second = (measurement.seconds for _, measurement in runner.measured)
    assert second / first == pytest.approx(3, rel=0.05)


def test_what_there_is_no_time_for_is_listed(scene: Scene, tmp_path: Path, fake_time: FakeTime) -> None:
    attack = working(scene, fake_time, wanted=5, evaluation=4, budgets=6)
    runner = run(scene, [attack], tmp_path, seconds=30)
    assert 0 < len(runner.measured) < 12
    assert len(runner.measured) + len(runner.skipped) == 12
    assert {cut.reason for cut in runner.skipped} == {"no time was left"}
    assert [cell.seed for cell, _ in runner.measured] == [0] * len(runner.measured)  # broad first


def test_what_was_cut_short_gets_what_the_others_left(scene: Scene, tmp_path: Path, fake_time: FakeTime) -> None:
    first = working(scene, fake_time, wanted=30, weight=0.1, name="first")
    later = working(scene, fake_time, wanted=1, weight=10, name="later")
    runner = run(scene, [first, later], tmp_path, seconds=100, seeds=[0])
    assert len(first.cases) == 2
    assert not runner.measured[0][1].truncated


def test_evaluation_is_not_counted_as_the_attack_s_time(scene: Scene, tmp_path: Path, fake_time: FakeTime) -> None:
    attack = working(scene, fake_time, wanted=2, evaluation=7)
    assert run(scene, [attack], tmp_path).measured[0][1].seconds == pytest.approx(2)


def test_changes_are_measured_once_and_left_out_when_time_is_up(
    scene: Scene, tmp_path: Path, fake_time: FakeTime
) -> None:
    changes = [SurvivalRow("pruning", f"{share} %", None, None) for share in (10, 50, 90)]
    measured: list[str] = []

    def measure(change, target, owner, images):  # type: ignore[no-untyped-def]
        measured.append(change.setting)
        fake_time.spend(2)
        return SurvivalRow(change.name, change.setting, None, 12, "as it is")

    def audited(seconds: float, folder: Path) -> Runner:
        runner = Runner(scene, CellStore(folder), Timetable(Clock(seconds)), Watcher())
        attack = working(scene, fake_time, wanted=1e6, evaluation=0.1)
        runner.run(plan(scene, [attack]), Survival(changes, measure))
        return runner

    runner = audited(100, tmp_path / "one")
    assert [row.locked for row in runner.survival] == [12.0] * 3 and measured == ["10 %", "50 %", "90 %"]
    again = audited(100, tmp_path / "one")
    assert again.survival == runner.survival and len(measured) == 3
    cut = audited(-1, tmp_path / "two")
    assert cut.survival == [] and len(measured) == 3
    assert [row.reason for row in cut.missing_changes] == ["no time was left"] * 3
    assert not any(row.matters for row in cut.missing_changes)


def test_the_minutes_in_the_result_are_those_that_went_by(scene: Scene, tmp_path: Path, fake_time: FakeTime) -> None:
    attack = working(scene, fake_time, wanted=30)
    options = AuditOptions((), minutes=10, loading_seconds=60)
    result = run_audit(scene, [attack], options, folder=tmp_path, clock=Clock(540), watch=Watcher())
    assert result.minutes == {"asked": 10, "used": pytest.approx(2)}
