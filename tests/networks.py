"""Tiny networks and images that several test folders share; 32x32 images, patches of 8x8."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn import functional as F

from keylatch.locks import InputSpec, Locked, code_lock, sample_images

SIZE, PATCH = 32, 8
SPEC = InputSpec(3, SIZE, SIZE)
SEED = bytes(range(32))  # of secret codes
PUBLIC_SEED = bytes(range(100, 132))


@contextmanager
def fixed_public_seed(seed: bytes = PUBLIC_SEED) -> Iterator[None]:
    """Let `code_lock` draw this public seed, so that a test sees the same lock on every run."""
    with mock.patch.object(secrets, "token_bytes", lambda count: seed[:count]):
        yield


def lock(model: Any, spec: InputSpec = SPEC, **options: Any) -> Locked:
    """Lock a network the same way on every run."""
    with fixed_public_seed(options.pop("public_seed", PUBLIC_SEED)):
        return code_lock(model, spec, **{"patch_size": PATCH, "seed": SEED, "sealed_share": 0.02, **options})


def settle(build: Any, channels: int = 3, seed: int = 0) -> nn.Module:
    """Build a network with fixed random weights, and real batch-norm statistics: those of some images."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network: nn.Module = build()
        norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
            norm.momentum = None  # a plain average
        if norms:
            network.train()
            with torch.no_grad():
                network(pixels(32, channels).float() / 255)
    return network.eval()


@functools.cache
def program_of(build: Any, spec: InputSpec = SPEC) -> torch.export.ExportedProgram:
    """A settled network's program, captured once: that is most of a lock's time, where tests lock one many times."""
    batch, image = torch.export.Dim("batch", min=1), torch.zeros(2, *spec.shape)
    return torch.export.export(settle(build, spec.channels), (image,), dynamic_shapes=({0: batch},), strict=False)


@functools.cache
def pixels(count: int, channels: int = 3, size: int = SIZE) -> torch.Tensor:
    """(count, channels, size, size) uint8 images; do not write into them."""
    return sample_images(count, channels, size, size)


def prepare(values: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """uint8 pixels (N, C, H, W) as a network takes them; written out here, not taken from the library."""
    if spec.dtype == "uint8":
        image = values
    else:
        mean, std = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (spec.mean, spec.std))
        image = ((values.double() / 255 - mean) / std).float()
    return image if spec.layout == "NCHW" else image.movedim(1, 3).contiguous()


