"""NTL and CUTI, the two methods that MAP is compared with, from their losses.

NTL, "Non-Transferable Learning: A New Approach for Model Ownership Verification and Applicability Authorization" (arXiv
2106.06916, equation 5): KL(source) - min(1, alpha KL(target)) min(1, beta MMD(features)), alpha = beta = 0.1; MMD with
five Gaussian kernels whose widths are powers of two around the mean distance.

CUTI, "Model Barrier: A Compact Un-Transferable Isolation Domain for Model Intellectual Property Protection" (arXiv
2303.11078): KL(source) - min(1, alpha KL(target)); every other step the target's features are given a style that is
mixed from the source's after each stage, an isolation domain between the two.

Both train all weights, where MAP freezes them. The authors start from ImageNet's VGG-11 without batch normalization and
train with Adam at 1e-4 for thirty epochs of 5,000 images in batches of 32. Here both start from the trained source
network, batch-normalization statistics frozen, and get the images, batches and epochs that MAP gets; the rate is ten
times theirs for the fewer steps. KL is in nats, as for MAP.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch.nn import functional
from torch.nn.utils import convert_conv2d_weight_memory_format

from authorization.digits import Labeled, shifted
from authorization.vgg import NarrowVgg
from keylatch.locks import InputSpec

ALPHA = BETA = 0.1
LEARNING_RATE = 1e-3
_KERNELS = 5

Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]  # inputs and classes
Loss: TypeAlias = Callable[[NarrowVgg, Batch, Batch, int], torch.Tensor]


def ntl(network: NarrowVgg, source: Batch, target: Batch, _: int) -> torch.Tensor:
    """NTL's loss of a batch of either domain."""
    ours, others = network.features(torch.cat([source[0], target[0]])).flatten(1).chunk(2)
    kept = functional.cross_entropy(network.classifier(ours).float(), source[1])
    lost = (ALPHA * functional.cross_entropy(network.classifier(others).float(), target[1])).clamp(max=1)
    return kept - lost * (BETA * mmd(ours, others)).clamp(max=1)


def cuti(network: NarrowVgg, source: Batch, target: Batch, step: int) -> torch.Tensor:
    """CUTI's loss of a batch of either domain."""
    values = torch.cat([source[0], target[0]])
    for stage in network.features:
        values = stage(values)
        if step % 2:
            values = _isolated(values)
    ours, others = network.classifier(values.flatten(1)).float().chunk(2)
    lost = (ALPHA * functional.cross_entropy(others, target[1])).clamp(max=1)
    return functional.cross_entropy(ours, source[1]) - lost


def mmd(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Squared maximum mean discrepancy, the sum over five Gaussian kernels; biased, between 0 and 10.

    Args:
        first: (N, d) features.
        second: (N, d) features.
    """
    everyone = torch.cat([first, second]).float()
    distances = ((everyone[:, None] - everyone[None, :]) ** 2).sum(2)
    count = len(distances)
    width = distances.detach().sum() / (count * count - count)
    kernels = sum(torch.exp(-distances / (width * 2.0**power)) for power in range(-2, _KERNELS - 2))
    assert isinstance(kernels, torch.Tensor)
    half = len(first)
    return (kernels[:half, :half] + kernels[half:, half:] - kernels[:half, half:] - kernels[half:, :half]).mean()


def _isolated(values: torch.Tensor) -> torch.Tensor:
    """The second half's feature maps under a random mixture of the first half's channel means and deviations."""
    source, target = values.float().chunk(2)
    if source[0, 0].numel() < 2:  # one pixel has no deviation
        return values
    channels = source.shape[1]
    mixers = [torch.empty(channels, channels).uniform_(-1, 1) / channels**0.5 for _ in range(2)]
    variance, mean = torch.var_mean(source, dim=(2, 3))
    moments = (mean, (variance + 1e-5).sqrt())
    styles = [torch.sigmoid(moment @ mixer) for moment, mixer in zip(moments, mixers, strict=True)]
    shift, scale = (style[:, :, None, None] for style in styles)
    return torch.cat([source, target * scale + shift])


def train(
    network: NarrowVgg, spec: InputSpec, loss: Loss, source: Labeled, target: Labeled, *, epochs: int, batch: int
) -> NarrowVgg:
    """A copy of a network, trained with one of the losses; normalizations keep their statistics."""
    trained = convert_conv2d_weight_memory_format(copy.deepcopy(network).eval(), torch.channels_last)
    steps = -(-len(source) // batch)
    optimizer = torch.optim.Adam(trained.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps * epochs)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for step, (ours, theirs) in enumerate(_batches(source, target, steps * epochs, batch)):
            first = spec.from_pixels(shifted(source.images[ours])), source.labels[ours]
            second = spec.from_pixels(shifted(target.images[theirs])), target.labels[theirs]
            with torch.autocast("cpu", torch.bfloat16):
                value = loss(trained, first, second, step)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return trained


def _batches(source: Labeled, target: Labeled, steps: int, batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Places in either domain; every image comes up before any does again."""
    orders = [
        torch.cat([torch.randperm(len(images)) for _ in range(-(-steps * batch // len(images)))])
        for images in (source, target)
    ]
    for step in range(steps):
        first, second = (order[step * batch : (step + 1) * batch] for order in orders)
        yield first, second
