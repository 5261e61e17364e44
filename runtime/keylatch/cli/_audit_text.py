"""What `keylatch audit` prints: the verdict first, then the attacks, then what they are seen beside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from keylatch.audit import Attack
from keylatch.cli._output import plain, print_facts, print_json, result_console

_COLORS = {"holds": "green", "broken": "red", "incomplete": "yellow"}
_MOST_MISSING = 10


def print_attacks(attacks: Sequence[Attack], *, as_json: bool) -> None:
    """Print all attacks."""
    if as_json:
        print_json({"attacks": [{"name": a.name, "needs": a.needs, "summary": a.summary} for a in attacks]})
        return
    table = Table("attack", "given", "what the attacker does")
    for attack in attacks:
        table.add_row(plain(attack.name), plain(attack.needs), plain(attack.summary))
    result_console().print(table)


def print_result(result: Mapping[str, Any], report: Path) -> None:
    """Print a result.

    Args:
        result: As in report.json.
        report: Where all of it can be read.
    """
    console = result_console()
    console.print(f"[bold {_COLORS[result['verdict']]}]{result['verdict']}[/]  {plain(result['summary'])}\n")
    console.print(_attacks(result["attacks"]))
    console.print(_baselines(result["baselines"]))
    if result["survival"]:
        console.print(_survival(result["survival"]))
    print_facts(_facts(result, report))


def _attacks(rows: Iterable[Mapping[str, Any]]) -> Table:
    table = Table("attack", "with", "recovered", "better baseline", "broken")
    for row in rows:
        baseline = f"{row['baseline']:.1f} %, {row['baseline_name']}"
        budget = row["given"] if row["variant"] == row["given"] else f"{row['variant']}, {row['given']}"
        table.add_row(plain(row["name"]), plain(budget), _spread(row, "recovered"), plain(baseline), _broken(row))
    return table


def _broken(row: Mapping[str, Any]) -> str:
    if not row["counts"]:
        return "the owner's test"
    broken = "[bold red]yes[/]" if row["broken"] else "no"
    return f"{broken}, cut short" if row["truncated"] else broken


def _baselines(rows: Iterable[Mapping[str, Any]]) -> Table:
    table = Table("baseline", "labeled images", "accuracy", "note")
    for row in rows:
        table.add_row(plain(row["name"]), str(row["labeled"]), _spread(row, "accuracy"), plain(row["note"]))
    return table


def _survival(rows: Iterable[Mapping[str, Any]]) -> Table:
    table = Table("change", "unlocked", "locked")
    for row in rows:
        figures = (_percent(row[name]) for name in ("unlocked", "locked"))
        table.add_row(plain(f"{row['name']} {row['setting']}".strip()), *figures)
    return table


def _facts(result: Mapping[str, Any], report: Path) -> Iterable[tuple[str, object]]:
    accuracy, images, minutes = result["accuracy"], result["images"], result["minutes"]
    yield "model", f"{result['model']['name']}, {result['model']['model_id'][:16]}…"
    yield "accuracy", ", ".join(f"{name} {_percent(value)}" for name, value in accuracy.items())
    if result["effective_key_bits"] is not None:
        yield "effective key", f"{result['effective_key_bits']:.0f} bits, by keys that are nearly right"
    yield "images", f"{images['attacker']} for attackers, {images['evaluation']} to measure on"
    missing = [f"{row['name']} ({row['variant']}): {row['reason']}" for row in result["not_run"]]
    if missing:
        more = [f"and {len(missing) - _MOST_MISSING} more"] if len(missing) > _MOST_MISSING else []
        yield "not measured", "\n".join([*missing[:_MOST_MISSING], *more])
    yield "time", f"{minutes['used']:.1f} of {minutes['asked']:g} minutes, {len(result['seeds'])} seeds"
    yield "report", report


def _spread(row: Mapping[str, Any], name: str) -> str:
    if row["seeds"] < 2:
        return _percent(row[name])
    return f"{row[name]:.1f} % ({row['low']:.1f} to {row['high']:.1f})"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f} %"
