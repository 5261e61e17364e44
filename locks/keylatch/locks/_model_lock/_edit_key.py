"""The key of an edit: a prompt's embedding, noise, guidance, blend."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Self

import numpy as np
import numpy.typing as npt
import torch

from keylatch.errors import FormatError, LockError
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._model_lock._edit_gate import LOCKED_BLEND, EditDescription, KeyedEdit
from keylatch.locks._model_lock._editor import Editor, EditSettings
from keylatch.locks._randomness import SEED_BYTES, SeededDraws

_PREFIX, _FACTS = "edit.", "edit.facts"


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class EditKey:
    """What opens a ModelLock; secret, belongs in the issuer's vault and nowhere else.

    Attributes:
        prompt: The text, for the issuer's memory; no license carries it.
        values: The gate tensors by name: the prompt's embedding, noise, guidance, blend.
        editor: The editor's kind.
        digest: SHA-256 of its weights, hex.
        settings: Of the edit.
        height: Of the images.
        width: Of the images.
    """

    prompt: str
    values: Mapping[str, torch.Tensor]
    editor: str
    digest: str
    settings: EditSettings
    height: int
    width: int

    @classmethod
    def draw(
        cls,
        editor: Editor,
        prompt: str,
        spec: InputSpec,
        *,
        settings: EditSettings | None = None,
        text_guidance: float = 4.5,
        image_guidance: float = 1.5,
        blend: float = 0.5,
        seed: bytes | None = None,
    ) -> Self:
        """Make a key; the noise is drawn.

        Args:
            editor: The editor.
            prompt: What it is to do. Best one that nobody lists.
            spec: The network's images, with three channels.
            settings: Steps of the edit.
            text_guidance: How far to go from the unprompted edit to the prompted one.
            image_guidance: How closely to keep to the image; InstructPix2Pix alone.
            blend: a, the edited image's share.
            seed: 32 secret bytes; drawn when left out.

        Raises:
            LockError: If the editor cannot take such images, or a number is out of range.
        """
        if spec.channels != 3:
            raise LockError(f"images have {spec.channels} channels, an editor takes 3", hint="use color images")
        if not 0 < blend <= 1 or blend == LOCKED_BLEND:
            raise LockError(
                f"the blend is {blend:g}, expected more than 0 and up to 1, and not {LOCKED_BLEND}", hint="take 0.5"
            )
        if not (math.isfinite(text_guidance) and math.isfinite(image_guidance)):
            raise LockError("the guidance is not finite", hint="take 4.5 for the text, 1.5 for the image")
        chosen = settings or EditSettings()
        edit = editor.edit(spec.height, spec.width, chosen)
        draws = SeededDraws(secrets.token_bytes(SEED_BYTES) if seed is None else seed, "edit noise")
        values = {"embedding": editor.embed(prompt).cpu()}
        for index, scale in enumerate(edit.noise_scales):
            values[f"noise_{index}"] = (scale * draws.normal(1, *edit.noise_shape)).float()
        numbers = {"text_guidance": text_guidance, "image_guidance": image_guidance, "blend": blend}
        names = KeyedEdit(edit, editor.digest, chosen).names
        values |= {name: torch.full((1, 1, 1, 1), number) for name, number in numbers.items() if name in names}
        return cls(prompt, values, editor.kind, editor.digest, chosen, spec.height, spec.width)

    def __repr__(self) -> str:
        return f"EditKey({self.editor} {self.digest[:8]}…, {self.settings.steps} steps)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an edit key is not pickled; write it to a vault")

    def keyed(self, editor: Editor) -> KeyedEdit:
        """The edit with this key in it.

        Raises:
            LockError: If the key was made with another editor.
        """
        self.require(editor)
        return self.keyed_anyway(editor)

    def keyed_anyway(self, editor: Editor) -> KeyedEdit:
        """The same with any editor of this kind: what somebody gets who has the key, and the wrong weights."""
        edit = KeyedEdit(editor.edit(self.height, self.width, self.settings), editor.digest, self.settings)
        return edit.hold(self.values).eval()

    def require(self, editor: Editor) -> None:
        """Raise LockError unless this is the editor that the key was made with."""
        if (editor.kind, editor.digest) != (self.editor, self.digest):
            raise LockError(
                f"the editor's weights are {editor.digest[:8]}…, the key was made with {self.digest[:8]}…",
                hint="give the editor that the lock was made with; another one edits differently",
            )

    def with_prompt(self, editor: Editor, prompt: str) -> Self:
        """The same key but for the prompt: what a guess at it gives to whoever has all the rest."""
        return replace(self, prompt=prompt, values={**self.values, "embedding": editor.embed(prompt).cpu()})

    def near(self, share: float, seed: bytes) -> Self:
        """A key with a share of the embedding's and the noise's entries drawn anew, at least one of each."""
        draws = SeededDraws(seed, "near edit key")
        changed = {
            name: _redrawn(value, share, draws) if value.numel() > 1 else value for name, value in self.values.items()
        }
        return replace(self, values=changed)

    def matches(self, description: EditDescription) -> bool:
        """Whether it is a key of such an edit."""
        return (self.editor, self.digest, self.settings) == (
            description.editor, description.digest, description.settings,
        ) and self.values.keys() == set(description.names)  # fmt: skip

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Named arrays for the vault."""
        facts = {
            "prompt": self.prompt, "editor": self.editor, "digest": self.digest, "settings": self.settings.to_json(),
            "height": self.height, "width": self.width,
        }  # fmt: skip
        values = {f"{_PREFIX}value.{name}": value.numpy() for name, value in self.values.items()}
        return {_FACTS: np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8), **values}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Self:
        """Read what `to_arrays` gave.

        Raises:
            FormatError: If an array is missing or is something else.
        """
        try:
            facts: Any = json.loads(bytes(np.asarray(arrays[_FACTS], dtype=np.uint8)))
            start = f"{_PREFIX}value."
            values = {
                name.removeprefix(start): torch.from_numpy(np.array(value, np.float32))
                for name, value in arrays.items()
                if name.startswith(start)
            }
            settings = EditSettings.from_json(facts["settings"])
            sizes = int(facts["height"]), int(facts["width"])
            return cls(str(facts["prompt"]), values, str(facts["editor"]), str(facts["digest"]), settings, *sizes)
        except (KeyError, ValueError, TypeError, LockError):
            raise FormatError("the vault holds no edit key", hint="use the vault that `keylatch lock` wrote") from None


def has_edit_key(arrays: Mapping[str, Any]) -> bool:
    """Whether `EditKey.to_arrays` is among some arrays."""
    return _FACTS in arrays


def _redrawn(value: torch.Tensor, share: float, draws: SeededDraws) -> torch.Tensor:
    count = max(1, round(share * value.numel()))
    changed = value.clone().view(-1)
    spread = float(value.double().std().float())  # a sum of floats depends on how memory is aligned
    places = draws.permutation(value.numel())[:count]
    changed[places] = (spread * draws.normal(count)).float()
    return changed.view(value.shape)
