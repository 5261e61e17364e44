"""Recovery of sealed networks as a curve: accuracy against labeled images, one line a share, beside from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def draw_recovery(rows: Sequence[dict[str, Any]], network: str, original: float) -> Any:
    """Draw what the better of the attacks recovers.

    Args:
        rows: Of `sealed_recovery.recovery`, one granularity.
        network: Its name, for the title.
        original: Accuracy before sealing, in percent.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for share in sorted({row["share"] for row in rows}):
        counts, best = _curve([row for row in rows if row["share"] == share], "recovered")
        axes.plot(counts, best, marker="o", label=f"{100 * share:g} % withheld")
    counts, scratch = _curve(rows, "from_scratch")
    axes.plot(counts, scratch, color="gray", linestyle="--", marker="o", label="from scratch")
    axes.axhline(original, color="black", linestyle=":", label="original")
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.set(xlabel="labeled images", ylabel="top-1 accuracy, %", ylim=(0, 100), title=f"Recovery of {network}")
    figure.legend(loc="outside right center")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _curve(rows: Sequence[dict[str, Any]], value: str) -> tuple[list[int], list[float]]:
    """Numbers of labeled images, and the largest value for each."""
    counts = sorted({row["labeled"] for row in rows})
    return counts, [max(row[value] for row in rows if row["labeled"] == count) for count in counts]
