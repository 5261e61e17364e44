"""Source and target images of each step: all given (SA), targets given (SF), none given (DF)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

import torch
from torch import nn

from keylatch.locks._input_spec import InputSpec
from keylatch.locks._key_training_data import ImageSet
from keylatch.locks._mask_pruning._neighbors import Neighbors
from keylatch.locks._mask_pruning._objective import Batch, Labeled
from keylatch.locks._mask_pruning._synthesis import Synthesis

Train: TypeAlias = Callable[[torch.Tensor], None]
Precision: TypeAlias = Callable[[], AbstractContextManager[Any]]

_MADE_IMAGES = 2_048  # of an epoch without data


class Batches(Protocol):
    """Where images come from."""

    @property
    def made(self) -> nn.Module:
        """What is trained beside the masks; without parameters if images are given."""

    def epoch(self, train: Train) -> Iterator[Batch]:
        """The batches of an epoch; drawn by torch's generator, which is seeded. `train` takes a step on a loss."""

    def source(self, count: int) -> Labeled:
        """Some source images, to measure accuracy on."""


class GivenBatches:
    """SA: all images are given."""

    def __init__(self, source: ImageSet, targets: Mapping[str, ImageSet], batch: int, device: torch.device) -> None:
        self._source, self._targets, self._batch, self._device = source, targets, batch, device
        self.made: nn.Module = nn.ModuleList()

    def epoch(self, _: Train) -> Iterator[Batch]:
        """Each source image once, and as many target images."""
        steps = -(-len(self._source) // self._batch)
        drawn = {name: _shuffled(data, steps, self._batch) for name, data in self._targets.items()}
        for step, chosen in enumerate(torch.randperm(len(self._source)).tensor_split(steps)):
            targets = {name: _taken(data, drawn[name][step], self._device) for name, data in self._targets.items()}
            yield Batch(_taken(self._source, chosen, self._device), targets)

    def source(self, count: int) -> Labeled:
        """The first images: their order is that of their digests."""
        return _taken(self._source, torch.arange(min(count, len(self._source))), self._device)


class _MadeSource:
    """The source is made by generators, which are trained on the way."""

    def __init__(
        self, network: nn.Module, spec: InputSpec, classes: int, batch: int, device: torch.device, precision: Precision
    ) -> None:
        self._network, self._batch, self._device, self._precision = network, batch, device, precision
        self._synthesis = Synthesis(spec, classes).to(device)

    def source(self, count: int) -> Labeled:
        """Images of both generators."""
        with self._precision():
            return self._synthesis.draw(count, self._device)

    def _next_source(self, train: Train) -> Labeled:
        """A batch of source images, made after another step of their generators."""
        with self._precision():
            loss = self._synthesis.loss(self._network, self._batch, self._device)
        train(loss)
        self._synthesis.remember()
        return self.source(self._batch)


class SourceFreeBatches(_MadeSource):
    """SF: the source is made.

    Args:
        network: Frozen, in evaluation mode.
        spec: Of its images.
        classes: Of the network.
        batch: Images of each domain in a step.
        device: Where the network is.
        precision: Opens mixed precision, if it was asked for.
        targets: Given, with the labels that the network gives them.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: InputSpec,
        classes: int,
        batch: int,
        device: torch.device,
        precision: Precision,
        *,
        targets: Mapping[str, ImageSet],
    ) -> None:
        super().__init__(network, spec, classes, batch, device, precision)
        self._targets = targets
        self.made: nn.Module = self._synthesis

    def epoch(self, train: Train) -> Iterator[Batch]:
        """Each target image once, and as many source images."""
        steps = -(-max(map(len, self._targets.values())) // self._batch)
        drawn = {name: _shuffled(data, steps, self._batch) for name, data in self._targets.items()}
        for step in range(steps):
            source = self._next_source(train)
            targets = {name: _taken(data, drawn[name][step], self._device) for name, data in self._targets.items()}
            yield Batch(source, targets)


class DataFreeBatches(_MadeSource):
    """DF: the source is made, and so are the domains beside it.

    Args:
        network: Frozen, in evaluation mode.
        spec: Of its images.
        classes: Of the network.
        batch: Images of each domain in a step.
        device: Where the network is.
        precision: Opens mixed precision, if it was asked for.
        neighbors: What the domains beside the source are called.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: InputSpec,
        classes: int,
        batch: int,
        device: torch.device,
        precision: Precision,
        *,
        neighbors: str,
    ) -> None:
        super().__init__(network, spec, classes, batch, device, precision)
        self._name, self._neighbors = neighbors, Neighbors(spec).to(device)
        self.made: nn.Module = nn.ModuleList([self._synthesis, self._neighbors])

    def epoch(self, train: Train) -> Iterator[Batch]:
        """As many images of the source as of its neighbors."""
        for _ in range(-(-_MADE_IMAGES // self._batch)):
            pixels, labels = self._next_source(train)
            with self._precision():
                loss = self._neighbors.loss(self._network, pixels, labels)
            train(loss)
            with torch.no_grad():
                moved = self._neighbors(pixels, self._neighbors.draw(len(pixels), self._device))
            yield Batch((pixels, labels), {self._name: (moved, labels)})


def _shuffled(data: ImageSet, steps: int, batch: int) -> list[torch.Tensor]:
    """Places for each step: every image comes up before any comes up again."""
    rounds = -(-steps * batch // len(data))
    order = torch.cat([torch.randperm(len(data)) for _ in range(rounds)])
    return [order[step * batch : (step + 1) * batch] for step in range(steps)]


def _taken(data: ImageSet, chosen: torch.Tensor, device: torch.device) -> Labeled:
    return data.images[chosen].to(device), data.labels[chosen].to(device)
