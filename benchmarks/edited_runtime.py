"""ModelLock as a licensee runs it: what PyTorch's and the runtime's edits differ by, and what an edit takes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from edited_digits import BLEND, SPEC, Classifier, digits
from installing import Installation, custom
from keylatch.locks import EditKey, EditSettings, InputSpec, Locked, PixelEditor, model_lock, score_on
from keylatch.locks._key_training_data import normalized
from keylatch.runtime import InferenceSession, compare
from pairs import figures, pairs_within

STEPS, SIZES, BATCHES = (1, 2, 4, 8), (32, 64, 128), (1, 8)
_BATCH = 32
_BYTES = 255
_ROW_SECONDS = 2.0
_PROVIDERS = ["CPUExecutionProvider"]


class Shows(nn.Module):
    """A network whose output is the edited image: a convolution that changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.same.weight.copy_(torch.eye(3).view(3, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to the same."""
        shown: torch.Tensor = self.same(image)
        return shown


class Session(nn.Module):
    """A session where a network is wanted: the first output for images as they are fed.

    Args:
        session: Open.
    """

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W), normalized, to the first output."""
        parts = [self.session.run(None, {"image": part.numpy()})[0] for part in torch.split(image, _BATCH)]
        return torch.from_numpy(np.concatenate(parts))


def exactness(network: nn.Module, artist: PixelEditor, key: EditKey) -> dict[str, Any]:
    """Both edits on all test digits: the mean difference, and the accuracy behind them.

    Args:
        network: Trained under the key.
        artist: The editor.
        key: The key.
    """
    images, labels = digits()[1]
    edit = key.keyed(artist)
    with torch.no_grad():
        edited = torch.cat([edit(part.float() / _BYTES) for part in torch.split(images, _BATCH)])
    with tempfile.TemporaryDirectory() as folder:
        shows, licensed = (
            installed(Path(folder) / name, behind, SPEC, model_lock(behind, SPEC, artist, key))
            for name, behind in (("shows", Shows().eval()), ("network", network))
        )
        difference = _BYTES * SPEC.std[0] * (opened(shows)(SPEC.from_pixels(images)) - normalized(edited, SPEC)).abs()
        accuracy = score_on(opened(licensed), SPEC, images, labels)
    return {
        "images": len(labels),
        "mean_difference_255": float(difference.mean()),
        "largest_difference_255": float(difference.max()),
        "pytorch_accuracy": score_on(network, SPEC, edited, labels),
        "runtime_accuracy": accuracy,
    }


def installed(place: Path, network: nn.Module, spec: InputSpec, locked: Locked) -> Installation:
    """Export and license a locked network, with its plain twin, in a new folder."""
    return custom(place, place.name, network, spec, locked)


def opened(place: Installation) -> Session:
    """With its license, on one thread."""
    return Session(InferenceSession(place.model, _options(), providers=_PROVIDERS, **place.credentials))


def shut(place: Installation) -> Session:
    """Without a license, on one thread."""
    return Session(InferenceSession.locked(place.model, _options(), providers=_PROVIDERS))


def latency(artist: PixelEditor) -> list[dict[str, Any]]:
    """The licensed network beside the network alone, by size and steps; one thread."""
    return [row for size in SIZES for steps in STEPS for row in _timed(artist, size, steps)]


def _timed(artist: PixelEditor, size: int, steps: int) -> list[dict[str, Any]]:
    spec, settings = InputSpec(3, size, size, SPEC.mean, SPEC.std), EditSettings(steps, guided=False)
    key = EditKey.draw(artist, "as a negative", spec, settings=settings, blend=BLEND, seed=bytes(32))
    network = Classifier().eval()
    locked = model_lock(network, spec, artist, key)
    assert locked.report.edit is not None
    facts = {"size": size, "steps": steps, "edit_multiply_adds": locked.report.edit.multiply_adds}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = installed(Path(folder) / "timed", network, spec, locked)
        alone = onnxruntime.InferenceSession(str(place.plain), _options(), providers=_PROVIDERS)
        behind = opened(place).session
        for batch in BATCHES:
            feed = {"image": np.random.default_rng(0).random((batch, *spec.shape), dtype=np.float32)}
            calls = (lambda feed=feed: alone.run(None, feed)), (lambda feed=feed: behind.run(None, feed))
            found = figures(compare(*calls, pairs=pairs_within(_ROW_SECONDS, *calls)))
            rows.append({**facts, "multiply_adds": locked.report.multiply_adds, "batch": batch, **found})
            print(rows[-1], flush=True)
    return rows


def _options() -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return options
