"""Every change has a row, mild ones leave the lock as it is, and what cannot be done says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from survival_world import World, change, code_world, row

from keylatch.audit._clock import Clock
from keylatch.audit.survival import Change, SurvivalRow, measure, measure_survival, survival_changes
from keylatch.audit.survival._change import Changed, Subject, Unable

MILD = [
    ("fp16", "whole graph"), ("fp16", "gate in float32"), ("bf16", "PyTorch"), ("int8", "dynamic"), ("int8", "static"),
    ("onnxruntime optimization", "disabled"), ("onnxruntime optimization", "basic"),
    ("onnxruntime optimization", "extended"), ("onnxruntime optimization", "all"), ("pruning", "10 %"),
    ("JPEG", "quality 95"), ("JPEG", "quality 85"), ("JPEG", "quality 75"), ("resize", "125 % and back"),
]  # fmt: skip
NEARLY = 4.0  # percentage points; 200 images
CHANCE = 30.0  # ten classes: a scrambled network may do somewhat better than 10 %


def test_every_change_has_a_row_in_report_order(rows: list[SurvivalRow]) -> None:
    assert [(one.name, one.setting) for one in rows] == [(one.name, one.setting) for one in survival_changes()]
    assert [(one.name, one.setting) for one in rows if one.locked is None or one.unlocked is None] == []


def test_the_table_holds_what_was_promised() -> None:
    settings = {one.name: [] for one in survival_changes()}
    for one in survival_changes():
        settings[one.name].append(one.setting)
    assert settings["pruning"] == [f"{percent} %" for percent in (10, 30, 50, 70, 90)]
    assert settings["JPEG"] == [f"quality {quality}" for quality in (95, 85, 75, 60)]
    assert len(settings["resize"]) == 3
    assert len(settings["onnxruntime optimization"]) == 4
    assert {"as exported", "fp16", "bf16", "int8"} < set(settings)


def test_as_exported_is_what_the_networks_do(world: World, rows: list[SurvivalRow]) -> None:
    reference = rows[0]
    images, labels = world.images.evaluation.images, world.images.evaluation.labels
    with torch.no_grad():
        found = [
            float((network(images).argmax(1) == labels).float().mean()) * 100
            for network in (world.owner.unlocked(world.target), world.target.network())
        ]
    assert [reference.unlocked, reference.locked] == pytest.approx(found, abs=0.51)


@pytest.mark.parametrize(("name", "setting"), MILD)
def test_mild_changes_leave_it_open_with_the_key_and_locked_without(
    rows: list[SurvivalRow], name: str, setting: str
) -> None:
    reference, found = rows[0], row(rows, name, setting)
    assert reference.unlocked > 85
    assert found.unlocked > reference.unlocked - NEARLY
    assert found.locked < CHANCE


def test_no_change_opens_the_lock(rows: list[SurvivalRow]) -> None:
    assert [one for one in rows if not one.locked < CHANCE] == []


def test_heavy_changes_are_heavy(rows: list[SurvivalRow]) -> None:
    unlocked = [row(rows, "pruning", f"{percent} %").unlocked for percent in (10, 50, 90)]
    assert unlocked[0] > unlocked[1] > unlocked[2]
    assert row(rows, "resize", "50 % and back").unlocked < row(rows, "resize", "125 % and back").unlocked


def test_without_an_owner_only_the_locked_figure_is_there(world: World, rows: list[SurvivalRow]) -> None:
    for name, setting in (("pruning", "10 %"), ("int8", "static"), ("bf16", "PyTorch")):
        found = measure(change(name, setting), world.target, None, world.images)
        assert found.unlocked is None
        assert found.locked is not None
    assert "locked ranges" in measure(change("int8", "static"), world.target, None, world.images).note
    assert "keyed ranges" in row(rows, "int8", "static").note


def test_when_the_time_is_up_rows_say_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keylatch.audit.survival._measure.measure", lambda *_: pytest.fail("measured"))
    found = measure_survival(world.target, world.owner, world.images, Clock(0))
    assert len(found) == len(survival_changes())
    assert {(one.unlocked, one.locked, one.note) for one in found} == {(None, None, "not measured: the time was up")}


def test_many_images_are_cut_and_the_row_says_so(world: World) -> None:
    found = measure(replace(change("as exported"), most_images=80), world.target, world.owner, world.images)
    right = world.apply("as exported").open(world.owner.values)(world.images.evaluation.images[:80]).argmax(1)
    assert found.unlocked == pytest.approx(float((right == world.images.evaluation.labels[:80]).float().mean()) * 100)
    assert "first 80 of 200 images" in found.note


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("nhwc", "float16")]


@pytest.mark.parametrize("kind", ["uint8", *SLOW])
def test_other_input_conventions_and_precisions_survive_too(kind: str, tmp_path: Path) -> None:
    other = code_world(tmp_path, kind)
    kinds = [("fp16", "whole graph"), ("bf16", "PyTorch"), ("int8", "dynamic"), ("int8", "static"), ("pruning", "10 %")]
    for name, setting in [("as exported", ""), *kinds, ("JPEG", "quality 85"), ("resize", "125 % and back")]:
        found = measure(change(name, setting), other.target, other.owner, other.images)
        if kind == "float16" and setting == "dynamic":  # onnxruntime has no DynamicQuantizeLinear for it
            assert (found.unlocked, found.locked) == (None, None)
            assert found.note.startswith("onnxruntime refuses the changed model")
        else:
            assert found.unlocked is not None, found
            assert found.unlocked > 85, found
            assert found.locked < CHANCE, found


def test_a_lock_without_a_control_is_measured(withheld: World) -> None:
    assert withheld.target.gates == ()
    for one in survival_changes():
        found = measure(one, withheld.target, withheld.owner, withheld.images)
        assert found.locked < 50, found
        assert found.unlocked > (85 if (one.name, one.setting) in MILD else 5), found


def test_calibration_never_sees_the_images_that_are_measured_on(world: World) -> None:
    seen: list[Subject] = []

    def apply(subject: Subject) -> Changed:
        seen.append(subject)
        raise Unable

    measure(Change("gold", "", apply), world.target, world.owner, world.images)
    assert torch.equal(seen[0].calibration, world.images.attacker.images)
    assert torch.equal(seen[0].images, world.images.evaluation.images)


def test_an_impossible_change_gives_a_note(world: World) -> None:
    def apply(subject: Subject) -> Changed:
        raise Unable("no such operator")

    found = measure(Change("gold", "24 carat", apply), world.target, world.owner, world.images)
    assert found == SurvivalRow("gold", "24 carat", None, None, "no such operator")


def test_unexpected_errors_are_not_swallowed(world: World) -> None:
    def apply(subject: Subject) -> Changed:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure(Change("gold", "", apply), world.target, world.owner, world.images)


def test_scores_that_overflow_are_told_from_a_lock_that_closes(world: World) -> None:
    def apply(subject: Subject) -> Changed:
        return Changed(lambda values: lambda images: torch.full((len(images), 10), float("nan" if values else "0")))

    found = measure(Change("gold", "", apply), world.target, world.owner, world.images)
    assert found.note == "unlocked scores overflow on 200 of 200 images"
