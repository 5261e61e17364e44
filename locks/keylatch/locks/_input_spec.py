"""How a network takes its images: size, layout, dtype, and the affine map from its input to pixels in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch

from keylatch.errors import LockError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Layout = Literal["NCHW", "NHWC"]
DTypeName = Literal["float32", "uint8"]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """A network's image input: `pixel = x * std + mean`, pixel in [0, 1].

    Attributes:
        channels: Image channels, 1 or more.
        height: Rows.
        width: Columns.
        mean: Per channel; () stands for zeros.
        std: Per channel; () stands for ones. Inputs in [0, 255] have std 1/255, inputs in [-1, 1] mean and std 0.5.
        layout: Order of the axes.
        dtype: ``float32``, or ``uint8`` for raw bytes (mean 0, std 1/255).
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Layout = "NCHW"
    dtype: DTypeName = "float32"

    def __post_init__(self) -> None:
        if min(self.channels, self.height, self.width) < 1:
            raise LockError(
                f"image size {self.channels}x{self.height}x{self.width} is not positive",
                hint="give channels, height and width as whole numbers, e.g. 3x224x224",
            )
        default_std = 1 / 255 if self.dtype == "uint8" else 1.0
        object.__setattr__(self, "mean", self._per_channel(self.mean, 0.0, "mean"))
        object.__setattr__(self, "std", self._per_channel(self.std, default_std, "std"))
        if self.dtype == "uint8" and (any(self.mean) or any(std != default_std for std in self.std)):
            raise LockError(
                "a uint8 input has mean 0 and std 1/255, got others",
                hint="leave mean and std out; what the network does with the bytes is its own",
            )
        if min(self.std) <= 0:
            raise LockError("std must be positive in every channel", hint="give the divisors of the normalization")

    def _per_channel(self, values: tuple[float, ...], default: float, name: str) -> tuple[float, ...]:
        if len(values) not in (0, 1, self.channels):
            raise LockError(
                f"{name} has {len(values)} values, expected 1 or {self.channels}",
                hint=f"give {name} once for each image channel",
            )
        full = tuple(float(value) for value in values) or (default,)
        return full * self.channels if len(full) == 1 else full

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image in this layout."""
        if self.layout == "NCHW":
            return (self.channels, self.height, self.width)
        return (self.height, self.width, self.channels)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The input's dtype in PyTorch."""
        return torch.uint8 if self.dtype == "uint8" else torch.float32

    def as_uint8(self) -> InputSpec:
        """The same image as raw bytes, uint8 NHWC, the form image decoders give."""
        return replace(self, mean=(), std=(), layout="NHWC", dtype="uint8")

    def from_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Bring pixels into this input's convention.

        Args:
            pixels: (N, C, H, W) uint8 in [0, 255].

        Returns:
            (N, *shape), this spec's dtype.
        """
        image = pixels if self.dtype == "uint8" else self._normalize(pixels)
        return image if self.layout == "NCHW" else image.permute(0, 2, 3, 1).contiguous()

    def _normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        mean = torch.tensor(self.mean, device=pixels.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, -1, 1, 1)
        return (pixels.to(torch.float32) / 255 - mean) / std

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description, the one that stands in the artifact."""
        return {
            "channels": self.channels,
            "height": self.height,
            "width": self.width,
            "mean": list(self.mean),
            "std": list(self.std),
            "layout": self.layout,
            "dtype": self.dtype,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(**{**data, "mean": tuple(data["mean"]), "std": tuple(data["std"])})
