"""Run what `keylatch audit` was asked for: load, measure with a progress display, write the report, print."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from keylatch.audit import (
    AuditOptions,
    AuditResult,
    Clock,
    Scene,
    Survival,
    keep_freed_memory,
    run_audit,
    write_text_whole,
)
from keylatch.audit.attacks import ATTACKS
from keylatch.cli._audit_request import AuditRequest, command_line
from keylatch.cli._audit_scene import (
    CELLS_FOLDER,
    choose_attacks,
    labeled_counts,
    load_scene,
    load_vault,
    prepare_folder,
)
from keylatch.cli._audit_text import print_result
from keylatch.cli._output import note_console, plain, print_json, working

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
_SECONDS_A_MINUTE = 60


class _Remaining(ProgressColumn):
    """The time that is left."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        super().__init__()

    def render(self, task: Task) -> Text:  # noqa: ARG002
        minutes, seconds = divmod(int(self._clock.remaining), _SECONDS_A_MINUTE)
        return Text(f"{minutes}:{seconds:02} left")


class _Display:
    """Shows on stderr what is being measured."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def begins(self, title: str, done: int, total: int) -> None:
        self._progress.update(self._task, description=plain(title), completed=done, total=total)

    def notes(self, text: str) -> None:
        self._progress.console.print(f"[bold]note:[/] {plain(text)}")


def load(request: AuditRequest) -> Scene:
    """Load and check everything that the request names.

    Raises:
        KeylatchError: Something does not do.
    """
    choose_attacks(ATTACKS, request.attacks)
    vault = load_vault(request)
    with working("loading the model and the images"):
        scene = load_scene(request, vault)
    labeled_counts(request.labeled, request.training_images, len(scene.images.attacker))
    prepare_folder(request.folder)
    return scene


def measure(request: AuditRequest, scene: Scene, *, start: float, quiet: bool) -> AuditResult:
    """Audit.

    Args:
        request: What was asked for.
        scene: From `load`.
        start: Value of the monotonic clock when the command began, in seconds.
        quiet: Whether to leave the display out.
    """
    spent = time.monotonic() - start
    keep_freed_memory()
    clock = Clock(request.minutes * _SECONDS_A_MINUTE - spent)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Remaining(clock))
    with Progress(*columns, console=note_console(), transient=True) as progress:
        display = _Display(progress, progress.add_task("beginning", total=None, visible=not quiet))
        try:
            return run_audit(
                scene,
                choose_attacks(ATTACKS, request.attacks),
                _options(request, scene, spent),
                folder=request.folder / CELLS_FOLDER,
                clock=clock,
                watch=display,
                survival=_survival() if request.survival else None,
            )
        except KeyboardInterrupt:
            display.notes(f"stopped; what was measured is in {request.folder}: run the same command again to go on")
            raise typer.Exit(_INTERRUPTED) from None


def show(request: AuditRequest, result: AuditResult, *, as_json: bool) -> None:
    """Write the report, and print the result.

    Raises:
        OutputError: They cannot be written.
    """
    from keylatch.audit.report import write_report

    found = result.to_json()
    page = request.folder / "report.html"
    write_text_whole(page.with_suffix(".json"), json.dumps(found, indent=2, allow_nan=False) + "\n", what="report")
    write_report(found, page)
    if as_json:
        print_json(found)
    else:
        print_result(found, page)


def _options(request: AuditRequest, scene: Scene, spent_seconds: float) -> AuditOptions:
    return AuditOptions(
        labeled=labeled_counts(request.labeled, request.training_images, len(scene.images.attacker)),
        training_images=request.training_images,
        seeds=tuple(range(request.seeds)),
        minutes=request.minutes,
        loading_seconds=spent_seconds,
        command=command_line(sys.argv[1:]),
    )


def _survival() -> Survival:
    from keylatch.audit.survival import measure as measure_change
    from keylatch.audit.survival import survival_changes

    changes: tuple[Any, ...] = tuple(survival_changes())
    return Survival(changes, measure_change)
