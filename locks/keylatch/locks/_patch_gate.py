"""A secret patch as gate tensors; and the gate that reads a code from it or from the corner, one sign a channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from keylatch.errors import LockError
from keylatch.locks._code import CodeMap, as_signs, tie_break
from keylatch.locks._exact_buffers import ExactBuffers
from keylatch.locks._input_spec import InputSpec

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]


@dataclass(frozen=True, slots=True)
class PatchPlace:
    """Where the patch is: a square of `size` pixels in a corner."""

    size: int
    corner: Corner = "bottom-right"

    def require_fit(self, spec: InputSpec) -> None:
        """Raise LockError unless the patch fits into the image."""
        if self.size < 1 or self.size > min(spec.height, spec.width):
            raise LockError(
                f"a {self.size}x{self.size} patch does not fit a {spec.height}x{spec.width} image",
                hint=f"take a patch_size of at most {min(spec.height, spec.width)}, or larger images",
            )

    def start(self, spec: InputSpec) -> tuple[int, int]:
        """First row and first column of the patch."""
        vertical, horizontal = self.corner.split("-")
        row = 0 if vertical == "top" else spec.height - self.size
        column = 0 if horizontal == "left" else spec.width - self.size
        return row, column


class PatchTensors(ExactBuffers):
    """A patch and a mask, in an image's convention: gate tensors. By their locked defaults there is no patch.

    All buffers keep their dtype when the network is cast to half precision.

    Args:
        place: Where the patch is.
        spec: The input convention; for uint8 input the patch is bytes too.
    """

    patch: torch.Tensor
    mask: torch.Tensor

    def __init__(self, place: PatchPlace, spec: InputSpec) -> None:
        super().__init__()
        self.place, self.spec = place, spec
        size, nchw = place.size, spec.layout == "NCHW"
        shape = (1, spec.channels, size, size) if nchw else (1, size, size, spec.channels)
        self.register_buffer("patch", torch.zeros(shape, dtype=spec.torch_dtype))
        self.register_buffer("mask", torch.zeros((1, 1, size, size) if nchw else (1, size, size, 1), dtype=torch.bool))

    def patch_value(self, pixels: torch.Tensor) -> torch.Tensor:
        """The patch in the input's convention, from (m,) or (C, k, k) uint8 pixels."""
        size = self.place.size
        return self.spec.from_pixels(pixels.reshape(1, self.spec.channels, size, size)).to(self.patch.dtype)

    @property
    def axes(self) -> tuple[int, int]:
        """The dimensions of an image batch that count rows and columns."""
        return (2, 3) if self.spec.layout == "NCHW" else (1, 2)

    def corner(self, image: torch.Tensor) -> torch.Tensor:
        """The patch where the mask is set, the image's own corner elsewhere."""
        (rows, columns), (row, column) = self.axes, self.place.start(self.spec)
        own = image.narrow(rows, row, self.place.size).narrow(columns, column, self.place.size)
        return torch.where(self.mask, self.patch, own)


class PatchGate(PatchTensors):
    """Turns a patch into gate signs: the secret one, or whatever an image has in its corner.

    By the locked defaults the image's own corner is read as a code, which is junk.

    Args:
        code_map: The public map from patch to signs.
        place: Where the patch is.
        spec: The input convention; for uint8 input the patch is bytes too.
    """

    projection: torch.Tensor
    offset: torch.Tensor
    expansion: torch.Tensor
    picks: torch.Tensor

    def __init__(self, code_map: CodeMap, place: PatchPlace, spec: InputSpec) -> None:
        super().__init__(place, spec)
        self.code_map = code_map
        projection, offset = self._in_input_units()
        self.register_buffer("projection", projection)
        self.register_buffer("offset", offset)
        self.register_buffer("expansion", code_map.expansion)
        self.register_buffer("picks", code_map.picks.reshape(-1))
        self._fan_in = code_map.picks.shape[0]

    def _in_input_units(self) -> tuple[torch.Tensor, torch.Tensor]:
        """V (x * std + mean - 1/2) as one matrix, (m, d), in the input's axis order, and one offset, (d,)."""
        size, channels = self.place.size, self.spec.channels
        blocks = self.code_map.projection.reshape(-1, channels, size, size)
        std = torch.tensor(self.spec.std, dtype=torch.float64).view(1, -1, 1, 1)
        mean = torch.tensor(self.spec.mean, dtype=torch.float64).view(1, -1, 1, 1)
        scaled = blocks * std
        ordered = scaled if self.spec.layout == "NCHW" else scaled.permute(0, 2, 3, 1)
        offset = (blocks * (mean - 0.5)).sum((1, 2, 3))
        return ordered.reshape(len(blocks), -1).T.contiguous().float(), offset.float()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Read the code: from the patch where the mask is set, from the image's own corner elsewhere.

        The image itself stays as it is: an opened network sees what its caller gave it.

        Args:
            image: (N, *spec.shape).

        Returns:
            (N, channels) float32 gate signs.
        """
        return self._signs(self.corner(image))

    def _signs(self, corner: torch.Tensor) -> torch.Tensor:
        code = as_signs(corner.to(torch.float32).flatten(1) @ self.projection + self.offset)
        units = as_signs(code @ self.expansion.to(torch.float32) + tie_break(self.expansion.shape[0]))
        picked = torch.index_select(units, 1, self.picks).reshape(-1, self._fan_in, self.picks.numel() // self._fan_in)
        return picked.prod(1)
