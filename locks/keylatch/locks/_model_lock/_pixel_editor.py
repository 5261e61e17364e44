"""The project's own editor: a small text-conditioned diffusion model of pixels, for tests, the demo and measurements.

It is trained in minutes on images and styles that are made (`train_pixel_editor`). A straight-line flow from noise to
the edited image (rectified flow, arXiv 2209.03003), one to eight Euler steps; the image is a condition, as in
InstructPix2Pix.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from keylatch.errors import LockError, OutputError
from keylatch.locks._model_lock._denoising import denoise, for_each
from keylatch.locks._model_lock._diffusers_editor import require_multiple
from keylatch.locks._model_lock._editor import Edit, EditSettings, EditTensors
from keylatch.locks._model_lock._schedule import Schedule
from keylatch.locks._model_lock._weights_digest import weights_digest

EDITOR_CONFIG, EDITOR_WEIGHTS = "editor.json", "editor.safetensors"
_FORMAT = "keylatch pixel editor/1"
_EMBEDDING = 64
_TIME = 16
_MULTIPLE = 4


class PixelEditor(nn.Module):
    """See `Editor`.

    Args:
        width: Channels of the network.
    """

    kind = "pixel"

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.width = width
        self.network = PixelNetwork(width)

    @property
    def digest(self) -> str:
        """SHA-256 of the weights, hex."""
        return weights_digest(self.state_dict())

    def embed(self, prompt: str) -> torch.Tensor:
        """The prompt's embedding, (1, 1, 64) float32."""
        return embed_words(prompt)

    def edit(self, height: int, width: int, settings: EditSettings) -> Edit:
        """The edit of images of one size.

        Raises:
            LockError: If a side is no multiple of 4.
        """
        require_multiple(height, width, _MULTIPLE)
        return PixelEdit(self.network, settings, (3, height, width)).eval()

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the editor into a new folder.

        Raises:
            OutputError: If the folder exists, or cannot be made.
        """
        target = Path(folder)
        if target.exists():
            raise OutputError(f"{target} exists already", hint="choose another name")
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
        try:
            temporary.mkdir()
            save_file(self.state_dict(), temporary / EDITOR_WEIGHTS)
            (temporary / EDITOR_CONFIG).write_text(json.dumps({"format": _FORMAT, "width": self.width}))
            temporary.rename(target)
        except OSError as error:
            raise OutputError(f"{target} cannot be written: {error.strerror}", hint="check its folder") from None


def embed_words(prompt: str) -> torch.Tensor:
    """The sum of its words' directions, of length 1; (1, 1, 64) float32. A word's direction is drawn by its hash."""
    words = re.findall(r"[a-z0-9]+", prompt.lower())
    total = torch.stack([_direction(word) for word in words]).sum(0) if words else torch.zeros(_EMBEDDING)
    return functional.normalize(total, dim=0).view(1, 1, -1)


def load_pixel_editor(folder: Path) -> PixelEditor:
    """Read what `PixelEditor.save` wrote.

    Raises:
        LockError: If it is something else, or weights are missing.
    """
    try:
        config: Any = json.loads((folder / EDITOR_CONFIG).read_text())
        if config["format"] != _FORMAT:
            raise ValueError(f"its format is {config['format']}")
        editor = PixelEditor(int(config["width"]))
        editor.load_state_dict(load_file(folder / EDITOR_WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LockError(f"the editor {folder} does not load: {first}", hint="train or copy it again") from None
    return editor.eval().requires_grad_(False)


class PixelEdit(Edit):
    """One edit of a `PixelEditor`.

    Args:
        network: The editor's.
        settings: Steps; whether it is guided.
        shape: (3, H, W).
    """

    timesteps: torch.Tensor
    unconditional: torch.Tensor

    def __init__(self, network: PixelNetwork, settings: EditSettings, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.network, self.guided, self.noise_shape = network, settings.guided, shape
        steps = settings.steps
        times = torch.tensor([1 - index / steps for index in range(steps)])
        ones, zeros = (1.0,) * steps, (0.0,) * steps
        self.schedule = Schedule(times, ones, ones, (-1 / steps,) * steps, zeros, 0.0, 1.0)
        self.noise_scales = self.schedule.noise_scales
        self.register_buffer("timesteps", times, persistent=False)
        self.register_buffer("unconditional", torch.zeros(1, 1, _EMBEDDING), persistent=False)

    def forward(self, pixels: torch.Tensor, key: EditTensors) -> torch.Tensor:
        """Edit pixels (N, 3, H, W), float32 in [0, 1]; the same shape and range."""
        image = 2 * pixels - 1
        edited = denoise(
            self.schedule, self.timesteps, key.noise, None, pixels.shape[0],
            lambda sample, time: self._velocity(sample, image, time, key),
        )  # fmt: skip
        return (edited / 2 + 0.5).clamp(0, 1)

    def _velocity(
        self, sample: torch.Tensor, image: torch.Tensor, time: torch.Tensor, key: EditTensors
    ) -> torch.Tensor:
        text = for_each(key.embedding, sample.shape[0])
        prompted: torch.Tensor = self.network(sample, image, time, text)
        if not self.guided:
            return prompted
        without: torch.Tensor = self.network(sample, image, time, for_each(self.unconditional, sample.shape[0]))
        return without + key.text_guidance * (prompted - without)


class PixelNetwork(nn.Module):
    """A small U-Net whose blocks are scaled and shifted by prompt and time (FiLM, arXiv 1709.07871).

    Args:
        width: Channels at half of the image's resolution; at a quarter there are 3/2 as many.
    """

    frequencies: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        deep = width + width // 2
        self.register_buffer("frequencies", torch.arange(_TIME // 2) * math.pi / 2, persistent=False)
        self.condition = nn.Sequential(nn.Linear(_EMBEDDING + _TIME, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU())
        self.stem = nn.Conv2d(24, width, 3, padding=1)
        self.first = _Block(width)
        self.down = nn.Conv2d(width, deep, 2, 2)
        self.middle = nn.ModuleList([_Block(deep), _Block(deep)])
        self.up = nn.Conv2d(deep, 4 * width, 1)
        self.last = _Block(width)
        self.head = nn.Conv2d(width, 12, 3, padding=1)

    def forward(
        self, sample: torch.Tensor, image: torch.Tensor, time: torch.Tensor, text: torch.Tensor
    ) -> torch.Tensor:
        """The flow's velocity, noise minus edited image.

        Args:
            sample: (N, 3, H, W), on the way from noise (time 1) to the edited image (time 0).
            image: (N, 3, H, W), in [-1, 1].
            time: () or (N, 1, 1, 1), in (0, 1].
            text: (N, 1, 64).
        """
        angles = time.reshape(-1, 1) * self.frequencies
        clock = torch.cat([angles.sin(), angles.cos()], 1).expand(sample.shape[0], -1)
        condition = self.condition(torch.cat([text.mean(1), clock], 1))
        features = self.first(self.stem(functional.pixel_unshuffle(torch.cat([sample, image], 1), 2)), condition)
        inner = self.down(features)
        for block in self.middle:
            inner = block(inner, condition)
        features = self.last(features + functional.pixel_shuffle(self.up(inner), 2), condition)
        # The network answers with the edited image; early steps could not see it in the noise.
        edited = functional.pixel_shuffle(self.head(features), 2)
        return (sample - edited) / time


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.film = nn.Linear(128, 2 * channels)
        self.norm = nn.GroupNorm(8, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, 1)
        inner = functional.silu(self.first(functional.silu(self.norm(features))))
        added: torch.Tensor = self.second(inner * (1 + scale) + shift)
        return features + added


def _direction(word: str) -> torch.Tensor:
    """(64,) standard normal entries that only depend on the word."""
    drawn = hashlib.shake_256(b"keylatch/1 word " + word.encode()).digest(4 * _EMBEDDING)
    numbers = torch.frombuffer(bytearray(drawn), dtype=torch.int32).double()
    normal: torch.Tensor = torch.special.ndtri((numbers + 2**31 + 0.5) / 2**32).float()
    return normal
