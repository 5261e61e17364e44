"""Accuracies under a key, under none, under wrong and nearly right ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from keylatch.errors import LockError
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._key_training_data import IGNORED, ImageSet, generator_for, seeded
from keylatch.locks._randomness import SEED_BYTES
from keylatch.locks._training_key import TrainingKey, another_key, answers, near_key

_WRONG_KEYS = 3
_NEAR_KEYS = {"1 entry": 0.0, "1 %": 0.01, "5 %": 0.05, "25 %": 0.25}  # share of the entries that are wrong


@dataclass(frozen=True, slots=True)
class KeyAccuracy:
    """A network on the validation images under a key, in percent: top-1, for segmentation the mean IoU."""

    network: nn.Module
    spec: InputSpec
    data: ImageSet
    batch: int
    device: torch.device

    def __call__(self, key: TrainingKey) -> float:
        parts = zip(torch.split(self.data.images, self.batch), torch.split(self.data.labels, self.batch), strict=True)
        found = [(self.scores(images, key).argmax(1).cpu(), labels) for images, labels in parts]
        if self.data.is_dense:
            return mean_iou(*(torch.cat(each) for each in zip(*found, strict=True)))
        return 100 * sum(int((classes == labels).sum()) for classes, labels in found) / len(self.data)

    def scores(self, pixels: torch.Tensor, key: TrainingKey) -> torch.Tensor:
        """(N, classes), or (N, classes, H, W) for segmentation, in evaluation mode."""
        self.network.eval()
        with torch.no_grad():
            return checked_scores(answers(self.network, key, pixels.to(self.device), self.spec), len(pixels), self.data)


def checked_scores(scores: object, count: int, data: ImageSet) -> torch.Tensor:
    """A network's answer as scores of the labels' size; maps are enlarged to it (bilinear).

    Raises:
        LockError: If it is something else.
    """
    wanted = 4 if data.is_dense else 2
    if not isinstance(scores, torch.Tensor) or scores.dim() != wanted or len(scores) != count:
        found = f"shape {tuple(scores.shape)}" if isinstance(scores, torch.Tensor) else f"a {type(scores).__name__}"
        raise LockError(
            f"the model returns {found} for {count} images, "
            f"expected logits ({count}, classes{', h, w' if data.is_dense else ''})",
            hint="wrap it in a module whose forward returns the logits alone",
        )
    size = data.labels.shape[1:]
    if data.is_dense and scores.shape[2:] != size:
        return functional.interpolate(scores.float(), size=tuple(size), mode="bilinear", align_corners=False)
    return scores


def mean_iou(classes: torch.Tensor, labels: torch.Tensor) -> float:
    """Mean over the labels' classes of intersection over union, in percent.

    Args:
        classes: (N, H, W) int64, predicted.
        labels: (N, H, W) int64; pixels of `IGNORED` do not count.
    """
    known = labels != IGNORED
    shares = []
    for label in torch.unique(labels[known]).tolist():
        predicted, right = (classes == label) & known, labels == label
        shares.append(float((predicted & right).sum()) / float((predicted | right).sum()))
    return 100 * sum(shares) / max(1, len(shares))


def wrong_keys(measure: KeyAccuracy, key: TrainingKey, seed: int) -> float:
    """Mean accuracy under random keys of the same kind."""
    draws = seeded(seed, "wrong keys")
    keys = [another_key(key, draws.bytes(SEED_BYTES)) for _ in range(_WRONG_KEYS)]
    return sum(measure(wrong) for wrong in keys) / _WRONG_KEYS


def near_keys(measure: KeyAccuracy, key: TrainingKey, seed: int) -> dict[str, float]:
    """Accuracy by how much of the key is wrong."""
    return {
        name: measure(near_key(key, share, generator_for(seed, f"near key {share}")))
        for name, share in _NEAR_KEYS.items()
    }
