"""The dial from nothing withheld to everything, on a network small enough to fine-tune often."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

DIAL_SHARES = (0.0, 0.02, 0.1, 0.3, 0.6, 1.0)
DIAL_ATTACK = "fine-tune-all"
DIAL_LABELED = (1000,)


def draw_dial(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw recovered accuracy against the withheld share, beside the baseline."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    shares = [100 * row["share"] for row in rows]
    recovered = [row["recovered"] for row in rows]
    spread = [[row["recovered"] - row["low"] for row in rows], [row["high"] - row["recovered"] for row in rows]]
    axes.errorbar(shares, recovered, yerr=spread, marker="o", capsize=3, label="fine-tuned by the attacker")
    axes.plot(shares, [row["baseline"] for row in rows], color="gray", label="better baseline")
    axes.plot(shares, [row["original"] for row in rows], color="black", linestyle=":", label="original")
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xticks(shares, [f"{share:g}" for share in shares])
    axes.set(
        xlabel="share of the weights that only licenses carry, %", ylabel="top-1 accuracy, %", ylim=(0, 100),
        title=f"ResNet-20, CIFAR-10, {DIAL_LABELED[0]:,} labeled images",
    )  # fmt: skip
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
