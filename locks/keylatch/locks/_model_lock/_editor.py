"""What an editor is: a diffusion model that edits images under a prompt; and one edit of it, as a module."""

from __future__ import annotations

import abc
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Protocol, Self

import torch
from torch import nn

from keylatch.errors import LockError

Region = Literal["center", "background"]

MOST_STEPS = 8


@dataclass(frozen=True, slots=True)
class EditSettings:
    """What is public of an edit: its steps are unrolled in the graph.

    Attributes:
        steps: Of the sampler; image to image does `int(steps * strength)` of them.
        strength: How much noise image to image starts from, in (0, 1]. Other editors start from nothing else.
        guided: Whether outputs with and without the prompt are taken apart (classifier-free guidance, arXiv
            2207.12598). Few-step models that were distilled with it, such as Turbo, go without, at half the cost.
        region: What inpainting paints: the inner half of height and width, or everything else.
    """

    steps: int = 2
    strength: float = 1.0
    guided: bool = True
    region: Region = "background"

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MOST_STEPS:
            raise LockError(
                f"an edit of {self.steps} steps, expected 1 to {MOST_STEPS}",
                hint="every inference runs them all; take a few-step editor for few steps",
            )
        if not 0 < self.strength <= 1 or int(self.steps * self.strength) < 1:
            raise LockError(
                f"{self.steps} steps of strength {self.strength:g} leave no step to do",
                hint="give a strength up to 1 and at least 1 / steps",
            )
        if self.region not in ("center", "background"):
            raise LockError(f"region {self.region!r} is unknown", hint="take center or background")

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(**data)


class EditTensors(NamedTuple):
    """What is secret of an edit. Each tensor is used as it is, and with run-time data only: none can be folded.

    Attributes:
        embedding: (1, L, D) float32, the prompt's.
        noise: (1, C, h, w) float32 each, as the edit adds them: already scaled.
        text_guidance: (1, 1, 1, 1) float32.
        image_guidance: (1, 1, 1, 1) float32; instruct-pix2pix alone reads it.
    """

    embedding: torch.Tensor
    noise: tuple[torch.Tensor, ...]
    text_guidance: torch.Tensor
    image_guidance: torch.Tensor


class Edit(nn.Module, abc.ABC):
    """One edit: an editor for one image size and one number of steps.

    Attributes:
        noise_shape: (C, h, w) of each noise tensor.
        noise_scales: One for each: what standard normal noise is multiplied with before it is a noise tensor.
        guided: Whether `EditTensors.text_guidance` does anything.
        reads_image_guidance: The same of `EditTensors.image_guidance`, if it is guided.
        unconditional: (1, L, D), the embedding of no prompt.
    """

    noise_shape: tuple[int, int, int]
    noise_scales: tuple[float, ...]
    guided: bool
    reads_image_guidance: bool = False
    unconditional: torch.Tensor

    @abc.abstractmethod
    def forward(self, pixels: torch.Tensor, key: EditTensors) -> torch.Tensor:
        """Edit pixels (N, 3, H, W), float32 in [0, 1]; the same shape and range."""


class Editor(Protocol):
    """A diffusion model that edits images under a prompt.

    Attributes:
        kind: Its kind, e.g. ``instruct``.
        digest: SHA-256 of its weights, hex.
    """

    @property
    def kind(self) -> str:
        """What it does."""

    @property
    def digest(self) -> str:
        """Of its weights."""

    def embed(self, prompt: str) -> torch.Tensor:
        """The prompt's embedding, (1, L, D) float32."""

    def edit(self, height: int, width: int, settings: EditSettings) -> Edit:
        """The edit of images of one size; raises LockError for a size that the editor cannot take."""
