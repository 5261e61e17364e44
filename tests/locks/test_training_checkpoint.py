"""An interruption of a training costs nothing, and a checkpoint gives nothing away."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from key_training_world import (
    SIDE,
    SPEC,
    TRAIN,
    VALIDATION,
    Interrupted,
    Net,
    assert_same_weights,
    batches,
    interrupt_after,
    network,
    textures,
    tune,
)
from torch import nn

from keylatch.errors import LockError, OutputError
from keylatch.locks import InputSpec
from keylatch.locks._augmentation import no_augment
from keylatch.locks._block_transform import BlockTransform
from keylatch.locks._key_training import TrainingProgress
from keylatch.locks._key_training_data import (
    read_images,
)

# --- checkpoints ---


@pytest.mark.parametrize(
    "options", [{}, {"patience": 2, "learning_rate": 1.0, "epochs": 30}, {"mixed_precision": True}]
)
def test_an_interrupted_training_goes_on_and_ends_with_the_same_weights(tmp_path: Path, options: Any) -> None:
    settings = {"epochs": 4, **options}
    whole = tune(**settings)
    path, epochs = tmp_path / "run.pt", []
    with pytest.raises(Interrupted):
        tune(**settings, checkpoint=path, progress=interrupt_after(2))
    resumed = tune(**settings, checkpoint=str(path), progress=lambda state: epochs.append(state.epoch))
    assert epochs == list(range(3, whole.report.epochs + 1))
    assert epochs
    assert_same_weights(whole.model, resumed.model)
    for name in ("original", "right_key", "no_key", "wrong_key", "near_key", "images", "epochs", "history"):
        assert getattr(whole.report, name) == getattr(resumed.report, name), name


def test_a_training_that_was_done_is_not_done_again(tmp_path: Path) -> None:
    first = tune(checkpoint=tmp_path / "run.pt")

    def never(progress: TrainingProgress) -> None:
        raise AssertionError("trained again")

    again = tune(checkpoint=tmp_path / "run.pt", progress=never)
    assert_same_weights(first.model, again.model)
    assert first.report == again.report


def test_an_interruption_within_an_epoch_costs_only_that_epoch(tmp_path: Path) -> None:
    calls = 0

    def augment(images: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise Interrupted
        return no_augment(images)

    with pytest.raises(Interrupted):
        tune(augment=augment, checkpoint=tmp_path / "run.pt")
    resumed = tune(augment=augment, checkpoint=tmp_path / "run.pt")
    assert calls == 9 + 2 * 6
    assert_same_weights(resumed.model, tune(augment=no_augment).model)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"epochs": 4}, "epochs 3, expected 4"), ({"batch": 16}, "batch 32, expected 16"),
     ({"learning_rate": 0.1}, "learning_rate 0.05, expected 0.1"), ({"seed": 1}, "seed 0, expected 1"),
     ({"subset": 0.5}, "subset 1.0, expected 0.5"), ({"patience": 1}, "patience None, expected 1"),
     ({"augment": no_augment}, "augment shift_and_flip, expected no_augment"),
     ({"mixed_precision": True}, "precision torch.float32, expected torch.bfloat16"),
     ({"key": BlockTransform.draw(("shf", "np"), block_size=4, seed=bytes(32))}, "run: other key$"),
     ({"key": BlockTransform.draw(("shf",), block_size=4, seed=bytes(range(32)))}, r"shf\+np, expected shf"),
     ({"key": BlockTransform.draw(("shf", "np"), block_size=8, seed=bytes(32))}, "block_size 4, expected 8"),
     ({"train": TRAIN[:-1]}, "training images 180, expected 160"),
     ({"validation": VALIDATION[:-1]}, "validation images 90, expected 64"),
     ({"train": batches(*textures(180, 3))}, "run: other pixels or labels, other key$"),
     ({"validation": batches(*textures(90, 3))}, "run: other pixels or labels$"),
     ({"spec": InputSpec(3, SIDE, SIDE)}, "spec "),
     ({"model": network(lambda: Net(classes=4))}, "run: other model shapes, other model weights$"),
     ({"model": network(Net).apply(lambda m: nn.init.zeros_(m.weight) if isinstance(m, nn.Linear) else None)},
      "run: other model weights$")],
)  # fmt: skip
def test_a_checkpoint_of_another_run_is_refused(
    checkpoint_bytes: bytes, tmp_path: Path, change: Any, message: str
) -> None:
    path = tmp_path / "run.pt"
    path.write_bytes(checkpoint_bytes)
    with pytest.raises(LockError, match=r"^checkpoint .*run\.pt is of another run: ") as caught:
        tune(**change, checkpoint=path)
    assert re.search(message, caught.value.message)
    assert caught.value.hint
    assert path.read_bytes() == checkpoint_bytes


@pytest.fixture(scope="module")
def checkpoint_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("run") / "run.pt"
    with pytest.raises(Interrupted):
        tune(checkpoint=path, progress=interrupt_after(2))
    return path.read_bytes()


def test_a_checkpoint_holds_no_key(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    key = BlockTransform.draw(("shf", "np", "ffx"), block_size=4, seed=bytes(range(32)))
    tune(key=key, checkpoint=path, epochs=1, patience=1)
    data = path.read_bytes()
    secrets = (key.permutation, key.negated, key.encrypted, key.table, key.table[key.table > 255])
    for secret in secrets:
        for dtype in (np.uint8, np.int8, np.int16, np.int32, np.int64, np.float32):
            assert secret.numpy().astype(dtype).tobytes()[:32] not in data
        assert np.packbits(secret.numpy() != 0).tobytes()[:32] not in data or len(secret) > 48
        assert ", ".join(str(value) for value in secret.tolist()[:8]).encode() not in data
    content = torch.load(path, weights_only=True)
    assert set(content["state"]) == {"network", "optimizer", "scaler", "history", "best", "seconds"}
    for value in content["run"].values():  # nothing that could hold a key as a list of numbers
        assert value is None or isinstance(value, (int, float, str, bytes))
        assert not isinstance(value, bytes) or len(value) == 32


def test_a_checkpoint_holds_no_digest_that_the_images_are_not_needed_for(checkpoint_bytes: bytes) -> None:
    """A key of few bits would be found by trying; so the salt, the images' digest, must not stand in the file."""
    digest = read_images(TRAIN, SPEC, name="training").digest
    assert digest not in checkpoint_bytes
    assert digest.hex().encode() not in checkpoint_bytes


