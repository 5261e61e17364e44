"""Images and labels for `keylatch audit`: arrays, or folders of pictures with a list."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from keylatch.audit import LEAST_EVALUATION, AuditImages, LabeledImages, Target, check_images, split_images
from keylatch.cli._audit_request import AuditRequest
from keylatch.cli._images import load_inputs
from keylatch.errors import InputError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_MOST_SHARED = 0.1  # of the test images; real data sets hold a few duplicates
_LABELS_HINT = "give .npy integers, one integer a line, or a CSV of file,label for a folder of pictures"


def read_audit_images(request: AuditRequest, target: Target, classes: int) -> AuditImages:
    """Read the attacker's images and those that accuracies are measured on; one set is split in two.

    Raises:
        InputError: They cannot be read, do not fit the model or each other, or are too few.
    """
    if request.images is None or request.labels is None:
        missing = "images" if request.images is None else "labels"
        raise InputError(f"an audit needs labeled images, got no {missing}", hint=f"give --{missing}")
    pool = read_labeled(request.images, request.labels, target, classes)
    if request.test_images is None or request.test_labels is None:
        return split_images(pool, classes)
    evaluation = read_labeled(request.test_images, request.test_labels, target, classes)
    if len(evaluation) < LEAST_EVALUATION:
        raise InputError(
            f"got {len(evaluation)} test images, expected at least {LEAST_EVALUATION}",
            hint="accuracies of fewer say little; leave --test-images out to split --images in two",
        )
    _require_apart(pool, evaluation)
    return AuditImages(pool, evaluation, classes)


def read_labeled(images: Path, labels: Path, target: Target, classes: int) -> LabeledImages:
    """Read images and their labels.

    Args:
        images: An .npy file, (n, ...) as the model takes them or uint8 (n, height, width, channels); or a folder of
            pictures.
        labels: One class for each image.
        target: Says what the model takes.
        classes: Number of its classes.

    Raises:
        InputError: They cannot be read, or do not fit the model or each other.
    """
    for path in (images, labels):
        if not path.exists():
            raise InputError(f"{path} does not exist", hint="check the path")
    if images.is_dir():
        array, numbers = _read_folder(images, labels, target)
    else:
        array, numbers = load_inputs([images], target.manifest.model["input"]), _read_labels(labels)
    read = LabeledImages(as_taken(array, target, images), torch.from_numpy(numbers))
    check_images(read, target.spec, classes)
    if read.images.is_floating_point() and not bool(torch.isfinite(read.images).all()):
        raise InputError(f"{images} holds values that are not finite numbers", hint="prepare the images again")
    return read


def as_taken(array: Array, target: Target, path: Path) -> torch.Tensor:
    """Images as a model takes them, from such or from uint8 (n, height, width, channels).

    Raises:
        InputError: They are of another type.
    """
    spec = target.spec
    if array.dtype == np.uint8 and array.shape[1:] == (spec.height, spec.width, spec.channels):
        return spec.from_pixels(torch.from_numpy(array).permute(0, 3, 1, 2)).contiguous()
    if array.dtype.kind not in "fu":
        raise InputError(f"{path} holds {array.dtype}, expected images", hint="give floats as the model takes them")
    if array.dtype == np.uint8:
        return torch.from_numpy(array)
    return torch.from_numpy(array.astype(np.float32, copy=False))


def _read_labels(path: Path) -> Array:
    if path.suffix == ".npy":
        try:
            labels: Array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            raise InputError(f"{path} is not a readable .npy file", hint=_LABELS_HINT) from None
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            found = f"{path} holds {labels.dtype} of shape {labels.shape}, expected integers, one for each image"
            raise InputError(found, hint=_LABELS_HINT)
        return labels.astype(np.int64)
    return np.array([label for _, label in _rows(path)], dtype=np.int64)


def _read_folder(folder: Path, labels: Path, target: Target) -> tuple[Array, Array]:
    named = {name: label for name, label in _rows(labels) if name}
    if not named:
        raise InputError(f"{labels} names no pictures", hint="give a CSV with a line file,label for each picture")
    unlabeled = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name not in named)
    if unlabeled:
        raise InputError(f"{labels} has no label for {unlabeled[0]}", hint="add it, or move the picture away")
    paths = [folder / name for name in named]
    # A single .npy would be taken for a batch.
    strange = [path for path in paths if path.suffix == ".npy"]
    if strange:
        raise InputError(f"{strange[0]} is no picture", hint="give the .npy file itself with --images")
    return load_inputs(paths, target.manifest.model["input"]), np.array(list(named.values()), dtype=np.int64)


def _rows(path: Path) -> Iterator[tuple[str, int]]:
    """File name ("" if there is one column only) and label of each line."""
    try:
        lines = [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error):
        raise InputError(f"{path} is not a readable list of labels", hint=_LABELS_HINT) from None
    for number, row in enumerate(lines):
        try:
            yield row[0].strip() if len(row) > 1 else "", int(row[-1])
        except ValueError:
            if number == 0:
                continue  # a header
            raise InputError(
                f"{path} has {row[-1]!r:.40} for a label, expected an integer", hint=_LABELS_HINT
            ) from None


def _require_apart(pool: LabeledImages, evaluation: LabeledImages) -> None:
    known = {_digest(image) for image in pool.images}
    shared = sum(_digest(image) in known for image in evaluation.images)
    if shared > _MOST_SHARED * len(evaluation):
        raise InputError(
            f"{shared} of {len(evaluation)} test images are among the attacker's",
            hint="give other images with --test-images, or leave it out to split --images in two",
        )


def _digest(image: torch.Tensor) -> bytes:
    return hashlib.sha256(image.contiguous().numpy().tobytes()).digest()
