"""How good boxes and masks are: average precision at an overlap of one half, and mean intersection over union."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Boxes", "average_precision", "mean_iou", "overlaps", "suppress"]

# (n, 6) float64: class, left, top, right, bottom, score; (n, 5) without the score
Boxes = npt.NDArray[np.float64]

_RECALLS = np.linspace(0, 1, 101)  # as COCO interpolates (Lin et al., arXiv 1405.0312; cocoeval)
_LEAST_OVERLAP = 0.5
_NOT_JUDGED = 255


def overlaps(one: Boxes, other: Boxes) -> npt.NDArray[np.float64]:
    """Intersection over union of corners (n, 4) and (m, 4): (n, m)."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [(box[:, 2:] - box[:, :2]).clip(0).prod(1) for box in (one, other)]
    whole = areas[0][:, None] + areas[1][None] - shared
    return np.asarray(shared / np.maximum(whole, 1e-12), dtype=np.float64)


def suppress(found: Boxes, limit: float, most: int = 100) -> Boxes:
    """Keep the best of boxes of a class that overlap by more than a limit, and the best `most` of all."""
    kept: list[int] = []
    order = np.argsort(-found[:, 5], kind="stable")
    matrix = overlaps(found[order, 1:5], found[order, 1:5])
    alive = np.ones(len(order), dtype=bool)
    for place, index in enumerate(order):
        if alive[place]:
            kept.append(int(index))
            same = found[order, 0] == found[index, 0]
            alive &= ~(same & (matrix[place] > limit))
    return found[kept[:most]]


def average_precision(found: Sequence[Boxes], real: Sequence[Boxes]) -> float:
    """Mean over classes of the average precision at an overlap of one half, in per cent.

    Args:
        found: For each picture (n, 6).
        real: For each picture (n, 5).
    """
    classes = sorted({int(kind) for boxes in real for kind in boxes[:, 0]})
    return 100 * float(np.mean([_of_class(kind, found, real) for kind in classes]))


def _of_class(kind: int, found: Sequence[Boxes], real: Sequence[Boxes]) -> float:
    hits: list[tuple[float, bool]] = []
    total = 0
    for guesses, truth in zip(found, real, strict=True):
        own, wanted = guesses[guesses[:, 0] == kind], truth[truth[:, 0] == kind]
        total += len(wanted)
        hits += _matched(own[np.argsort(-own[:, 5], kind="stable")], wanted)
    if not hits:
        return 0.0
    right = np.array([hit for _, hit in sorted(hits, key=lambda pair: -pair[0])])
    reached = np.cumsum(right)
    precision = np.maximum.accumulate((reached / np.arange(1, len(right) + 1))[::-1])[::-1]
    places = np.searchsorted(reached / total, _RECALLS, side="left")
    return float(np.mean([precision[place] if place < len(precision) else 0.0 for place in places]))


def _matched(own: Boxes, wanted: Boxes) -> list[tuple[float, bool]]:
    """Each guess, best first, takes the free box that it overlaps most, if by one half."""
    matrix = overlaps(own[:, 1:5], wanted[:, 1:5])
    free = np.ones(len(wanted), dtype=bool)
    hits = []
    for row, guess in zip(matrix, own, strict=True):
        open_rows = np.where(free, row, -1.0)
        best = int(open_rows.argmax()) if len(open_rows) else -1
        hit = best >= 0 and open_rows[best] >= _LEAST_OVERLAP
        if hit:
            free[best] = False
        hits.append((float(guess[5]), bool(hit)))
    return hits


def mean_iou(found: Sequence[npt.NDArray[np.integer]], real: Sequence[npt.NDArray[np.uint8]], classes: int) -> float:
    """Mean over classes that occur of intersection over union, pixels of all pictures together, in per cent.

    Args:
        found: For each picture (H, W) classes.
        real: For each picture (H, W) classes, 255 where nothing is judged.
        classes: Number of classes.
    """
    counts = np.zeros((classes, classes), dtype=np.int64)
    for guess, truth in zip(found, real, strict=True):
        judged = truth != _NOT_JUDGED
        counts += np.bincount(
            truth[judged].astype(np.int64) * classes + guess[judged].astype(np.int64), minlength=classes**2
        ).reshape(classes, classes)
    shared, either = np.diag(counts), counts.sum(0) + counts.sum(1) - np.diag(counts)
    occurs = counts.sum(1) > 0
    return 100 * float(np.mean(shared[occurs] / np.maximum(either[occurs], 1)))