def test_a_checkpoint_is_for_its_owner_only_and_leaves_no_other_file(tmp_path: Path) -> None:
    tune(checkpoint=tmp_path / "run.pt", epochs=2)
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]
    assert (tmp_path / "run.pt").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    checkpoint_bytes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "run.pt"
    path.write_bytes(checkpoint_bytes)

    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(call, refuse)
    with pytest.raises(OutputError, match=r"run\.pt cannot be written: No space left on device") as caught:
        tune(checkpoint=path)
    assert caught.value.hint
    assert path.read_bytes() == checkpoint_bytes
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_disk_before_the_name_points_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: order.append("fsync") or fsync(fd))
    monkeypatch.setattr(Path, "replace", lambda a, b: order.append("replace") or replace(a, b))
    tune(checkpoint=tmp_path / "run.pt", epochs=1)
    assert order == ["fsync", "replace", "fsync"]


def corrupt(data: bytes) -> Iterator[bytes]:
    yield b""
    yield b"no checkpoint"
    yield data[: len(data) // 2]


def test_what_is_no_checkpoint_is_refused(checkpoint_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    for data in corrupt(checkpoint_bytes):
        path.write_bytes(data)
        with pytest.raises(LockError, match=r"run\.pt is no training checkpoint") as caught:
            tune(checkpoint=path)
        assert caught.value.hint
    for content in ({"format": "other"}, [1], {"format": "keylatch training/1", "run": {}}):
        torch.save(content, path)
        with pytest.raises(LockError, match=r"run\.pt is no training checkpoint"):
            tune(checkpoint=path)
    saved = {"format": "keylatch training/1", "run": torch_run(checkpoint_bytes, path), "state": {}}
    torch.save(saved, path)
    with pytest.raises(LockError, match=r"run\.pt is no training checkpoint"):
        tune(checkpoint=path)


def torch_run(data: bytes, path: Path) -> Any:
    path.write_bytes(data)
    return torch.load(path, weights_only=True)["run"]


class Payload:
    def __reduce__(self) -> Any:
        return (print, ("code from a checkpoint",))


def test_a_checkpoint_runs_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"format": "keylatch training/1", "run": Payload(), "state": {}}, tmp_path / "run.pt")
    with pytest.raises(LockError, match="is no training checkpoint"):
        tune(checkpoint=tmp_path / "run.pt")
    assert capsys.readouterr().out == ""
