"""The picture of the demo of domains: one row a license, one column a domain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keylatch.cli._demo.digit_domains import DigitDomain
from keylatch.cli._demo.domain_story import NO_LICENSE, ORIGINAL, DomainStory
from keylatch.errors import MissingExtraError

_SHOWN = 6  # digits above each column
_GOOD, _BAD, _FRAME = "#2a7f62", "#b33a3a", "#222222"


def draw(story: DomainStory, domains: Mapping[str, DigitDomain], path: Path) -> None:
    """Draw each license's accuracy on each domain, with a few of the domain's images on top.

    Args:
        story: The demo's results.
        domains: Images, the source first.
        path: The PNG to write.
    """
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        raise MissingExtraError("drawing the picture", "matplotlib", "report") from None
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows, columns = list(story.accuracy), list(domains)
    figure = plt.figure(figsize=(3.2 + 2.1 * len(columns), 2.2 + 0.52 * len(rows)), layout="constrained")
    grid = figure.add_gridspec(2, len(columns), height_ratios=[0.75, 0.52 * len(rows)], hspace=0)
    for place, name in enumerate(columns):
        role = "source" if place == 0 else "sold apart"
        _images(figure.add_subplot(grid[0, place]), domains[name], f"{name}\n({role})")
    _cells(figure.add_subplot(grid[1, :]), story, rows, columns)
    figure.suptitle("One file: each license opens the domains that it names", fontsize=14, weight="bold")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _images(axes: Any, domain: DigitDomain, title: str) -> None:
    shown = domain.test_images[:_SHOWN].permute(0, 2, 3, 1).numpy()
    axes.imshow(np.concatenate(np.pad(shown, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255), axis=1))
    axes.set_axis_off()
    axes.set_title(title, fontsize=11)


def _cells(axes: Any, story: DomainStory, rows: list[str], columns: list[str]) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    values = np.array([[story.accuracy[row][column] for column in columns] for row in rows])
    colors = LinearSegmentedColormap.from_list("accuracy", ["#f3d6d2", "#f8f4e6", "#cfe8dc"])
    axes.imshow(values, cmap=colors, vmin=0, vmax=100, aspect="auto")
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            paid = j == 0 or row == ORIGINAL or (row != NO_LICENSE and column in row.split(" ", 2)[2].split(" + "))
            axes.text(
                j, i, f"{values[i, j]:.1f} %", ha="center", va="center", fontsize=11,
                color=_GOOD if paid else _BAD, weight="bold" if paid else "normal",
            )  # fmt: skip
            if paid:
                axes.add_patch(Rectangle((j - 0.47, i - 0.43), 0.94, 0.86, fill=False, edgecolor=_GOOD, linewidth=1.2))
    axes.set_yticks(range(len(rows)), rows, fontsize=10.5)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("accuracy on test images; framed: what the license names, and the source", fontsize=9, color=_FRAME)
