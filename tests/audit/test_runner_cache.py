"""What was measured is not measured again, and nothing else is taken for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from audit_world import FakeAttack, FakeTime, Shipped, Watcher, distinct_images, knowing, plan, run, small_scene

from keylatch.audit import (
    AuditImages,
    AuditOptions,
    Case,
    Clock,
    Given,
    Outcome,
    PlainNetwork,
    Scene,
    Variant,
    run_audit,
)


@pytest.fixture
def scene(shipped: Shipped) -> Scene:
    return small_scene(shipped.target)


def half_right(scene: Scene, **changes: Any) -> FakeAttack:
    return FakeAttack(lambda case: Outcome(knowing(scene.images.evaluation, 50), {"steps": 3}, "found"), **changes)


def test_a_second_run_measures_nothing_and_finds_the_same(scene: Scene, tmp_path: Path) -> None:
    first, second = half_right(scene), half_right(scene)
    before = run(scene, [first], tmp_path).measured
    after = run(scene, [second], tmp_path).measured
    assert len(first.cases) == 2 and second.cases == []
    assert [measurement for _, measurement in after] == [measurement for _, measurement in before]


def test_a_run_that_was_stopped_goes_on_where_it_was(scene: Scene, tmp_path: Path) -> None:
    attacks = [half_right(scene, name=f"attack-{number}") for number in range(4)]
    kept = attacks[2].work

    def stop(case: Case) -> Outcome:
        raise KeyboardInterrupt

    attacks[2].work = stop
    with pytest.raises(KeyboardInterrupt):
        run(scene, attacks, tmp_path)
    attacks[2].work = kept
    for attack in attacks:
        attack.cases.clear()
    runner = run(scene, attacks, tmp_path)
    assert [[case.variant for case in attack.cases].__len__() for attack in attacks] == [1, 1, 2, 2]
    assert len(runner.measured) == 8


def _other_images(scene: Scene, **parts: Any) -> Scene:
    return replace(scene, images=AuditImages(**{
        "attacker": scene.images.attacker, "evaluation": scene.images.evaluation, "classes": 10, **parts
    }))  # fmt: skip


CHANGES: dict[str, Callable[[Scene, Shipped], tuple[Scene, dict[str, Any], list[int]]]] = {
    "attack": lambda scene, shipped: (scene, {"name": "other"}, [0]),
    "version": lambda scene, shipped: (scene, {"version": 2}, [0]),
    "given": lambda scene, shipped: (scene, {"budgets": [Variant(Given(unlabeled=3), "small")]}, [0]),
    "label": lambda scene, shipped: (scene, {"budgets": [Variant(Given(), "large")]}, [0]),
    "settings": lambda scene, shipped: (scene, {"budgets": [Variant(Given(), "small", {"steps": 2})]}, [0]),
    "seed": lambda scene, shipped: (scene, {}, [1]),
    "attacker's images": lambda scene, shipped: (_other_images(scene, attacker=distinct_images(199)), {}, [0]),
    "model": lambda scene, shipped: (replace(scene, target=replace(scene.target, model_id="0" * 64)), {}, [0]),
    "owner": lambda scene, shipped: (replace(scene, owner=shipped.owner), {}, [0]),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_a_result_depends_on_is_in_its_key(what: str, scene: Scene, shipped: Shipped, tmp_path: Path) -> None:
    budget = [Variant(Given(), "small", {"steps": 1})]
    run(scene, [half_right(scene, budgets=budget)], tmp_path, seeds=[0])
    changed, changes, seeds = CHANGES[what](scene, shipped)
    attack = half_right(scene, **{"budgets": budget, **changes})
    run(changed, [attack], tmp_path, seeds=seeds)
    assert len(attack.cases) == 1


def test_evaluation_images_and_base_are_in_the_key(scene: Scene, shipped: Shipped) -> None:
    def keys(scene: Scene, **given: Any) -> list[Any]:
        return [cell.facts(scene) for cell in plan(scene, [half_right(scene, budgets=[Variant(Given(**given))])])]

    assert keys(scene) != keys(_other_images(scene, evaluation=distinct_images(101, start=500)))
    with_base = [replace(scene, base=PlainNetwork(shipped.target.network(), 10, sha)) for sha in ("1" * 64, "2" * 64)]
    assert keys(with_base[0], base=True) != keys(with_base[1], base=True)
    assert keys(with_base[0]) == keys(with_base[1])  # an attack without the base does not depend on it


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[" * 100_000,
        lambda text: text.replace('"accuracy"', '"accurate"'),
        lambda text: text.replace('"fake"', '"flake"'),
        lambda text: text.replace('"truncated": false', '"truncated": "no"'),
        lambda text: text.replace("keylatch-audit-cell/1", "keylatch-audit-cell/2"),
    ],
)
def test_a_damaged_file_is_ignored_with_a_note(damage: Callable[[str], str], scene: Scene, tmp_path: Path) -> None:
    def audited(attack: FakeAttack) -> Watcher:
        watcher = Watcher()
        options = AuditOptions((), seeds=(0, 1))
        run_audit(scene, [attack], options, folder=tmp_path, clock=Clock(60), watch=watcher)
        return watcher

    assert not any("damaged" in note for note in audited(half_right(scene)).said)
    cell = min(tmp_path.glob("*.json"))
    assert damage(cell.read_text()) != cell.read_text()
    cell.write_text(damage(cell.read_text()))
    attack = half_right(scene)
    assert any("1 damaged" in note for note in audited(attack).said)
    assert len(attack.cases) == 1
    assert json.loads(cell.read_text())["result"]["accuracy"] == 50.0
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json"]  # nothing temporary is left


def test_what_was_cut_short_is_tried_again_only_with_clearly_more_time(
    scene: Scene, tmp_path: Path, fake_time: FakeTime
) -> None:
    def work(case: Case) -> Outcome:
        fake_time.spend(case.clock.remaining)
        return Outcome(knowing(scene.images.evaluation, 50), truncated=True)

    def tries(seconds: float) -> int:
        attack = FakeAttack(work)
        run(scene, [attack], tmp_path, seconds=seconds, seeds=[0])
        return len(attack.cases)

    assert tries(20) == 1
    assert tries(20) == 0
    assert tries(25) == 0
    assert tries(60) == 1
    assert tries(60) == 0
