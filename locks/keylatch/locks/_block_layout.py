"""Images as blocks: each block of M x M pixels becomes one vector, in the order (row, column, channel).

That is the order of ONNX SpaceToDepth and of DepthToSpace in mode DCR, so that a gate needs no more than these two.
`torch.nn.functional.pixel_unshuffle` has the order (channel, row, column) and does not fit.
"""

from __future__ import annotations

import torch

from keylatch.errors import LockError

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# A block's positions count up to this: a larger block is a whole image, and its key no smaller than the image.
MOST_ENTRIES = 1 << 16

_KINDS = {1: "grayscale", 3: "RGB", 4: "RGBA"}


def space_to_depth(images: torch.Tensor, block_size: int) -> torch.Tensor:
    """Gather each block's pixels.

    Args:
        images: (N, C, H, W), H and W divisible by `block_size`.
        block_size: M.

    Returns:
        (N, M * M * C, H / M, W / M), same dtype; entry (row * M + column) * C + channel.
    """
    count, channels, height, width = images.shape
    rows, columns = height // block_size, width // block_size
    split = images.reshape(count, channels, rows, block_size, columns, block_size)
    return split.permute(0, 3, 5, 1, 2, 4).reshape(count, block_size * block_size * channels, rows, columns)


def depth_to_space(blocks: torch.Tensor, block_size: int) -> torch.Tensor:
    """Put blocks back: the inverse of `space_to_depth`.

    Args:
        blocks: (N, M * M * C, rows, columns).
        block_size: M.

    Returns:
        (N, C, rows * M, columns * M), contiguous, same dtype.
    """
    count, entries, rows, columns = blocks.shape
    channels = entries // block_size**2
    split = blocks.reshape(count, block_size, block_size, channels, rows, columns)
    return split.permute(0, 3, 4, 1, 5, 2).reshape(count, channels, rows * block_size, columns * block_size)


def block_entries(block_size: int, channels: int) -> int:
    """Length of a block's vector, p = M * M * C.

    Raises:
        LockError: If there is nothing to permute, or too much.
    """
    if channels < 1:
        raise LockError(f"{channels} channels are no image, expected 1 or more", hint="give 3 for RGB images")
    if block_size < 2:
        raise LockError(
            f"blocks of {block_size} x {block_size} pixels hide nothing, expected 2 x 2 or larger",
            hint="take block_size 4",
        )
    entries = channels * block_size * block_size
    if entries > MOST_ENTRIES:
        raise LockError(
            f"blocks of {block_size} x {block_size} with {channels} channels have {entries} entries, "
            f"expected at most {MOST_ENTRIES}",
            hint="take a smaller block_size; published ones are 2, 4, 8 and 16",
        )
    return entries


def require_images(pixels: torch.Tensor, *, block_size: int, channels: int) -> None:
    """Refuse what is no batch of images that a block key fits.

    Args:
        pixels: Should be (N, channels, H, W), H and W divisible by `block_size`; uint8, or float in [0, 1].
        block_size: M.
        channels: What the key was drawn for.

    Raises:
        LockError: If they are not.
    """
    if pixels.dim() != 4:
        raise LockError(
            f"images of shape {tuple(pixels.shape)} are no batch, expected (N, {channels}, H, W)",
            hint="add the batch axis to one image: image.unsqueeze(0)",
        )
    _require_channels(pixels.shape[1], channels)
    _require_size(pixels.shape[2], pixels.shape[3], block_size)
    if pixels.dtype != torch.uint8:
        _require_unit_interval(pixels)


def _require_channels(found: int, expected: int) -> None:
    if found != expected:
        convert = {1: "image.convert('L')", 3: "image.convert('RGB')"}.get(expected, f"to {expected} channels")
        raise LockError(
            f"images are {_kind(found)}, the block key is for {_kind(expected)}",
            hint=f"convert them, {convert}, and give them with the axes (N, C, H, W)",
        )


def _kind(channels: int) -> str:
    count = f"{channels} channel{'' if channels == 1 else 's'}"
    return f"{_KINDS[channels]} ({count})" if channels in _KINDS else f"of {count}"


def _require_size(height: int, width: int, block_size: int) -> None:
    if height % block_size or width % block_size:
        raise LockError(
            f"{height} x {width} is not divisible into blocks of {block_size} x {block_size}",
            hint=f"resize or crop to multiples of {block_size} before the transform",
        )


def _require_unit_interval(pixels: torch.Tensor) -> None:
    if pixels.dtype not in FLOAT_DTYPES:
        raise LockError(
            f"images are {pixels.dtype}, expected uint8, or float in [0, 1]",
            hint="convert them: images.to(torch.uint8)",
        )
    if pixels.numel() == 0:
        return
    low, high = (float(value) for value in pixels.detach().aminmax())
    if not (low >= 0 and high <= 1):  # said this way round, nan is refused too
        raise LockError(
            f"float pixels reach from {low:.4g} to {high:.4g}, expected [0, 1]",
            hint="transform before normalization, and divide bytes by 255",
        )
