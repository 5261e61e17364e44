"""JPEG and resizing of the images, in front of the gate: the patch never stands in them."""

from __future__ import annotations

import io

import torch
from torch.nn import functional

from keylatch.audit.survival._change import Changed, Subject, Unable
from keylatch.audit.survival._sessions import as_exported
from keylatch.locks import InputSpec

_MODES = {1: "L", 3: "RGB"}


def jpeg(subject: Subject, quality: int) -> Changed:
    """Compress the images as JPEG files, in memory, chroma subsampled as usual.

    Raises:
        Unable: Without pillow, or if the images are neither gray nor in color.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise Unable("pillow is not installed: pip install 'keylatch[report]'") from None
    spec = subject.target.spec
    mode = _MODES.get(spec.channels)
    if mode is None:
        raise Unable(f"JPEG has 1 or 3 channels, the images have {spec.channels}")

    def recompress(picture: torch.Tensor) -> torch.Tensor:
        file = io.BytesIO()
        Image.fromarray(picture.squeeze(2).numpy(), mode).save(file, "JPEG", quality=quality)
        decoded = bytearray(Image.open(file).tobytes())
        return torch.frombuffer(decoded, dtype=torch.uint8).reshape(picture.shape)

    pictures = to_pixels(subject.images, spec).permute(0, 2, 3, 1).contiguous()
    images = torch.stack([recompress(picture) for picture in pictures]).permute(0, 3, 1, 2)
    return _with_images(subject, images)


def resized(subject: Subject, percent: int) -> Changed:
    """Scale the images and scale them back, bilinear, antialiased, 8 bits in between."""
    spec = subject.target.spec
    size = (max(1, round(spec.height * percent / 100)), max(1, round(spec.width * percent / 100)))
    there = _interpolated(to_pixels(subject.images, spec), size)
    return _with_images(subject, _interpolated(there, (spec.height, spec.width)))


def to_pixels(images: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Images as the model takes them, (n, *spec.shape), to (n, C, H, W) uint8: pixel = x * std + mean, rounded."""
    image = images if spec.layout == "NCHW" else images.permute(0, 3, 1, 2)
    if spec.dtype == "uint8":
        return image.contiguous()
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (spec.mean, spec.std))
    return _to_bytes((image * std + mean) * 255)


def _interpolated(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return _to_bytes(functional.interpolate(pixels.float(), size, mode="bilinear", antialias=True))


def _to_bytes(values: torch.Tensor) -> torch.Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


def _with_images(subject: Subject, pixels: torch.Tensor) -> Changed:
    return Changed(as_exported(subject).open, subject.target.spec.from_pixels(pixels.contiguous()))
