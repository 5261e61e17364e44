"""Progress, precision and devices of a training under a key, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from key_training_world import KEY, SIDE, TRAIN, Batches, Interrupted, Net, accuracy, interrupt_after, network, tune
from torch import nn

from keylatch.errors import LockError
from keylatch.locks import InputSpec, _key_training
from keylatch.locks._block_transform import BlockTransform
from keylatch.locks._key_training import TrainingProgress
from keylatch.locks._training_checkpoint import TrainingState

# --- progress and precision ---


def test_progress_is_told_after_every_epoch() -> None:
    told: list[TrainingProgress] = []
    report = tune(progress=told.append).report
    assert [state.epoch for state in told] == [1, 2, 3]
    assert {state.epochs for state in told} == {3}
    assert [(state.loss, state.accuracy) for state in told] == [(e.loss, e.accuracy) for e in report.history]
    assert 0 < told[0].seconds < told[1].seconds < told[2].seconds == report.seconds


def test_a_line_for_each_epoch_goes_to_a_terminal_and_nothing_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(progress=None)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    tune(progress=None)
    out, err = capsys.readouterr()
    assert out == ""
    assert [f"epoch {epoch}/3: loss " in err for epoch in (1, 2, 3)] == [True] * 3


@pytest.mark.parametrize("mixed", [None, False, True])
def test_mixed_precision_is_off_on_a_cpu_unless_asked_for(mixed: bool | None) -> None:
    dtypes: set[torch.dtype] = set()

    class Typed(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = super().forward(x)
            dtypes.add(result.dtype) if self.training else None
            return result

    done = tune(network(Typed), mixed_precision=mixed, epochs=1)
    assert dtypes == {torch.bfloat16 if mixed else torch.float32}
    assert {value.dtype for value in done.model.parameters()} == {torch.float32}


def test_float16_trains_with_a_scaled_loss_and_the_scale_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU without bfloat16 does, on a CPU."""
    monkeypatch.setattr(_key_training, "training_precision", lambda mixed, device: torch.float16)
    assert tune(epochs=10, checkpoint=tmp_path / "run.pt").report.right_key >= 80
    assert torch.load(tmp_path / "run.pt", weights_only=True)["state"]["scaler"]["scale"] > 1
    net = Net()
    first, second = (
        TrainingState(net, torch.optim.SGD(net.parameters()), torch.amp.GradScaler("cpu", init_scale=scale))
        for scale in (8.0, 2.0)
    )
    second.restore(first.to_saved())
    assert second.scaler.get_scale() == 8.0


@pytest.mark.gpu
def test_training_on_a_gpu_learns_the_key_and_resumes(tmp_path: Path) -> None:
    before = torch.cuda.get_rng_state()
    with pytest.raises(Interrupted):
        tune(epochs=10, device=None, checkpoint=tmp_path / "run.pt", progress=interrupt_after(4))
    done = tune(epochs=10, device="cuda", checkpoint=tmp_path / "run.pt")
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert {value.device.type for value in done.model.state_dict().values()} == {"cpu"}
    assert done.report.right_key >= 95
    assert done.report.right_key == pytest.approx(accuracy(done.model, KEY), abs=3)
    assert done.report.no_key <= 70


# --- errors ---


class Returning(Net):
    """A network whose output is something else."""

    def __init__(self, change: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: torch.Tensor) -> Any:
        return self.change(super().forward(x))


def returning(change: Callable[[torch.Tensor], Any]) -> nn.Module:
    return network(lambda: Returning(change))


def with_images(change: Callable[[torch.Tensor], torch.Tensor]) -> Batches:
    return [(change(images), labels) for images, labels in TRAIN]


def with_labels(change: Callable[[torch.Tensor], torch.Tensor]) -> Batches:
    return [(images, change(labels)) for images, labels in TRAIN]


