"""The demo's picture: what the model makes of the same images with and without the license."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keylatch.cli._demo.story import Array, Story
from keylatch.errors import MissingExtraError

_LABELS = {
    "original": "original network",
    "unlocked": "with the license",
    "locked": "without a license",
    "wrong_key": "wrong key",
    "random_patch": "random patch",
}
_GOOD, _BAD, _CHANCE = "#2a7f62", "#b33a3a", 10.0


def draw(story: Story, images: Array, predictions: dict[str, Array], path: Path) -> None:
    """Draw accuracies, refusals and a row of digits with both predictions.

    Args:
        story: The demo's results.
        images: (10, 3, H, W) float32 in [0, 1].
        predictions: ``unlocked`` and ``locked``: (10,) int64 for these images.
        path: The PNG to write.
    """
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        raise MissingExtraError("drawing the picture", "matplotlib", "report") from None
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(11, 6.4), layout="constrained")
    grid = figure.add_gridspec(2, len(images), height_ratios=[1, 2.2])
    for index, image in enumerate(images):
        _digit(figure.add_subplot(grid[0, index]), image, predictions, index)
    _bars(figure.add_subplot(grid[1, : len(images) // 2]), story)
    _text(figure.add_subplot(grid[1, len(images) // 2 :]), story)
    figure.suptitle("One file: with the license it is the network, without it is noise", fontsize=14, weight="bold")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _digit(axes: Any, image: Array, predictions: dict[str, Array], index: int) -> None:
    axes.imshow(np.clip(image.transpose(1, 2, 0), 0, 1))
    axes.set_axis_off()
    unlocked, locked = int(predictions["unlocked"][index]), int(predictions["locked"][index])
    axes.set_title(f"licensed: {unlocked}", fontsize=9, color=_GOOD)
    axes.text(0.5, -0.12, f"locked: {locked}", fontsize=9, color=_BAD, ha="center", va="top", transform=axes.transAxes)


def _bars(axes: Any, story: Story) -> None:
    names = list(_LABELS)
    values = [story.accuracy[name] for name in names]
    colors = [_GOOD if name in ("original", "unlocked") else _BAD for name in names]
    bars = axes.barh([_LABELS[name] for name in names], values, color=colors)
    axes.bar_label(bars, labels=[f"{value:.1f} %" for value in values], padding=4)
    axes.axvline(_CHANCE, color="black", linewidth=1, linestyle=":")
    axes.text(_CHANCE + 1, len(names) - 0.42, "chance", fontsize=8, va="center")
    axes.invert_yaxis()
    axes.set_xlim(0, 115)
    axes.set_xlabel("accuracy on test images, %")
    axes.spines[["top", "right"]].set_visible(False)


def _text(axes: Any, story: Story) -> None:
    axes.set_axis_off()
    low, high = story.latency["ratio_ci95"]
    lines = ["Refused:"]
    titles = {"no_license": "no license", "expired": "expired license", "other_device": "another device"}
    lines += [f"  {titles[name]}: {'refused' if message else 'NOT REFUSED'}" for name, message in story.refused.items()]
    lines += [
        "",
        "Latency of one image, p50:",
        f"  plain onnxruntime  {story.latency['plain_p50_ms']:.3f} ms",
        f"  licensed session   {story.latency['keyed_p50_ms']:.3f} ms",
        f"  ratio {story.latency['ratio_p50']:.3f} (95 %: {low:.3f} to {high:.3f})",
        "  (an open gate folds away)",
        "",
        f"Chance that an image opens the lock: 2^{story.facts['log2_false_positive']}",
        f"Locked in {story.seconds['lock']:.1f} s, no data, no training",
    ]
    axes.text(0.06, 0.98, "\n".join(lines), fontsize=10.5, va="top", linespacing=1.5, transform=axes.transAxes)
