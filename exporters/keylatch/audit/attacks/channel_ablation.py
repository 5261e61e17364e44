"""Switching channels off, one at a time, in case the lock is in a few of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target
from keylatch.audit.attacks._choice import labeled_merit
from keylatch.audit.attacks._free_gates import attacked_network
from keylatch.audit.attacks._weight_layers import weight_layers
from keylatch.audit.onnx_network import OnnxNetwork

_MOST_TRIALS = 600
_BATCH = 50


@dataclass(frozen=True, slots=True)
class ChannelAblation:
    """Sets channels to zero or to their means, and leaves those so that help."""

    name: str = "channel-ablation"
    needs: str = "labeled images"
    summary: str = "Sets channels to zero or to their mean, one at a time, and keeps what helps on labeled images."
    version: int = 1

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """Each number of labeled images, both replacements."""
        if not _candidates(target.network(), target):
            return []
        return [
            Variant(Given(labeled=count), label, {"mean": mean, "trials": _MOST_TRIALS}, weight=3.0)
            for mean, label in ((0, "set to zero"), (1, "set to the mean"))
            for count in resources.labeled
        ]

    def run(self, case: Case) -> Outcome:
        """Try every channel alone, then switch off together, the most helpful first, what goes on helping."""
        network = attacked_network(case)
        channels = _masked_channels(network, case)
        merit = labeled_merit(case.images, case.labels)
        start, alone, tried = merit(network), [], 0
        for mask, channel in channels[:_MOST_TRIALS]:
            if case.clock.expired:
                break
            mask.kept[channel], tried = False, tried + 1
            alone.append(merit(network))
            mask.kept[channel] = True
        best, off = start, 0
        for place in sorted(range(tried), key=lambda place: alone[place], reverse=True):
            if case.clock.expired or alone[place] <= start:
                break
            mask, channel = channels[place]
            mask.kept[channel], tried = False, tried + 1
            now = merit(network)
            if now > best:
                best, off = now, off + 1
            else:
                mask.kept[channel] = True
        return Outcome(network, {"trials": tried}, f"{off} channels off", truncated=case.clock.expired)


def _masked_channels(network: OnnxNetwork, case: Case) -> list[tuple[_Mask, int]]:
    """Put a mask behind each value that a layer reads; all channels, in random order."""
    masks = []
    for value, axis in _candidates(network, case.target):
        means = _channel_means(network, value, axis, case.images)
        masks.append((value, _Mask(axis, means if case.variant.settings["mean"] else torch.zeros_like(means))))
    for value, mask in masks:
        network.insert_after(value, mask)
    channels = [(mask, channel) for _, mask in masks for channel in range(len(mask.kept))]
    return [channels[int(place)] for place in torch.randperm(len(channels), generator=case.generator)]


class _Mask(nn.Module):
    """Replaces channels that are switched off by constants.

    Args:
        axis: Of the channels.
        instead: (channels,) what stands for one that is off.
    """

    kept: torch.Tensor
    instead: torch.Tensor

    def __init__(self, axis: int, instead: torch.Tensor) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("kept", torch.ones(len(instead), dtype=torch.bool))
        self.register_buffer("instead", instead)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Replace."""
        shape = [1] * data.dim()
        shape[self.axis] = -1
        return torch.where(self.kept.view(shape), data, self.instead.view(shape))


def _candidates(network: OnnxNetwork, target: Target) -> list[tuple[str, int]]:
    """What layers and gates read, with the axis of its channels."""
    found = {layer.data: 1 if layer.node.op == "Conv" else -1 for layer in weight_layers(network, target.gates)}
    found.pop(network.input_name, None)
    return list(found.items())


def _channel_means(network: OnnxNetwork, value: str, axis: int, images: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(1)
    for batch in torch.split(images, _BATCH):
        with torch.no_grad():
            data = network.values(batch, [value])[value].float().movedim(axis, 0)
        total = total + data.flatten(1).mean(1) * len(batch)
    return total / len(images)
