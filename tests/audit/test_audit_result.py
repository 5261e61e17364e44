"""The JSON of an audit, and the package's face."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest
from audit_world import FakeAttack, Shipped, Watcher, knowing, small_scene

import keylatch.audit
from keylatch.audit import AuditOptions, AuditResult, Clock, Given, Outcome, Variant, _audit, run_audit
from keylatch.errors import InputError

FIELDS = [
    "format", "verdict", "summary", "model", "accuracy", "baselines", "attacks", "near_keys", "effective_key_bits",
    "survival", "not_run", "images", "seeds", "minutes", "versions", "machine", "command",
]  # fmt: skip
ATTACK_FIELDS = [
    "name", "variant", "summary", "given", "labeled", "unlabeled", "recovered", "low", "high", "baseline",
    "baseline_name", "broken", "counts", "seeds", "seconds", "cost", "truncated", "note", "signs_right",
]  # fmt: skip


def near_keys(shipped: Shipped, tmp_path: Path, accuracies: dict[int, float]):  # type: ignore[no-untyped-def]
    scene = small_scene(shipped.target, shipped.owner)

    def work(case):  # type: ignore[no-untyped-def]
        return Outcome(knowing(scene.images.evaluation, accuracies[case.variant.settings["wrong_bits"]]))

    budgets = [
        Variant(Given(key=f"{wrong} bits wrong"), settings={"wrong_bits": wrong}, counts=False) for wrong in accuracies
    ]
    guess = FakeAttack(lambda case: Outcome(knowing(scene.images.evaluation, 100 / 9), {"steps": 3}), name="guess")
    attacks = [FakeAttack(work, budgets, name="near"), guess]
    options = AuditOptions((), command="keylatch audit digits.latch")
    return run_audit(scene, attacks, options, folder=tmp_path, clock=Clock(60), watch=Watcher())


def test_the_json_has_these_fields(shipped: Shipped, tmp_path: Path) -> None:
    result = near_keys(shipped, tmp_path, {1: 90.0, 3: 12.0})
    found = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert list(found) == FIELDS
    assert found["format"] == "keylatch-audit/1" and found["verdict"] == "holds"
    assert found["model"] == {
        "name": "digits", "model_id": shipped.target.model_id, "lock": dict(shipped.target.manifest.lock), "classes": 10
    }  # fmt: skip
    assert list(found["accuracy"]) == ["original", "unlocked", "locked", "chance"]
    assert [list(attack) for attack in found["attacks"]] == [ATTACK_FIELDS] * 3
    assert [attack["name"] for attack in found["attacks"]] == ["guess", "near", "near"]  # what counts comes first
    assert found["attacks"][0]["recovered"] == 11.0 and found["attacks"][0]["cost"] == {"steps": 3.0}
    assert list(found["baselines"][0]) == ["name", "labeled", "accuracy", "low", "high", "seeds", "note"]
    assert found["images"]["attacker"] == 200 and found["images"]["evaluation"] == 100
    assert found["seeds"] == [0, 1] and found["command"] == "keylatch audit digits.latch"
    assert {"keylatch", "torch", "onnx", "onnxruntime", "numpy", "python"} == set(found["versions"])
    assert {"processor", "cores", "threads", "system"} == set(found["machine"])


def test_near_keys_give_the_effective_key_length(shipped: Shipped, tmp_path: Path) -> None:
    result = near_keys(shipped, tmp_path, {1: 90.0, 3: 12.0})
    bits = int(shipped.target.manifest.lock["code_bits"])
    assert [(row.wrong, row.opens) for row in result.near_keys] == [(1, True), (3, False)]
    assert result.effective_key_bits == pytest.approx(bits - (bits + 1).bit_length(), abs=1)


def test_near_keys_that_reach_far_break_a_lock_that_withholds_nothing(shipped: Shipped, tmp_path: Path) -> None:
    manifest = shipped.target.manifest
    signs_alone = replace(manifest, lock={**manifest.lock, "sealed": []})
    bare = replace(shipped, target=replace(shipped.target, manifest=signs_alone))
    result = near_keys(bare, tmp_path, {1: 90.0, 30: 40.0})
    assert result.verdict == "broken" and "nearly right" in result.summary
    assert not any(row.broken for row in result.attacks)


def test_near_keys_do_not_break_a_lock_whose_weights_are_withheld(shipped: Shipped, tmp_path: Path) -> None:
    assert shipped.target.manifest.lock["sealed"]
    assert near_keys(shipped, tmp_path, {1: 90.0, 30: 40.0}).verdict == "holds"


def test_images_that_do_not_suit_the_model_are_noticed(shipped: Shipped, tmp_path: Path) -> None:
    watcher = Watcher()
    scene = small_scene(shipped.target, shipped.owner)  # black images: whatever it says is right once in ten
    run_audit(scene, [], AuditOptions(()), folder=tmp_path, clock=Clock(60), watch=watcher)
    assert any("hardly more than chance" in note for note in watcher.said)


def test_the_public_names_are_sorted_and_exist() -> None:
    names = keylatch.audit.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name.islower(), name))
    tree = ast.parse(Path(keylatch.audit.__file__).read_bytes())
    brought = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("keylatch.audit.")
        for alias in node.names
    }
    assert set(names) == brought


def test_the_table_of_contents_names_every_module() -> None:
    folder = Path(keylatch.audit.__file__).parent
    for path in [*folder.glob("_[a-z]*.py"), *(part.parent for part in folder.glob("[a-z]*/__init__.py"))]:
        assert f"\n    {path.stem} " in str(keylatch.audit.__doc__), path.name


def test_a_break_beside_a_baseline_that_had_less_time_leaves_the_verdict_open(
    shipped: Shipped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = small_scene(shipped.target)

    class Slow(FakeAttack):
        def run(self, case):  # type: ignore[no-untyped-def]
            return replace(super().run(case), truncated=True)

        def variants(self, target, resources):  # type: ignore[no-untyped-def]
            return [Variant(Given(labeled=count)) for count in resources.labeled]

    def audited(folder: Path, **baseline: object) -> AuditResult:
        kind = Slow if baseline.pop("slow") else FakeAttack
        trained = kind(lambda case: Outcome(knowing(scene.images.evaluation, 20)), **baseline)  # type: ignore[arg-type]
        monkeypatch.setattr(_audit, "baselines_for", lambda classes: (trained,))
        thief = FakeAttack(lambda case: Outcome(knowing(scene.images.evaluation, 90)), [Variant(Given(labeled=9))])
        options = AuditOptions((9,))
        return run_audit(scene, [thief], options, folder=folder, clock=Clock(60), watch=Watcher())

    monkeypatch.setattr(_audit, "had_less_time", lambda baseline, attack: True)
    found = audited(tmp_path / "slow", slow=True, name="from scratch")
    assert found.verdict == "incomplete" and not found.attacks[0].broken
    assert [(row.name, row.variant) for row in found.not_run] == [("from scratch", "9 labeled images")]
    assert "not judged" in found.attacks[0].note
    monkeypatch.undo()
    fair = audited(tmp_path / "fair", slow=False, name="from scratch", budgets=[Variant(Given(labeled=9))])
    assert fair.verdict == "broken" and fair.not_run == ()


def test_a_break_without_its_baseline_leaves_the_verdict_open(
    shipped: Shipped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = small_scene(shipped.target)

    def refuse(case):  # type: ignore[no-untyped-def]
        raise InputError("it has no layers")

    baseline = FakeAttack(refuse, [Variant(Given(labeled=9))], name="from scratch")
    monkeypatch.setattr(_audit, "baselines_for", lambda classes: (baseline,))
    thief = FakeAttack(lambda case: Outcome(knowing(scene.images.evaluation, 90)), [Variant(Given(labeled=9))])
    found = run_audit(scene, [thief], AuditOptions((9,)), folder=tmp_path, clock=Clock(60), watch=Watcher())
    assert found.verdict == "incomplete" and "not judged" in found.attacks[0].note
    assert {row.reason for row in found.not_run} == {"skipped: it has no layers"}