NOT_A_NUMBER = with_images(lambda images: images.float() * math.nan)
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "no epochs": ({"epochs": 0}, "epochs is 0, expected 1 or more"),
    "batch of one": ({"batch": 1}, "batch is 1, expected 2 or more"),
    "no patience": ({"patience": 0}, "patience is 0, expected 1 or more"),
    "negative seed": ({"seed": -1}, "seed is -1, expected 0 or more"),
    "no learning rate": ({"learning_rate": 0.0}, "learning_rate is 0.0, expected more than 0"),
    "learning rate of nan": ({"learning_rate": math.nan}, "learning_rate is nan"),
    "subset of nothing": ({"subset": 0.0}, r"subset is 0.0, expected a share in \(0, 1\]"),
    "subset of more than all": ({"subset": 1.01}, "subset is 1.01"),
    "subset of nan": ({"subset": math.nan}, "subset is nan"),
    "subset too small": ({"subset": 0.01}, "a subset of 0.01 leaves class 2 without image"),
    "raw bytes": ({"spec": InputSpec(3, SIDE, SIDE, dtype="uint8")}, "takes uint8 images, .* needs float32"),
    "blocks that do not fit": (
        {"key": BlockTransform.draw(("shf",), block_size=5)}, "16 x 16 is not divisible into blocks of 5 x 5"),
    "key of other channels": (
        {"key": BlockTransform.draw(("shf",), block_size=4, channels=1)}, "images are RGB"),
    "grayscale": ({"train": with_images(lambda x: x[:, :1])}, r"training .* \(32, 1, 16, 16\), expected \(N, 3, 16,"),
    "other size": ({"validation": with_images(lambda x: x[:, :, :8])}, r"validation .* shape \(32, 3, 8, 16\)"),
    "channels last": ({"train": with_images(lambda x: x.permute(0, 2, 3, 1))}, r"shape \(32, 16, 16, 3\)"),
    "no batch axis": ({"train": [(TRAIN[0][0][0], TRAIN[0][1][:1])]}, r"shape \(3, 16, 16\)"),
    "whole numbers": ({"train": with_images(lambda x: x.int())}, "are torch.int32, expected uint8 or float"),
    "normalized": ({"train": with_images(lambda x: x / 255 * 4 - 2)}, r"reach from -1\..* to .*, expected \[0, 1\]"),
    "bytes as floats": ({"validation": with_images(torch.Tensor.float)}, r"validation loader reach from .* to 2"),
    "nan": ({"train": NOT_A_NUMBER}, "reach from nan to nan"),
    "two dtypes": ({"train": [TRAIN[0], (TRAIN[1][0] / 255, TRAIN[1][1])]}, "mixes uint8 and float images"),
    "no images": ({"train": []}, "the training loader gave no images"),
    "empty batches": ({"validation": [(TRAIN[0][0][:0], TRAIN[0][1][:0])]}, "the validation loader gave no images"),
    "one class": ({"train": with_labels(torch.zeros_like)}, "all training images are of class 0, expected two"),
    "labels as floats": ({"train": with_labels(torch.Tensor.float)}, "labels .* are torch.float32 of shape"),
    "one-hot labels": ({"train": with_labels(nn.functional.one_hot)}, r"int64 of shape \(32, 3\), expected int64"),
    "too few labels": ({"train": with_labels(lambda x: x[1:])}, r"of shape \(31,\), expected int64 \(32,\)"),
    "batches of dictionaries": ({"train": [{"image": 1}]}, r"training loader is a dict, expected a pair of tensors"),
    "batches of three": ({"train": [(*TRAIN[0], TRAIN[0][1])]}, "is a tuple, expected a pair"),
    "labels beyond the outputs": (
        {"train": with_labels(lambda x: x + 1)}, "training labels reach from 1 to 3, the model has 3 outputs"),
    "negative labels": ({"train": with_labels(lambda x: x - 1)}, "reach from -1 to 1, the model has 3 outputs"),
    "validation labels beyond the outputs": (
        {"validation": with_labels(lambda x: x + 1)}, "validation labels reach from 1 to 3"),
    "no tensor": ({"model": returning(lambda y: {"logits": y})}, r"a dict for 2 images, expected logits \(2, classes"),
    "a map": ({"model": returning(lambda y: y[:, :, None])}, r"returns shape \(2, 3, 1\) for 2 images"),
    "one output for all": ({"model": returning(lambda y: y[:1])}, r"returns shape \(1, 3\) for 2 images"),
    "diverged": ({"learning_rate": 1e30}, r"the loss is (nan|inf) in epoch 1, expected a number"),
    "unknown device": ({"device": "abacus"}, "device abacus cannot be used"),
    "folder missing": ({"checkpoint": "missing/run.pt"}, "checkpoint missing/run.pt has no folder to stand in"),
    "checkpoint is a folder": ({"checkpoint": "."}, r"checkpoint \. is a folder, expected a file"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_trained_says_why_and_what_to_do(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options, message = CASES[case]
    with pytest.raises(LockError, match=message) as caught:
        tune(**options)
    assert caught.value.hint


def test_a_missing_gpu_is_refused() -> None:
    with pytest.raises(LockError, match="device cuda:99 cannot be used"):  # which no machine has
        tune(device="cuda:99")


def test_the_smallest_subset_of_the_hint_is_taken() -> None:
    with pytest.raises(LockError) as caught:
        tune(subset=0.01)
    assert caught.value.hint == "take at least subset=0.017"
    assert tune(subset=0.017, epochs=1).report.images == 3


def test_a_loss_that_is_no_number_leaves_the_checkpoint_of_the_epoch_before(tmp_path: Path) -> None:
    class Late(Net):
        steps = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Late.steps += self.training
            result: torch.Tensor = super().forward(x)
            return result * (math.nan if Late.steps > 6 else 1)

    with pytest.raises(LockError, match="the loss is nan in epoch 2, expected a number") as caught:
        tune(network(Late), checkpoint=tmp_path / "run.pt")
    assert caught.value.hint == "take a smaller learning_rate, such as 0.005"
    assert len(torch.load(tmp_path / "run.pt", weights_only=True)["state"]["history"]) == 1
