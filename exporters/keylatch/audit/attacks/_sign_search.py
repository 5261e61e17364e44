"""How well a network does with given gate signs: what key searches lower, by queries or by gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from keylatch.audit._centers import center_on_batches, control_shapes
from keylatch.audit._target import Target
from keylatch.audit.onnx_network import OnnxNetwork

_MOST_KEPT_BYTES = 2**28
_BATCH = 50
_PIXELS, _FEWEST = 2**22, 32  # of the images in one pass of a search


class Given(nn.Module):
    """Gives a value that is set from outside, whatever comes in."""

    value: torch.Tensor

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        """The value."""
        return self.value


class SignObjective:
    """Loss of a locked network as a function of its gate signs, channel means always estimated on the batch.

    What comes before the first gate does not depend on the signs and is computed once, if it is small enough and
    nothing is trained.

    Args:
        target: The locked model.
        images: (n, *shape) the attacker's.
        labels: (n,) int64; None for the label-free loss.
        trained: Names of gate tensors that become parameters: withheld weights.
    """

    def __init__(
        self, target: Target, images: torch.Tensor, labels: torch.Tensor | None, trained: Sequence[str] = ()
    ) -> None:
        self._network, self._images, self._labels = target.network().float(), images, labels
        self._network.requires_grad_(False)
        self._shapes = control_shapes(self._network, target.gates, images)
        self._signs = [put(self._network, gate.control, torch.zeros(1)) for gate in target.gates]
        self.weights = {name: nn.Parameter(self._network.initializer(name).clone()) for name in trained}
        for name, parameter in self.weights.items():
            self._network.substitute(name, parameter)
        self._source, self._kept = Given(), None
        if not trained:
            self._source, self._kept = _keep_start(self._network, target.gates[0].source, images)
        center_on_batches(self._network, target.gates)

    def __len__(self) -> int:
        return len(self._images)

    def at_once(self, most: int) -> int:
        """How many of its images are shown in one pass."""
        return at_once(self._images, most)

    def __call__(self, signs: Sequence[torch.Tensor], chosen: torch.Tensor) -> torch.Tensor:
        """The loss, differentiable in the signs.

        Args:
            signs: For each gate (channels,) in [-1, 1].
            chosen: (b,) numbers of images.
        """
        for holder, sign, shape in zip(self._signs, signs, self._shapes, strict=True):
            holder.value = sign.reshape(shape)
        if self._kept is not None:
            self._source.value = self._kept[chosen]
        scores = self._network(self._images[chosen])
        return information_loss(scores) if self._labels is None else cross_entropy(scores, self._labels[chosen])


def at_once(images: torch.Tensor, most: int) -> int:
    """How many images a search shows in one pass: of large ones fewer, so that it gets through its passes."""
    return min(most, max(_FEWEST, _PIXELS // images.shape[1:].numel()))


def put(network: OnnxNetwork, value: str, stand_in: torch.Tensor) -> Given:
    """Let readers of a value get what is set on the module that this returns; what gave the value is not run."""
    holder = Given()
    network.substitute(value, stand_in)
    network.insert_after(value, holder)
    return holder


def cross_entropy(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy; scores that overflow count as a bad loss, not as NaN."""
    return functional.cross_entropy(scores.float().nan_to_num(), labels)


def information_loss(scores: torch.Tensor) -> torch.Tensor:
    """Mean entropy less the entropy of the mean: low when each image is decided and all classes occur.

    Label-free; the second part keeps a search from calling everything one class (Bridle, Heading and MacKay, NIPS
    1991; used as here by Liang, Hu and Feng, "Do we really need to access the source data?", arXiv 2002.08546).

    Args:
        scores: (n, classes).
    """
    chances = functional.softmax(scores.float().nan_to_num(), 1)
    return _entropy(chances).mean() - _entropy(chances.mean(0))


def _entropy(chances: torch.Tensor) -> torch.Tensor:
    entropy: torch.Tensor = torch.special.entr(chances).sum(-1)
    return entropy


def _keep_start(network: OnnxNetwork, source: str, images: torch.Tensor) -> tuple[Given, torch.Tensor | None]:
    with torch.no_grad():
        first = network.values(images[:1], [source])[source]
        if first.numel() * first.element_size() * len(images) > _MOST_KEPT_BYTES:
            return Given(), None
        kept = torch.cat([network.values(part, [source])[source] for part in torch.split(images, _BATCH)])
    return put(network, source, torch.zeros(1)), kept
