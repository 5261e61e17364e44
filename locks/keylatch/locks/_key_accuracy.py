"""Accuracies under a key, under none, under wrong and nearly right ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from keylatch.errors import LockError
from keylatch.locks._block_transform import BlockTransform
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._key_training_data import ImageSet, generator_for, network_input, seeded
from keylatch.locks._randomness import SEED_BYTES

_WRONG_KEYS = 3
_NEAR_KEYS = {"1 entry": 0.0, "1 %": 0.01, "5 %": 0.05, "25 %": 0.25}  # share of the entries that are wrong


@dataclass(frozen=True, slots=True)
class KeyAccuracy:
    """Top-1 accuracy of a network on the validation images under a key, in percent."""

    network: nn.Module
    spec: InputSpec
    data: ImageSet
    batch: int
    device: torch.device

    def __call__(self, transform: BlockTransform) -> float:
        parts = zip(torch.split(self.data.images, self.batch), torch.split(self.data.labels, self.batch), strict=True)
        right = sum(int((self.scores(images, transform).argmax(1).cpu() == labels).sum()) for images, labels in parts)
        return 100 * right / len(self.data)

    def scores(self, pixels: torch.Tensor, transform: BlockTransform) -> torch.Tensor:
        """(N, classes), in evaluation mode."""
        self.network.eval()
        with torch.no_grad():
            scores = self.network(network_input(pixels.to(self.device), transform, self.spec))
        if not isinstance(scores, torch.Tensor) or scores.dim() != 2 or len(scores) != len(pixels):
            found = f"shape {tuple(scores.shape)}" if isinstance(scores, torch.Tensor) else f"a {type(scores).__name__}"
            raise LockError(
                f"the model returns {found} for {len(pixels)} images, expected logits ({len(pixels)}, classes)",
                hint="wrap it in a module whose forward returns the logits alone",
            )
        return scores


def wrong_keys(measure: KeyAccuracy, transform: BlockTransform, seed: int) -> float:
    """Mean accuracy under random keys of the same steps."""
    draws = seeded(seed, "wrong keys")
    size = {"block_size": transform.block_size, "channels": transform.channels}
    keys = [BlockTransform.draw(transform.steps, seed=draws.bytes(SEED_BYTES), **size) for _ in range(_WRONG_KEYS)]
    return sum(measure(key) for key in keys) / _WRONG_KEYS


def near_keys(measure: KeyAccuracy, transform: BlockTransform, seed: int) -> dict[str, float]:
    """Accuracy by how much of the key is wrong."""
    counts = {name: max(1, round(share * transform.parameters)) for name, share in _NEAR_KEYS.items()}
    keys = {count: transform.near(count, generator_for(seed, f"near key {count}")) for count in counts.values()}
    measured = {count: measure(key) for count, key in keys.items()}  # a small block has 1 % = 1 entry
    return {name: measured[count] for name, count in counts.items()}