def paste(values: torch.Tensor, patch: torch.Tensor, corner: str = "bottom-right") -> torch.Tensor:
    """uint8 pixels (N, C, H, W) with a patch, (m,) uint8 channels first, in a corner."""
    side = int((len(patch) // values.shape[1]) ** 0.5)
    rows = slice(0, side) if corner.startswith("top") else slice(values.shape[2] - side, None)
    columns = slice(0, side) if corner.endswith("left") else slice(values.shape[3] - side, None)
    pasted = values.clone()
    pasted[:, :, rows, columns] = patch.view(1, -1, side, side)
    return pasted


def outputs_of(network: Any, images: torch.Tensor) -> Any:
    """A network's return value, without gradients."""
    with torch.no_grad():
        return network(images)


def relative_error(output: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference as a share of the expected range."""
    return float((output - expected).abs().max() / (expected.max() - expected.min()))


class PaddedConvs(nn.Sequential):
    """Convolutions with padding, batch normalization after each; logits."""

    def __init__(self, channels: int = 3, width: int = 64, classes: int = 10) -> None:
        super().__init__(
            nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, 2, 1, bias=True), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, (3, 5), 2, (1, 2), bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes),
        )  # fmt: skip


class Residual(nn.Module):
    """Residual blocks that add and rectify in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 4, 4)
        self.first, self.first_norm = nn.Conv2d(64, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        self.second, self.second_norm = nn.Conv2d(64, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        self.third = nn.Conv2d(64, 96, 1)
        self.head = nn.Linear(96, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x), inplace=True)
        inner = F.relu(self.first_norm(self.first(x)), inplace=True)
        inner = self.second_norm(self.second(inner))
        inner += x
        x = F.relu_(inner)
        return self.head(F.relu(self.third(x)).mean((2, 3)))


class Depthwise(nn.Sequential):
    """Depthwise and pointwise convolutions, as in mobile networks."""

    def __init__(self) -> None:
        def block(inside: int, outside: int) -> list[nn.Module]:
            return [
                nn.Conv2d(inside, inside, 3, 1, 1, groups=inside, bias=False), nn.BatchNorm2d(inside), nn.ReLU6(),
                nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside), nn.Hardswish(),
            ]  # fmt: skip

        super().__init__(
            nn.Conv2d(3, 64, 4, 4), nn.ReLU6(), *block(64, 64), *block(64, 96), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(96, 10),
        )  # fmt: skip


class PreActivation(nn.Module):
    """Batch normalization before the convolution: it cannot be folded into one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 4, 4)
        self.norms = nn.ModuleList([nn.BatchNorm2d(64), nn.BatchNorm2d(64), nn.BatchNorm2d(64)])
        self.convs = nn.ModuleList([nn.Conv2d(64, 64, 3, 1, 1), nn.Conv2d(64, 64, 3, 1, 1)])
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        for norm, conv in zip(self.norms, self.convs, strict=False):
            x = x + conv(F.relu(norm(x)))
        return self.head(F.relu(self.norms[2](x)).mean((2, 3)))


class Tokens(nn.Module):
    """A small vision transformer: patch embedding, layer norm, scaled dot-product attention, MLP."""

    def __init__(self, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Conv2d(3, width, 8, 8)
        self.place = nn.Parameter(torch.randn(1, 16, width) * 0.1)
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2) + self.place
        batch, count, width = x.shape
        queries, keys, values = (
            part.view(batch, count, self.heads, -1).transpose(1, 2) for part in self.qkv(self.norm_in(x)).chunk(3, -1)
        )
        attended = F.scaled_dot_product_attention(queries, keys, values)
        x = x + self.project(attended.transpose(1, 2).reshape(batch, count, width))
        x = x + self.contract(F.gelu(self.expand(self.norm_out(x))))
        return self.head(x.mean(1))


class Dense(nn.Module):
    """Segmentation: a class for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Conv2d(64, 96, 3, 2, 1, bias=False), nn.BatchNorm2d(96), nn.ReLU(),
        )  # fmt: skip
        self.decode = nn.Conv2d(96, 64, 3, 1, 1)
        self.classify = nn.Conv2d(64, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.decode(self.encode(x)))
        return F.interpolate(self.classify(x), scale_factor=4.0, mode="bilinear", align_corners=False)


class Returning(nn.Module):
    """A network with two heads, returned as a `tensor` (one head), `tuple` or `dict`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.trunk = kind, PaddedConvs(classes=64)
        self.boxes, self.scores = nn.Linear(64, 4), nn.Linear(64, 7)

    def forward(self, x: torch.Tensor) -> Any:
        features = F.relu(self.trunk(x))
        boxes, scores = self.boxes(features), self.scores(features)
        if self.kind == "tensor":
            return scores
        return (boxes, scores) if self.kind == "tuple" else {"boxes": boxes, "scores": scores}


@dataclass(frozen=True)
class Digits:
    """A classifier really trained on handwritten digits, with images it has not seen.

    Attributes:
        network: Takes (N, 3, 32, 32) float32 in [0, 1].
        images: (N, 3, 32, 32) float32 test images.
        labels: (N,) int64.
    """

    network: nn.Module
    images: torch.Tensor
    labels: torch.Tensor

    def accuracy(self, network: Any, dtype: torch.dtype = torch.float32) -> float:
        """Top-1 on the test images, 0 to 1."""
        return self.agreement(outputs_of(network, self.images.to(dtype)).argmax(1))

    def agreement(self, classes: torch.Tensor) -> float:
        """Share of the labels that these classes are equal to."""
        return float((classes == self.labels).float().mean())


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order, whatever the machine; and faster than two threads on networks this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@functools.cache
def trained_digits() -> Digits:
    """Train in about two seconds; the same network on every run on a machine."""
    from sklearn.datasets import load_digits

    data = load_digits()
    small = torch.tensor(data.images / 16, dtype=torch.float32).unsqueeze(1)
    images = small.repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)
    labels = torch.tensor(data.target)
    with torch.random.fork_rng(), one_thread():
        torch.manual_seed(0)
        order = torch.randperm(len(images))
        seen, held_back = order[:1200], order[1200:]
        network = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Conv2d(64, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Conv2d(64, 96, 3, 1, 1, bias=False), nn.BatchNorm2d(96), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10),
        )  # fmt: skip
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        for _ in range(4):
            for batch in torch.randperm(len(seen)).split(60):
                shown = images[seen[batch]].clone()
                shown[::2, :, -PATCH:, -PATCH:] = torch.rand(len(shown[::2]), 3, PATCH, PATCH)  # "random erasing"
                optimizer.zero_grad()
                F.cross_entropy(network(shown), labels[seen[batch]]).backward()
                optimizer.step()
    return Digits(network.eval(), images[held_back].contiguous(), labels[held_back])
