"""Switching channels off, one at a time, in case the lock is in a few of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target
from keylatch.audit.attacks._choice import labeled_merit
from keylatch.audit.attacks._free_gates import attacked_network
from keylatch.audit.attacks._weight_layers import weight_layers
from keylatch.audit.onnx_network import OnnxNetwork

_MOST_ALONE = 96  # channels that are tried alone: three of four by slope, one at random
_SLOPE_SHARE = 0.75
_MOST_TOGETHER = 48
_JUDGED_ALONE = 64  # images
_JUDGED_TOGETHER = 256
_AVERAGED = 256
_SLOPE_BATCH = 8


@dataclass(frozen=True, slots=True)
class ChannelAblation:
    """Sets channels to zero or to their means, and leaves those so that help.

    A network has too many channels to try each: the slope of the loss along a channel's fading says for all at once
    which are worth it (Molchanov et al., "Pruning convolutional neural networks for resource efficient inference", ICLR
    2017, section 2.2). A slope is blind to what only a whole step shows, so some channels are tried at random.
    """

    name: str = "channel-ablation"
    needs: str = "labeled images"
    summary: str = "Sets channels to zero or to their mean, one at a time, and keeps what helps on labeled images."
    version: int = 3

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """Each number of labeled images, both replacements."""
        if not _candidates(target.network(), target):
            return []
        return [
            Variant(Given(labeled=count), label, {"mean": mean, "trials": _MOST_ALONE + _MOST_TOGETHER}, weight=2.0)
            for mean, label in ((0, "set to zero"), (1, "set to the mean"))
            for count in resources.labeled
        ]

    def run(self, case: Case) -> Outcome:
        """Try the likeliest channels alone, then switch off together, the most helpful first, what goes on helping."""
        network = attacked_network(case)
        channels = _likeliest(network, _masked_channels(network, case), case)
        few = labeled_merit(case.images[:_JUDGED_ALONE], case.labels[:_JUDGED_ALONE])
        start, tried = few(network), 0
        helpful: list[tuple[tuple[float, float], int, _Mask, int]] = []
        for mask, channel in channels:
            if case.clock.expired:
                break
            mask.kept[channel], tried = 0.0, tried + 1
            alone = few(network)
            mask.kept[channel] = 1.0
            if alone > start:
                helpful.append((alone, len(helpful), mask, channel))
        merit = labeled_merit(case.images[:_JUDGED_TOGETHER], case.labels[:_JUDGED_TOGETHER])
        best, off = merit(network), 0
        for _, _, mask, channel in sorted(helpful, key=lambda each: each[:2], reverse=True)[:_MOST_TOGETHER]:
            if case.clock.expired:
                break
            mask.kept[channel], tried = 0.0, tried + 1
            now = merit(network)
            if now > best:
                best, off = now, off + 1
            else:
                mask.kept[channel] = 1.0
        return Outcome(network, {"trials": tried}, f"{off} channels off", truncated=case.clock.expired)


def _likeliest(network: OnnxNetwork, channels: list[tuple[_Mask, int]], case: Case) -> list[tuple[_Mask, int]]:
    """The channels along whose fading the loss falls fastest, the steepest first; then some of the others."""
    if len(channels) <= _MOST_ALONE or case.clock.expired:
        return channels[:_MOST_ALONE]
    masks = list(dict.fromkeys(mask for mask, _ in channels))
    slopes = dict(zip(masks, _slopes(network, masks, case), strict=True))
    steepest = sorted(channels, key=lambda each: float(slopes[each[0]][each[1]]), reverse=True)
    count = round(_SLOPE_SHARE * _MOST_ALONE)
    rest = set(steepest[count:])
    return [*steepest[:count], *[each for each in channels if each in rest][: _MOST_ALONE - count]]


def _slopes(network: OnnxNetwork, masks: Sequence[_Mask], case: Case) -> list[torch.Tensor]:
    """For each mask (channels,) how fast the loss falls as a channel fades; 0 where it is no number."""
    network.requires_grad_(False)
    kept = [mask.kept.requires_grad_() for mask in masks]
    total = [torch.zeros(len(each)) for each in kept]
    images, labels = case.images[:_JUDGED_ALONE], case.labels[:_JUDGED_ALONE]
    for batch, right in zip(torch.split(images, _SLOPE_BATCH), torch.split(labels, _SLOPE_BATCH), strict=True):
        loss = functional.cross_entropy(network(batch).float(), right, reduction="sum")
        found = torch.autograd.grad(loss, kept, allow_unused=True)
        total = [old if new is None else old + new.nan_to_num() for old, new in zip(total, found, strict=True)]
    for mask in masks:
        mask.kept.requires_grad_(False)
    return total


def _masked_channels(network: OnnxNetwork, case: Case) -> list[tuple[_Mask, int]]:
    """Put a mask behind each value that a layer reads; all channels, in random order."""
    axes = dict(_candidates(network, case.target))
    means = _channel_means(network, axes, case.images[:_AVERAGED])
    instead = {
        value: mean if case.variant.settings["mean"] else torch.zeros_like(mean) for value, mean in means.items()
    }
    masks = [(value, _Mask(axis, instead[value])) for value, axis in axes.items()]
    for value, mask in masks:
        network.insert_after(value, mask)
    channels = [(mask, channel) for _, mask in masks for channel in range(len(mask.kept))]
    return [channels[int(place)] for place in torch.randperm(len(channels), generator=case.generator)]


class _Mask(nn.Module):
    """Replaces channels that are switched off by constants.

    Args:
        axis: Of the channels.
        instead: (channels,) what stands for one that is off.

    Attributes:
        kept: (channels,) 1 for those that are on, 0 for those that are off.
    """

    kept: torch.Tensor
    instead: torch.Tensor

    def __init__(self, axis: int, instead: torch.Tensor) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("kept", torch.ones(len(instead)))
        self.register_buffer("instead", instead)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Replace."""
        shape = [1] * data.dim()
        shape[self.axis] = -1
        kept, instead = self.kept.view(shape), self.instead.view(shape)
        if self.kept.requires_grad:
            return instead + kept * (data - instead)
        return torch.where(kept > 0, data, instead)


def _candidates(network: OnnxNetwork, target: Target) -> list[tuple[str, int]]:
    """What layers and gates read, with the axis of its channels."""
    found = {layer.data: 1 if layer.node.op == "Conv" else -1 for layer in weight_layers(network, target.gates)}
    found.pop(network.input_name, None)
    return list(found.items())


def _channel_means(network: OnnxNetwork, axes: Mapping[str, int], images: torch.Tensor) -> dict[str, torch.Tensor]:
    """By value (channels,) means over some images."""
    totals: dict[str, torch.Tensor] = {}
    for batch in torch.split(images, _SLOPE_BATCH):
        with torch.no_grad():
            values = network.values(batch, list(axes))
        for value, axis in axes.items():
            sums = values[value].float().movedim(axis, 0).flatten(1).mean(1) * len(batch)
            totals[value] = totals.get(value, torch.zeros(1)) + sums
    return {value: total / len(images) for value, total in totals.items()}
