"""A ModelLock's prompt, guessed from a list of styles."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._owner import with_values
from keylatch.audit._target import Target
from keylatch.audit.attacks._choice import labeled_merit, unlabeled_merit
from keylatch.locks import STYLE_PROMPTS
from keylatch.locks._model_lock._pixel_editor import embed_words

_EMBEDDING, _BLEND = "body.edit.embedding", "body.edit.blend"
_PROMPTS = 200
_IMAGES = 100
_PUBLISHED_BLEND = 0.5  # arXiv 2405.16285; the likeliest one
_MEDIA = ("drawing", "painting", "photograph", "print", "poster", "carving", "collage", "tile", "sign", "stamp")
_MANNERS = (
    "ancient", "baroque", "blurred", "bright", "cubist", "dark", "faded", "futuristic", "golden", "gothic", "green",
    "icy", "impressionist", "minimal", "pastel", "psychedelic", "red", "silver",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PromptGuessing:
    """Puts one prompt after the other in the place of the locked default, and keeps the one that helps most.

    Noise stays the default one, the blend is the published one. Only for the project's own editor: another one's text
    encoder is not in the artifact, and the attacker would bring it with the editor.
    """

    name: str = "prompt-guessing"
    needs: str = "unlabeled or labeled images"
    summary: str = "Tries 200 style prompts as the edit's key and keeps the one that makes the outputs best."
    version: int = 1

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """Without labels, and with as many as are used; for locks by our own editor."""
        edit = target.manifest.lock.get("edit", {})
        if edit.get("editor") != "pixel":
            return []
        givens = [Given(unlabeled=min(_IMAGES, resources.pool))] if resources.pool else []
        givens += [Given(labeled=count) for count in resources.labeled[-1:]]
        return [Variant(given, settings={"prompts": _PROMPTS}, weight=4) for given in givens]

    def run(self, case: Case) -> Outcome:
        """Try all prompts, the likeliest first."""
        images = case.images[:_IMAGES]
        merit = labeled_merit(images, case.labels[:_IMAGES]) if len(case.labels) else unlabeled_merit(images)
        blend = torch.full((1, 1, 1, 1), _PUBLISHED_BLEND).numpy()
        found: list[tuple[tuple[float, float], str]] = []
        prompts = style_prompts()[: int(case.variant.settings["prompts"])]
        for prompt in prompts:
            values = {_EMBEDDING: embed_words(prompt).numpy(), _BLEND: blend}
            with torch.no_grad():
                found.append((merit(with_values(case.target, values)), prompt))
            if case.clock.expired:
                break
        best = max(found)
        values = {_EMBEDDING: embed_words(best[1]).numpy(), _BLEND: blend}
        return Outcome(
            with_values(case.target, values), cost={"prompts": len(found)}, note=f"the best prompt is {best[1]!r}",
            truncated=len(found) < len(prompts),
        )  # fmt: skip


def style_prompts() -> list[str]:
    """200 of them: the built-in list, and manners of media."""
    made = (f"as a {manner} {medium}" for manner, medium in itertools.product(_MANNERS, _MEDIA))
    return list(dict.fromkeys((*STYLE_PROMPTS, *made)))[:_PROMPTS]
