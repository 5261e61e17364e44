"""Images for audits: arrays as the model takes them, bytes, and pictures are the same images."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from audit_world import Shipped

import networks
from keylatch.audit import load_target
from keylatch.cli._audit_images import read_labeled
from keylatch.cli._audit_scene import labeled_counts
from keylatch.exporters import export

PIXELS = networks.pixels(6).permute(0, 2, 3, 1).contiguous().numpy()  # (6, 32, 32, 3) uint8
LABELS = np.array([3, 1, 4, 1, 5, 9])


@pytest.fixture
def target(shipped: Shipped):  # type: ignore[no-untyped-def]
    return shipped.target


def test_arrays_bytes_and_pictures_are_the_same_images(target, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from PIL import Image

    expected = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255
    np.save(tmp_path / "float.npy", expected.numpy())
    np.save(tmp_path / "double.npy", expected.double().numpy())
    np.save(tmp_path / "bytes.npy", PIXELS)
    np.save(tmp_path / "labels.npy", LABELS.astype(np.int32))
    (tmp_path / "pictures").mkdir()
    with (tmp_path / "pictures.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label"])
        for place in reversed(range(6)):
            Image.fromarray(PIXELS[place]).save(tmp_path / "pictures" / f"{place}.png")
            rows.writerow([f"{place}.png", LABELS[place]])
    for name in ("float.npy", "double.npy", "bytes.npy"):
        read = read_labeled(tmp_path / name, tmp_path / "labels.npy", target, 10)
        assert torch.allclose(read.images, expected, atol=1e-6) and read.images.dtype == torch.float32
        assert read.labels.tolist() == LABELS.tolist()
    pictures = read_labeled(tmp_path / "pictures", tmp_path / "pictures.csv", target, 10)
    assert torch.allclose(pictures.images.flip(0), expected, atol=1e-6)
    assert pictures.labels.flip(0).tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    "text", ["3\n1\n4\n1\n5\n9\n", "label\n3\n1\n4\n1\n5\n9", "\ufeff3\r\n1\r\n4\r\n\r\n1\r\n5\r\n9"]
)
def test_labels_may_stand_one_a_line(text: str, target, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    np.save(tmp_path / "bytes.npy", PIXELS)
    (tmp_path / "labels.txt").write_text(text, newline="")
    assert read_labeled(tmp_path / "bytes.npy", tmp_path / "labels.txt", target, 10).labels.tolist() == LABELS.tolist()


def test_a_model_of_bytes_takes_bytes(tmp_path: Path) -> None:
    locked = networks.lock(networks.settle(networks.PaddedConvs))
    export(locked.module, locked.secret, tmp_path / "bytes.latch", report=locked.report, uint8_input=True)
    np.save(tmp_path / "bytes.npy", PIXELS)
    np.save(tmp_path / "labels.npy", LABELS)
    read = read_labeled(tmp_path / "bytes.npy", tmp_path / "labels.npy", load_target(tmp_path / "bytes.latch"), 10)
    assert read.images.dtype == torch.uint8 and np.array_equal(read.images.numpy(), PIXELS)


@pytest.mark.parametrize(
    ("asked", "training", "pool", "expected"),
    [
        ((), None, 1348, (13, 67, 135)),
        ((), 50_000, 5_000, (500, 2_500, 5_000)),
        ((), 50_000, 600, (500, 600)),
        ((), None, 30, (1, 2, 3)),
        ((100, 7), 50_000, 600, (7, 100)),
    ],
)
def test_budgets_are_shares_of_the_training_set_as_far_as_the_pool_reaches(
    asked: tuple[int, ...], training: int | None, pool: int, expected: tuple[int, ...]
) -> None:
    assert labeled_counts(asked, training, pool) == expected
