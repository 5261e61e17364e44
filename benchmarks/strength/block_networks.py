"""Networks of the data pack that were fine-tuned under a block key: trained once, found again."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data_pack import NETWORKS, LabelledImages
from data_pack.images import cifar10_jpeg_test, cifar10_jpeg_train
from keylatch.locks import BlockTransform, InputSpec, TrainingProgress, fine_tune, hint_layers, identity_transform

# Fewer images are seen more often: steps would otherwise be too few to tell what the images can teach.
EPOCHS = {10_000: 20, 2_500: 40, 1_000: 60}
PLAIN = "plain"
METHODS = (PLAIN, "shf", "np", "ffx", "shf+np", "shf+np+ffx")
LEARNING_RATE, BATCH = 0.05, 64  # the step is small enough for a thousand images to give many


@dataclass(frozen=True, slots=True)
class Run:
    """A training.

    Attributes:
        network: Of the data pack, for CIFAR-10.
        method: Steps of the key, joined by a plus; `PLAIN` for the same training without one.
        block_size: M.
        images: How many of the training images.
        hints: Whether the network's own feature maps are learned too.
    """

    network: str
    method: str
    block_size: int
    images: int
    hints: bool = False

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.network}.{self.method}.{self.block_size}.{self.images}{'.hints' if self.hints else ''}"

    @property
    def spec(self) -> InputSpec:
        """The network's images."""
        entry = NETWORKS[self.network]
        return InputSpec(*entry.image_shape, entry.mean, entry.std)

    @property
    def key(self) -> BlockTransform:
        """The same one on another day, so that a stopped training can go on."""
        if self.method == PLAIN:
            return identity_transform(self.block_size, 3)
        seed = hashlib.sha256(f"benchmark {self.method}".encode()).digest()
        return BlockTransform.draw(self.method.split("+"), block_size=self.block_size, seed=seed)  # type: ignore[arg-type]

    def report(self, data: Path, work: Path) -> dict[str, Any]:
        """Train, or read what an earlier training gave."""
        done = work / f"{self.name}.json"
        if not done.exists():
            self._train(data, work)
        found: dict[str, Any] = json.loads(done.read_text())
        return found

    def network_trained(self, data: Path, work: Path) -> nn.Module:
        """The trained network, in evaluation mode."""
        self.report(data, work)
        network = NETWORKS[self.network].load(data)
        network.load_state_dict(torch.load(work / f"{self.name}.weights", weights_only=True))
        return network.eval()

    def _train(self, data: Path, work: Path) -> None:
        print(
            f"{self.network}, {self.method}, M = {self.block_size}, {self.images} images", file=sys.stderr, flush=True
        )
        everything, held_out = cifar10_jpeg_train(data), cifar10_jpeg_test(data)
        network = NETWORKS[self.network].load(data)
        tuned = fine_tune(
            network,
            self.spec,
            self.key,
            [_pair(everything)],
            [_pair(held_out)],
            epochs=EPOCHS[self.images],
            subset=self.images / len(everything),
            learning_rate=LEARNING_RATE,
            batch=BATCH,
            hints=hint_layers(network, self.spec) if self.hints else (),
            mixed_precision=True,
            checkpoint=work / f"{self.name}.pt",
            progress=_tell,
        )
        torch.save(tuned.model.state_dict(), work / f"{self.name}.weights")
        row = {"network": self.network, "method": self.method, "block_size": self.block_size, "hints": self.hints}
        (work / f"{self.name}.json").write_text(json.dumps({**row, **tuned.report.to_json()}))


def _pair(images: LabelledImages) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.from_numpy(images.images).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.from_numpy(images.labels)


def _tell(state: TrainingProgress) -> None:
    done = f"{state.epoch}/{state.epochs}"
    print(f"  {done} loss {state.loss:.3f}, {state.accuracy:.1f} %, {state.seconds:.0f} s", file=sys.stderr, flush=True)
