"""An audit from end to end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from keylatch.audit._attack import Attack, Outcome, Predict, Resources
from keylatch.audit._baselines import baselines_for
from keylatch.audit._cells import CellStore
from keylatch.audit._clock import Clock
from keylatch.audit._machine import machine, versions
from keylatch.audit._owner import block_description, code_description
from keylatch.audit._plan import plan_cells
from keylatch.audit._result import AttackResult, AuditResult, BaselineResult, NearKey, NotRun, References
from keylatch.audit._runner import Runner, Skipped, Watch
from keylatch.audit._scene import Scene
from keylatch.audit._survival import Survival
from keylatch.audit._tally import UNJUDGED, Group, attack_row, baseline_row, chance_baseline, grouped, had_less_time
from keylatch.audit._target import Target
from keylatch.audit._threads import choose_threads
from keylatch.audit._timetable import Timetable
from keylatch.audit._verdict import KeySpace, beats, judge, near_keys
from keylatch.locks import log2_chance_within
from keylatch.locks._block_key_space import log2_chance_near

LEAST_SEEDS = 2
_SECONDS_A_MINUTE = 60
_WRONG_BITS, _WRONG_ENTRIES = "wrong_bits", "wrong_entries"


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """How an audit is to be done.

    Attributes:
        labeled: Numbers of labeled images to attack with, ascending.
        training_images: Size of the model's training set; the attacker's pool, if not known.
        seeds: All measurements are made with each.
        minutes: What was asked for; the clock that is given with it counts it down.
        loading_seconds: Time that went by before that clock began.
        command: The command line, for the record.
    """

    labeled: tuple[int, ...]
    training_images: int | None = None
    seeds: tuple[int, ...] = (0, 1)
    minutes: float = 10.0
    loading_seconds: float = 0.0
    command: str = ""


def run_audit(
    scene: Scene,
    attacks: Sequence[Attack],
    options: AuditOptions,
    *,
    folder: Path,
    clock: Clock,
    watch: Watch,
    survival: Survival | None = None,
) -> AuditResult:
    """Attack a locked model, and measure honest baselines beside it.

    Args:
        scene: The model, and what there is beside it.
        attacks: What to run.
        options: How.
        folder: Where results of single measurements are kept; those that lie there are not measured again.
        clock: How long it may take.
        watch: Is shown how it goes on.
        survival: Changes to measure, if any.

    Raises:
        OutputError: The folder cannot be written.
    """
    choose_threads(scene.target)
    resources = _resources(scene, options)
    baselines = baselines_for(None if scene.base is None else scene.base.classes)
    cells = plan_cells(attacks, baselines, scene, resources, options.seeds)
    store = CellStore(folder)
    runner = Runner(scene, store, Timetable(clock), watch)
    references = _references(scene, runner)
    _warn_of_images(references, watch)
    runner.run(cells, survival)
    if store.damaged:
        watch.notes(f"{len(store.damaged)} damaged files among the stored results were ignored")
    return _result(scene, options, runner, references, clock)


def _resources(scene: Scene, options: AuditOptions) -> Resources:
    pool = len(scene.images.attacker)
    return Resources(
        pool=pool,
        training_images=options.training_images or pool,
        labeled=options.labeled,
        classes=scene.images.classes,
        base=scene.base is not None,
        owner=scene.owner is not None,
    )


def _references(scene: Scene, runner: Runner) -> References:
    def percent(predict: Predict) -> float:
        return runner.evaluate(Outcome(predict))

    locked = percent(scene.target.network())
    unlocked = None if scene.owner is None else percent(scene.owner.unlocked(scene.target))
    original = unlocked if scene.original is None else percent(scene.original.network)
    chance = chance_baseline(scene.images.evaluation.labels, scene.images.classes)
    return References(original, unlocked, locked, chance.accuracy)


def _warn_of_images(references: References, watch: Watch) -> None:
    if references.original is not None and not beats(references.original, references.chance):
        watch.notes(
            f"the model itself gets {references.original:.1f} % of these images right, hardly more than chance: "
            "check that images and labels are as the model takes them"
        )


def _result(scene: Scene, options: AuditOptions, runner: Runner, references: References, clock: Clock) -> AuditResult:
    chance = chance_baseline(scene.images.evaluation.labels, scene.images.classes)
    groups = grouped(runner.measured)
    trained = [group for group in groups if group[0][0].is_baseline]
    attacking = [group for group in groups if not group[0][0].is_baseline]
    baselines = [baseline_row(group) for group in trained]
    attacks, short_baselines = _judged(attacking, trained, chance, _unmeasured(runner, baselines))
    near, key_bits = _near_keys(scene, attacking, references.chance)
    not_run = [*(_not_run(cut) for cut in runner.skipped), *short_baselines, *runner.missing_changes]
    withholds = bool(scene.target.manifest.lock.get("sealed"))
    judgment = judge(attacks, None if withholds else key_bits, not_run)
    return AuditResult(
        verdict=judgment.verdict,
        summary=judgment.summary,
        model=_model(scene),
        accuracy=references,
        baselines=(chance, *baselines),
        attacks=_worst_first(attacks),
        near_keys=near,
        effective_key_bits=key_bits,
        survival=tuple(runner.survival),
        not_run=tuple(not_run),
        images=_images(scene),
        seeds=options.seeds,
        minutes=_minutes(options, clock),
        versions=versions(),
        machine=machine(),
        command=options.command,
    )


def _unmeasured(runner: Runner, baselines: Sequence[BaselineResult]) -> set[int]:
    """Numbers of labeled images with a baseline that was not measured at all."""
    measured = {(row.name, row.labeled) for row in baselines}
    missing = {(cut.cell.attack.name, cut.cell.variant.given.labeled) for cut in runner.skipped if cut.cell.is_baseline}
    return {labeled for _, labeled in missing - measured}


def _judged(
    attacking: Sequence[Group], trained: Sequence[Group], chance: BaselineResult, unmeasured: set[int]
) -> tuple[list[AttackResult], list[NotRun]]:
    """Rows of all attacks, and the baselines that were cut short before they had the time that an attack took."""
    baselines = [baseline_row(group) for group in trained]
    rows, short = [], []
    for group in attacking:
        slower = [other for other in trained if had_less_time(other, group)]
        judged = group[0][0].variant.given.labeled not in unmeasured and not slower
        rows.append(attack_row(group, baselines, chance, judged=judged))
        short += [
            other for other in slower if other not in short and rows[-1].counts and rows[-1].note.endswith(UNJUDGED)
        ]
    reason = "cut short, with less time than the attack beside it"
    return rows, [NotRun(group[0][0].attack.name, group[0][0].budget, reason) for group in short]


def _near_keys(scene: Scene, groups: Iterable[Group], chance: float) -> tuple[tuple[NearKey, ...], float | None]:
    """Of a code, or of a block transform without one: beside a code no near block key says anything of the key."""
    setting, space = _key_space(scene.target)
    measured = {
        int(group[0][0].variant.settings[setting]): [measurement.accuracy for _, measurement in group]
        for group in groups
        if not group[0][0].variant.counts and setting in group[0][0].variant.settings
    }
    return near_keys(measured, space, chance)


def _key_space(target: Target) -> tuple[str, KeySpace]:
    """The setting that counts what is wrong, and the keys that there are."""
    blocks = block_description(target) if code_description(target) is None else None
    if blocks is not None:
        steps, entries = blocks.steps, target.spec.channels * blocks.block_size**2
        return _WRONG_ENTRIES, KeySpace("entries", entries, partial(log2_chance_near, steps, entries))
    bits = int(target.manifest.lock.get("code_bits", 0))
    return _WRONG_BITS, KeySpace("bits", bits, partial(log2_chance_within, bits))


def _not_run(cut: Skipped) -> NotRun:
    variant = cut.cell.variant
    matters = variant.counts or not {_WRONG_BITS, _WRONG_ENTRIES}.isdisjoint(variant.settings)
    return NotRun(cut.cell.attack.name, f"{cut.cell.budget}, seed {cut.cell.seed}", cut.reason, matters)


def _worst_first(attacks: Iterable[AttackResult]) -> tuple[AttackResult, ...]:
    """Breaks first, then by how far they come; what no outsider can do last."""
    return tuple(sorted(attacks, key=lambda row: (not row.broken, not row.counts, row.baseline - row.recovered)))


def _model(scene: Scene) -> dict[str, object]:
    target = scene.target
    lock = dict(target.manifest.lock)
    return {"name": target.name, "model_id": target.model_id, "lock": lock, "classes": scene.images.classes}


def _images(scene: Scene) -> dict[str, object]:
    attacker, evaluation = scene.images.attacker, scene.images.evaluation
    digests = {"attacker": attacker.sha256, "evaluation": evaluation.sha256}
    return {"attacker": len(attacker), "evaluation": len(evaluation), "sha256": digests}


def _minutes(options: AuditOptions, clock: Clock) -> dict[str, float]:
    used = (options.loading_seconds + clock.elapsed) / _SECONDS_A_MINUTE
    return {"asked": options.minutes, "used": used}
