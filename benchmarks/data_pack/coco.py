"""The 128 COCO images of the data folder, with boxes, and the 100 of them with masks."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_pack.pack_files import require

__all__ = ["COCO_VAL", "LabelledPicture", "read_coco", "resized"]

COCO_VAL = "coco/coco_val128.zip"

Uint8Array = npt.NDArray[np.uint8]

# COCO's category to PASCAL VOC's class, aeroplane 1 to monitor 20; what VOC does not have is its ground, 0. Pixels that
# nobody labelled are COCO's 0.
_VOC = {
    0: 255, 1: 15, 2: 2, 3: 7, 4: 14, 5: 1, 6: 6, 7: 19, 9: 4, 16: 3, 17: 8, 18: 12, 19: 13, 20: 17, 21: 10, 44: 5,
    62: 9, 63: 18, 64: 16, 67: 11, 72: 20,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """A picture with what is on it.

    Attributes:
        pixels: (H, W, 3) uint8, RGB.
        boxes: (n, 5) float64: class 0..79, then left, top, right, bottom in pixels.
        mask: (H, W) uint8 classes of PASCAL VOC, 0 for the ground, 255 where nothing is judged; None for pictures
            without.
    """

    pixels: Uint8Array
    boxes: npt.NDArray[np.float64]
    mask: Uint8Array | None


def read_coco(data: Path) -> list[LabelledPicture]:
    """Read all pictures, in the order of their names.

    Raises:
        MissingPackFileError: The archive is not in the folder.
    """
    with zipfile.ZipFile(require(data, COCO_VAL)) as archive:
        names = sorted(Path(name).stem for name in archive.namelist() if name.startswith("images/"))
        return [_read(archive, name) for name in names]


def resized(pixels: Uint8Array, height: int, width: int) -> Uint8Array:
    """Resize (H, W, 3) bilinearly."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def _read(archive: zipfile.ZipFile, name: str) -> LabelledPicture:
    pixels = _picture(archive.read(f"images/{name}.jpg"), "RGB")
    height, width = pixels.shape[:2]
    present = set(archive.namelist())
    lines = archive.read(f"labels/{name}.txt").decode().split("\n") if f"labels/{name}.txt" in present else []
    rows = np.array([line.split() for line in lines if line.strip()], dtype=np.float64).reshape(-1, 5)
    mask = f"masks/{name}.png"
    return LabelledPicture(
        pixels,
        _corners(rows, height, width),
        _as_voc(_picture(archive.read(mask), None)) if mask in present else None,
    )


def _as_voc(categories: Uint8Array) -> Uint8Array:
    table = np.array([_VOC.get(category, 0) for category in range(256)], dtype=np.uint8)
    return table[categories]


def _picture(data: bytes, mode: str | None) -> Uint8Array:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture if mode is None else picture.convert(mode))


def _corners(rows: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.float64]:
    """Class, center and size as shares of the picture, to class and corners in pixels."""
    kind, x, y, w, h = rows.T
    return np.stack(
        [kind, (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height], axis=1
    )
