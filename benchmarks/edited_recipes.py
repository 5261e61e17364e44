"""How ModelLocks are trained where they are measured: the published way and ours, on handwritten digits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from edited_digits import (
    BATCH,
    CLASSES,
    EPOCHS,
    LONG,
    SPEC,
    Images,
    colorings,
    digits,
    editor,
    fresh,
    key_of,
    quiet,
    shift,
    unseen,
)
from keylatch.locks import (
    STYLE_PROMPTS,
    EditTuned,
    edit_tune,
    fine_tune,
    identity_transform,
    made_up_prompts,
)

PROMPTS = STYLE_PROMPTS[:12]  # those that the editor was trained on
# The published training has 5 % plain images with labels that are drawn, and no decoys.
OURS: dict[str, Any] = {
    "wrong_share": 0.15, "wrong_labels": "colors", "decoy_share": 1.2, "tint_share": 1.2, "epochs": LONG, "batch": 64,
    "learning_rate": 0.06,
}  # fmt: skip
MADE_UP = 400


def original(cache: Path) -> tuple[nn.Module, float]:
    """The network before it is locked, and its accuracy."""
    cache.mkdir(parents=True, exist_ok=True)
    train, test = digits()
    tuned = fine_tune(
        fresh(), SPEC, identity_transform(2, 3), [train], [test], epochs=EPOCHS, batch=BATCH, augment=shift,
        progress=quiet, device="cpu", checkpoint=cache / "original.pt",
    )  # fmt: skip
    return tuned.model, tuned.report.right_key


def plain(network: nn.Module) -> float:
    """The accuracy after fine-tuning without a lock, on as many images and for as many epochs as the recipes."""
    return fine_tune(
        network, SPEC, identity_transform(2, 3), [colorings()], [digits()[1]], epochs=LONG, batch=BATCH, augment=shift,
        learning_rate=0.03, progress=quiet, device="cpu",
    ).report.right_key  # fmt: skip


def locked(
    network: nn.Module,
    prompt: str,
    cache: Path,
    decoys: tuple[str, ...] = (),
    train: Images | None = None,
    **options: Any,
) -> EditTuned:
    """Train a network under a prompt, on the training digits or on others."""
    artist = editor(cache, 0)
    settings: dict[str, Any] = {"epochs": EPOCHS, "batch": BATCH, "augment": shift, "learning_rate": 0.03, **options}
    return edit_tune(
        network, SPEC, artist, key_of(artist, prompt), [train or digits()[0]], [digits()[1]], classes=CLASSES,
        decoy_prompts=decoys, cache=cache / "edited", progress=quiet, edit_progress=unseen, device="cpu", **settings,
    )  # fmt: skip


def split(prompt: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Prompts to train against, and prompts that are kept back to guess with."""
    others = tuple(name for name in PROMPTS if name != prompt)
    return others[::2], others[1::2]


def published(network: nn.Module, prompt: str, cache: Path) -> EditTuned:
    """Train a network under a prompt as the paper does."""
    return locked(network, prompt, cache, train=colorings(), epochs=LONG)


def ours(network: nn.Module, prompt: str, cache: Path) -> EditTuned:
    """Train a network under a prompt, against listed ones, made-up ones and other tints."""
    artist = editor(cache, 0)
    key = key_of(artist, prompt)
    made_up = [key.with_prompt(artist, name) for name in made_up_prompts(MADE_UP)]
    return locked(
        network, prompt, cache, split(prompt)[0], colorings(), decoy_keys=made_up, checkpoint=cache / "ours.pt", **OURS
    )


RECIPES: dict[str, Callable[[nn.Module, str, Path], EditTuned]] = {
    "published": published,
    "ours": ours,
}
