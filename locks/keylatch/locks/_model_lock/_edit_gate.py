"""An edit as a gate: in front of a network, with the key as gate tensors.

Every gate tensor is used as it stands and together with run-time data. What followed from gate tensors alone, a slice
or a product, an exporter would fold away with the locked default in it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from keylatch.locks._input_spec import InputSpec
from keylatch.locks._model_lock._editor import Edit, EditSettings, EditTensors
from keylatch.locks._randomness import SeededDraws

# The locked default of the blend; no key has it, so a module that holds it is not opened.
LOCKED_BLEND = 0.4375


@dataclass(frozen=True, slots=True)
class EditDescription:
    """What is public of an edit.

    Attributes:
        editor: The editor's kind.
        digest: SHA-256 of its weights, hex.
        settings: Of the edit.
        names: Of the gate tensors, in the graph's order.
    """

    editor: str
    digest: str
    settings: EditSettings
    names: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "editor": self.editor, "editor_sha256": self.digest, "settings": self.settings.to_json(),
            "tensors": list(self.names),
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        settings = EditSettings.from_json(data["settings"])
        return cls(str(data["editor"]), str(data["editor_sha256"]), settings, tuple(map(str, data["tensors"])))


class KeyedEdit(nn.Module):
    """An edit with its gate tensors: `x' = clip((1 - a) x + a g(x; key))`.

    Args:
        edit: The edit.
        digest: The editor's; the locked defaults are drawn from it, so that they tell nothing of any key.
        settings: Of the edit.
    """

    blend: torch.Tensor

    def __init__(self, edit: Edit, digest: str, settings: EditSettings) -> None:
        super().__init__()
        self.edit, self.digest, self.settings = edit, digest, settings
        draws = SeededDraws(hashlib.sha256(digest.encode()).digest(), "locked edit")
        size = float(edit.unconditional.square().mean().sqrt()) or 1 / math.sqrt(edit.unconditional.shape[-1])
        self.register_buffer("embedding", (size * draws.normal(*edit.unconditional.shape)).float())
        for index, scale in enumerate(edit.noise_scales):
            self.register_buffer(f"noise_{index}", (scale * draws.normal(1, *edit.noise_shape)).float())
        for name in self._guidances():
            self.register_buffer(name, (1 + draws.uniform(1, 1, 1, 1)).float())
        self.register_buffer("blend", torch.full((1, 1, 1, 1), LOCKED_BLEND))
        self.names = ("embedding", *self._noises(), *self._guidances(), "blend")

    def _noises(self) -> tuple[str, ...]:
        return tuple(f"noise_{index}" for index in range(len(self.edit.noise_scales)))

    def _guidances(self) -> tuple[str, ...]:
        if not self.edit.guided:
            return ()
        return ("text_guidance", *(("image_guidance",) if self.edit.reads_image_guidance else ()))

    def hold(self, values: Mapping[str, torch.Tensor]) -> Self:
        """Take a key's values, by name, or other gate tensors'."""
        for name in self.names:
            self.get_buffer(name).data.copy_(values[name])
        return self

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Edit pixels (N, 3, H, W), float32 in [0, 1]; the same shape and range."""
        noise = tuple(self.get_buffer(name) for name in self._noises())
        held = {name: self.get_buffer(name) for name in self._guidances()}
        nothing = torch.zeros_like(self.blend)
        key = EditTensors(
            self.get_buffer("embedding"), noise, held.get("text_guidance", nothing), held.get("image_guidance", nothing)
        )
        blended: torch.Tensor = pixels + self.blend * (self.edit(pixels, key) - pixels)
        return blended.clamp(0, 1)


class EditedNetwork(nn.Module):
    """A network that is shown edited images.

    Args:
        edit: The edit.
        network: The network.
        spec: Its images, and this module's.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, edit: KeyedEdit, network: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.edit, self.network, self.layout = edit, network, spec.layout
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1), persistent=False)

    def forward(self, image: torch.Tensor) -> Any:
        """Run the network on the edited image; (N, *spec.shape), normalized."""
        first = image if self.layout == "NCHW" else image.permute(0, 3, 1, 2)
        edited = (self.edit(first * self.std + self.mean) - self.mean) / self.std
        return self.network(edited if self.layout == "NCHW" else edited.permute(0, 2, 3, 1))
