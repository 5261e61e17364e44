"""Choose a prompt before anything is trained: how far would a lock go, and how much would it leave of the network?

The prompt decides: the paper's 20 styles left 6.7 to 68.9 % to whoever has no key (arXiv 2405.16285, figure of styles).
A style that the given network looks through anyway is one that a trained network cannot tell from no style.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from keylatch.errors import LockError
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._key_training_data import normalized
from keylatch.locks._model_lock._draws import Draws
from keylatch.locks._model_lock._edit_key import EditKey
from keylatch.locks._model_lock._edit_tune import score_on
from keylatch.locks._model_lock._edited_images import edit_images
from keylatch.locks._model_lock._editor import Editor, EditSettings
from keylatch.locks._model_lock._styles import STYLE_PROMPTS as MADE_PROMPTS
from keylatch.locks._randomness import SEED_BYTES

# A list to start from; the first twelve are those that the project's own editor was trained on.
STYLE_PROMPTS: tuple[str, ...] = (
    *MADE_PROMPTS,
    "as an oil painting", "as a pencil drawing", "as a comic book", "as stained glass", "as a woodcut", "in winter",
    "in autumn", "as a marble sculpture", "as pixel art", "as a tapestry", "in the rain", "as origami",
)  # fmt: skip

_CONSONANTS, _VOWELS = "bcdfghklmnprstvz", "aeiou"
_SYLLABLES, _MOST_WORDS = 3, 2

_GRID = 8  # pixels along a side that the probe sees
_RIDGE = 1.0
_FOLDS = 4


def made_up_prompts(count: int, *, seed: int = 0) -> list[str]:
    """Prompts that nobody lists, to train against: `as a lunoka` or `as a tesimo garive`.

    A word that a text encoder never saw stands for any word: what it makes of an image nobody chose.

    Args:
        count: How many; all are different.
        seed: Of the words; public.
    """
    draws = Draws(seed)

    def letter(letters: str) -> str:
        return letters[int(draws.uniform() * len(letters))]

    def word() -> str:
        return "".join(letter(_CONSONANTS) + letter(_VOWELS) for _ in range(_SYLLABLES))

    found: dict[str, None] = {}
    while len(found) < count:
        words = 1 + int(draws.uniform() * _MOST_WORDS)
        found[f"as a {' '.join(word() for _ in range(words))}"] = None
    return list(found)


@dataclass(frozen=True, slots=True)
class PromptRank:
    """What a prompt promises; percent, on the images that were given.

    Attributes:
        prompt: It.
        predicted_locked: Accuracy of the given network on edited images. The higher, the more it looks through the
            style, and the more a lock would leave to whoever has no key.
        feature_shift: How far the network's answers move, half the L1 distance of its probabilities, 0 to 100.
        fidelity: Accuracy of a linear probe on small edited images, trained on others: what of the classes an edit
            leaves to be learned.
    """

    prompt: str
    predicted_locked: float
    feature_shift: float
    fidelity: float

    @property
    def score(self) -> float:
        """What it is ranked by, higher is better: the fidelity, less the accuracy that would be left."""
        return self.fidelity - self.predicted_locked

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "score": self.score}


def rank_prompts(
    model: nn.Module,
    spec: InputSpec,
    editor: Editor,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    prompts: Sequence[str] = STYLE_PROMPTS,
    settings: EditSettings | None = None,
    text_guidance: float = 4.5,
    image_guidance: float = 1.5,
    blend: float = 0.5,
    cache: str | PathLike[str] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> list[PromptRank]:
    """Rank prompts by what they promise, best first.

    Args:
        model: The network, not yet locked, in evaluation mode.
        spec: Its images.
        editor: The editor.
        images: (N, 3, H, W) uint8, or float in [0, 1]; a few hundred.
        labels: (N,) int64.
        prompts: The candidates.
        settings: Of the edit.
        text_guidance: As for `EditKey.draw`.
        image_guidance: The same.
        blend: The same.
        cache: A folder for edited images.
        progress: Told the prompts done and all of them.

    Raises:
        LockError: If there are no prompts, or too few images for a probe.
    """
    if not prompts or labels.dim() != 1 or len(images) != len(labels) or len(images) < 2 * _FOLDS:
        raise LockError(
            f"{len(prompts)} prompts cannot be ranked on {len(images)} images with {len(labels)} labels",
            hint="give some prompts, and a few hundred images with one label each",
        )
    plain = _probabilities(model, spec, images)
    ranks = []
    for index, prompt in enumerate(prompts):
        key = EditKey.draw(
            editor, prompt, spec, settings=settings, text_guidance=text_guidance, image_guidance=image_guidance,
            blend=blend, seed=bytes(SEED_BYTES),
        )  # fmt: skip
        edited = edit_images(key.keyed(editor), images, cache=cache, progress=_silent)
        shift = 50 * float((_probabilities(model, spec, edited) - plain).abs().sum(1).mean())
        ranks.append(PromptRank(prompt, score_on(model, spec, edited, labels), shift, _fidelity(edited, labels)))
        if progress is not None:
            progress(index + 1, len(prompts))
    return sorted(ranks, key=lambda rank: rank.score, reverse=True)


@torch.no_grad()
def _probabilities(model: nn.Module, spec: InputSpec, images: torch.Tensor) -> torch.Tensor:
    parts = [model(normalized(part, spec)).softmax(1) for part in torch.split(images, 128)]
    return torch.cat(parts)


def _fidelity(images: torch.Tensor, labels: torch.Tensor) -> float:
    """Cross-validated accuracy of a ridge classifier on images of 8 x 8, in percent."""
    pixels = images.float() / (255 if images.dtype == torch.uint8 else 1)
    features = functional.adaptive_avg_pool2d(pixels, _GRID).flatten(1).double()
    features = (features - features.mean(0)) / (features.std(0) + 1e-3)
    features = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], 1)
    classes, places = torch.unique(labels, return_inverse=True)
    wanted = functional.one_hot(places, len(classes)).double()
    fold, hits = torch.arange(len(features)) % _FOLDS, 0
    ridge = _RIDGE * len(features) / 100 * torch.eye(features.shape[1], dtype=torch.float64)
    for held in range(_FOLDS):
        train, test = fold != held, fold == held
        gram = features[train].T @ features[train] + ridge
        weights = torch.linalg.solve(gram, features[train].T @ wanted[train])
        hits += int(((features[test] @ weights).argmax(1) == places[test]).sum())
    return 100 * hits / len(features)


def _silent(done: int, total: int) -> None:
    del done, total
