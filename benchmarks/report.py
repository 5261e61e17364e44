"""All results on speed in one table and one plot: performance.md and performance.png, from the JSON beside them.

    python benchmarks/report.py

A row is held to its bar by its median. What was not measured, or by an older version of a benchmark, is named and left
out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring import RESULTS

QUESTIONS = {
    "overhead": "keyed / plain",
    "overhead_cuda": "keyed / plain, CUDA",
    "end_to_end": "end to end",
    "end_to_end_cuda": "end to end, CUDA",
    "throughput": "throughput",
    "throughput_cuda": "throughput, CUDA",
    "gate_only": "gate / copy",
    "open_time": "opening",
}
LINES = (1.00, 1.01, 1.02)
_HEADER = ("question", "network", "case", "plain p50 (p99), ms", "keyed p50 (p99), ms", "ratio (95 %)", "bar", "")
_OPENING_BAR_MB = 100

Row = dict[str, Any]


def read_rows(folder: Path) -> tuple[dict[str, list[Row]], list[str]]:
    """Rows by question, and a line on each file: its machine and command, or that it is missing."""
    found: dict[str, list[Row]] = {}
    notes = []
    for name, title in QUESTIONS.items():
        path = folder / f"{name}.json"
        data = json.loads(path.read_text()) if path.exists() else {}
        if "rows" in data:
            found[name] = data["rows"]
            notes.append(f"{title}: `{data['command']}`; {_machine(data['machine'])}")
        else:
            notes.append(f"{title}: {'of an older version, not shown' if data else 'not measured'}")
    return found, notes


def _machine(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpus = "".join(f", {gpu['name']} (driver {gpu['driver_version']})" for gpu in machine.get("gpus", []))
    processor = f"{machine['processor']}, {machine['cores']} cores{gpus}"
    return f"{processor}; {machine['system']}; Python {machine['python']}, {versions}"


def bar_of(question: str, row: Row) -> float | None:
    """The largest ratio that a row is held to; None where nothing was asked."""
    batch, cuda = row["batch"], row["provider"] == "cuda"
    if question.startswith("overhead"):
        if cuda and batch == 1 and row["mode"] != "cuda_graph":
            return 1.02 if row["mode"] == "io_binding" else None
        return 1.01
    if question.startswith("end_to_end"):
        if cuda:
            return 0.8 if batch == 32 else None
        return 0.95 if row["network"] == "mobilenet_v2" else 1.00
    if question == "gate_only":
        return 2.0 if row["mode"] == "keyed" else None
    if question == "open_time" and row["megabytes"] >= _OPENING_BAR_MB:
        return 1.25 if "sealed" in row["mode"] else 1.10
    return None


def case_of(row: Row) -> str:
    """What distinguishes a row from others of its network."""
    size = f"{row['megabytes']:.0f} MB" if "megabytes" in row else f"batch {row['batch']}"
    return ", ".join([size, row["mode"], *([row["precision"]] if row["precision"] != "float32" else [])])


def table(found: dict[str, list[Row]]) -> list[tuple[object, ...]]:
    """One line for each row."""
    return [_line(question, row) for question, rows in found.items() for row in rows]


def _line(question: str, row: Row) -> tuple[object, ...]:
    bar = bar_of(question, row)
    start = (QUESTIONS[question], row["network"], case_of(row))
    if "failed" in row:
        return (*start, "", "", row["failed"], _shown(bar), "failed")
    times = [f"{row[f'{which}_p50_ms']:.2f} ({row[f'{which}_p99_ms']:.2f})" for which in ("plain", "keyed")]
    ratio = "{:.4f} ({:.4f} to {:.4f})".format(row["ratio_p50"], *row["ratio_ci95"])
    verdict = "" if bar is None else "holds" if row["ratio_p50"] <= bar else "**misses**"
    return (*start, *times, ratio, _shown(bar), verdict)


def _shown(bar: float | None) -> str:
    return "" if bar is None else f"{bar:.2f}"


def write_table(found: dict[str, list[Row]], notes: Sequence[str], path: Path) -> None:
    """Write the Markdown table and the notes."""
    lines = ["# Speed", "", "Ratio: keyed / plain, median over interleaved pairs, 95 % bootstrap interval.", ""]
    lines += ["| " + " | ".join(_HEADER) + " |", "|" + " --- |" * len(_HEADER)]
    lines += ["| " + " | ".join(str(cell) for cell in line) + " |" for line in table(found)]
    path.write_text("\n".join([*lines, "", *(f"- {note}" for note in notes), ""]))


def draw(found: dict[str, list[Row]], path: Path) -> None:
    """Draw every ratio with its interval, one panel for each question."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = {question: [row for row in rows if "failed" not in row] for question, rows in found.items()}
    panels = {question: rows for question, rows in panels.items() if rows}
    heights = [len(rows) + 3 for rows in panels.values()]
    figure, all_axes = plt.subplots(
        len(panels),
        1,
        figsize=(8, 0.17 * sum(heights) + 0.5),
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
    )
    for axes, (question, rows) in zip(all_axes[:, 0], panels.items(), strict=True):
        ratios = [row["ratio_p50"] for row in rows]
        spread = [
            [max(0.0, row["ratio_p50"] - row["ratio_ci95"][0]) for row in rows],
            [max(0.0, row["ratio_ci95"][1] - row["ratio_p50"]) for row in rows],
        ]
        places = range(len(rows))
        for line, style in zip(LINES, ("-", "--", ":"), strict=True):
            axes.axvline(line, color="gray", linestyle=style, linewidth=0.8)
        bars = [(place, bar) for place, row in enumerate(rows) if (bar := bar_of(question, row)) is not None]
        axes.plot([bar for _, bar in bars], [place for place, _ in bars], "|", color="tab:red", markersize=7)
        axes.errorbar(ratios, places, xerr=spread, fmt="o", markersize=3, capsize=2, linewidth=1)
        axes.set_yticks(places, [f"{row['network']}, {case_of(row)}" for row in rows], fontsize=6)
        axes.tick_params(axis="x", labelsize=7)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_title(f"{QUESTIONS[question]}; red: what is asked for", fontsize=8, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    folder = parser.parse_args().results
    found, notes = read_rows(folder)
    if not found:
        sys.exit(f"{folder} holds no results on speed; run `make bench` first")
    write_table(found, notes, folder / "performance.md")
    print((folder / "performance.md").read_text())
    if importlib.util.find_spec("matplotlib") is None:
        print("no plot: matplotlib is not installed; pip install 'keylatch[report]'", file=sys.stderr)
    else:
        draw(found, folder / "performance.png")


if __name__ == "__main__":
    main()
