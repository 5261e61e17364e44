"""ModelLock in an artifact: PyTorch against onnxruntime, and what the edit costs."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from edited_digits import BLEND, SPEC, digits, editor, key_of
from keylatch.exporters import export
from keylatch.locks import EditKey, EditSettings, InputSpec, LockedModule, model_lock

_TIMED = ((1, 32), (4, 32), (1, 128))  # steps, side
_TEST_IMAGES, _BATCH = 256, 32
_RUNS = 5


class Shows(nn.Module):
    """Gives its input back: the edited image."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.same.weight.copy_(torch.eye(3).view(3, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W), in and out."""
        shown: torch.Tensor = self.same(image)
        return shown


def run(network: nn.Module, prompt: str, cache: Path) -> dict[str, Any]:
    """Differences and times; the network is trained under the prompt."""
    artist = editor(cache, 0)
    images, labels = (part[:_TEST_IMAGES] for part in digits()[1])
    with tempfile.TemporaryDirectory() as place:
        pixels = InputSpec(3, SPEC.height, SPEC.width)
        key = key_of(artist, prompt, pixels)
        module, session, opened = _exported(Shows().eval(), pixels, artist, key, Path(place) / "shows.latch")
        fed = images.float() / 255
        with opened():
            ours = _all(lambda part: module(torch.from_numpy(part)).numpy(), fed.numpy())
        theirs = _all(lambda part: session.run(None, {"image": part})[0], fed.numpy())
        module, session, opened = _exported(network, SPEC, artist, key_of(artist, prompt), Path(place) / "net.latch")
        fed = SPEC.from_pixels(images)
        with opened():
            torch_logits = _all(lambda part: module(torch.from_numpy(part)).numpy(), fed.numpy())
        onnx_logits = _all(lambda part: session.run(None, {"image": part})[0], fed.numpy())
        answers = labels.numpy()
        return {
            "prompt": prompt, "images": len(images),
            "edit_mean_difference_255": float(np.abs(ours - theirs).mean() * 255),
            "edit_largest_difference_255": float(np.abs(ours - theirs).max() * 255),
            "accuracy_pytorch": 100 * float((torch_logits.argmax(1) == answers).mean()),
            "accuracy_onnxruntime": 100 * float((onnx_logits.argmax(1) == answers).mean()),
            "times": [_time(network, artist, prompt, steps, side, place) for steps, side in _TIMED],
        }  # fmt: skip


def _exported(
    network: nn.Module, spec: InputSpec, artist: Any, key: EditKey, path: Path
) -> tuple[LockedModule, Any, Any]:
    locked = model_lock(network, spec, artist, key)
    made = export(locked.module, locked.secret, path, report=locked.report)
    return locked.module, _session(made), lambda: _Opened(locked)


class _Opened:
    """The module opened, without gradients."""

    def __init__(self, locked: Any) -> None:
        self.opened, self.plain = locked.module.opened(locked.secret), torch.no_grad()

    def __enter__(self) -> None:
        self.plain.__enter__()
        self.opened.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.opened.__exit__(*error)
        self.plain.__exit__(*error)


def _session(made: Any) -> Any:
    """Stock onnxruntime with the secret values in place."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    gate = {name: value for name, value in made.secret_values.items() if not name.startswith("known_answer.")}
    tensors = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in gate.values()]
    options.add_external_initializers(list(gate), tensors)
    return onnxruntime.InferenceSession(made.path / "model.onnx", options, providers=["CPUExecutionProvider"])


def _all(answer: Callable[[np.ndarray[Any, Any]], Any], images: np.ndarray[Any, Any]) -> Any:
    return np.concatenate([answer(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)])


def _time(network: nn.Module, artist: Any, prompt: str, steps: int, side: int, place: str) -> dict[str, Any]:
    """Milliseconds for one image with the edit, and without; batch 1."""
    spec = replace(SPEC, height=side, width=side)
    drawn = EditKey.draw(artist, prompt, spec, settings=EditSettings(steps, guided=False), blend=BLEND)
    locked = model_lock(network, spec, artist, drawn)
    made = export(locked.module, locked.secret, Path(place) / f"{steps}-{side}.latch")
    session, image = _session(made), np.zeros((1, *spec.shape), np.float32)
    edited = _median_ms(lambda: session.run(None, {"image": image}))
    with torch.no_grad():
        plain = _median_ms(lambda: network(torch.from_numpy(image)))
    report = locked.report.edit
    return {
        "steps": steps, "side": side, "edited_ms": edited, "plain_pytorch_ms": plain,
        "edit_multiply_adds": 0 if report is None else report.multiply_adds,
    }  # fmt: skip


def _median_ms(run: Callable[[], object]) -> float:
    times = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)
