"""Attacks on a network that was trained on edited images: the attacker has its weights, the editor, and some labels."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edited_digits import BATCH, CLASSES, EPOCHS, SPEC, digits, fresh, key_of, quiet, shift, unseen
from keylatch.audit.attacks.prompt_guessing import style_prompts
from keylatch.locks import (
    EditKey,
    Locked,
    PixelEditor,
    edit_images,
    fine_tune,
    identity_transform,
    model_lock,
    score_on,
)

_GUESS_IMAGES = 30
_FEW = (13, 67, 135)  # 1, 5, 10 % of the training images
_SEALED_SHARES = (0.0, 0.1, 0.5, 1.0)


def guesses(prompt: str) -> list[str]:
    """The audit's style prompts, the key's not among them."""
    return [guess for guess in style_prompts() if guess != prompt]


def run(network: nn.Module, artist: PixelEditor, prompt: str, cache: Path) -> list[dict[str, Any]]:
    """All attacks; accuracies in percent on the test digits."""
    (images, labels), (test, answers) = digits()
    rows: list[dict[str, Any]] = [{"attack": "none", "accuracy": score_on(network, SPEC, test, answers)}]
    guess, accuracy = _guessed(network, artist, prompt)
    rows.append({"attack": "the best of 199 guessed prompts", "guess": guess, "accuracy": accuracy})
    known = _edited(network, artist, prompt, prompt, cache, seed=3)
    rows.append({"attack": "the prompt is on the list, noise of the attacker's own", "accuracy": known})
    rows.extend(_logits(network))
    for count in _FEW:
        few = (images[:count], labels[:count])
        share = f"{count} labeled images"
        rows.append({"attack": f"linear probe, {share}", "accuracy": _probe(network, few)})
        rows.append({"attack": f"fine-tuning, {share}", "accuracy": _tuned(network, [few])})
        rows.append(
            {"attack": f"fine-tuning with style augmentation, {share}", "accuracy": _tuned(network, [few], styled=True)}
        )
        rows.append({"attack": f"training a fresh network, {share}", "accuracy": _tuned(fresh(), [few], rate=0.05)})
    return rows


def sealed(network: nn.Module, artist: PixelEditor, key: EditKey) -> list[dict[str, Any]]:
    """Fine-tuning on plain images of a network whose file lacks a share of the weights."""
    (images, labels), count = digits()[0], _FEW[-1]
    few = images[:count], labels[:count]
    rows = []
    for share in _SEALED_SHARES:
        locked = model_lock(network, SPEC, artist, key, sealed_share=share, seed=bytes(32))
        shown = _without_key(network, locked)
        rows.append(
            {
                "sealed_share": share,
                "withheld_bytes": 4 * locked.report.sealed_parameters,
                "untouched": score_on(shown, SPEC, *digits()[1]),
                "fine_tuned": _tuned(shown, [few]),
                "fine_tuned_with_styles": _tuned(shown, [few], styled=True),
            }
        )
    return rows


def _without_key(network: nn.Module, locked: Locked) -> nn.Module:
    """The network behind the edit as the file has it: stand-ins where weights are withheld."""
    shown, module = copy.deepcopy(network), locked.module
    values = module.withheld.read(module.body)
    for name, part in zip(module.withheld.names(), module.withheld.parts, strict=True):
        part.write(shown.get_parameter(part.parameter.removeprefix("network.")), values[name])
    return shown


def _guessed(network: nn.Module, artist: PixelEditor, prompt: str) -> tuple[str, float]:
    """The best guess by a few labeled images, and its accuracy on all; all but the prompt is the key's."""
    images, labels = (part[:_GUESS_IMAGES] for part in digits()[1])
    key, found = key_of(artist, prompt), []
    for guess in guesses(prompt):
        edited = edit_images(key.with_prompt(artist, guess).keyed(artist), images, batch=64, progress=unseen)
        found.append((score_on(network, SPEC, edited, labels), guess))
    best = max(found)[1]
    return best, _edited(network, artist, prompt, best, None)


def _edited(
    network: nn.Module, artist: PixelEditor, prompt: str, guess: str, cache: Path | None, *, seed: int = 1
) -> float:
    """Accuracy on images that are edited under a guess."""
    images, labels = digits()[1]
    edit = key_of(artist, prompt, seed=seed).with_prompt(artist, guess).keyed(artist)
    folder = None if cache is None else cache / "edited"
    return score_on(network, SPEC, edit_images(edit, images, cache=folder, progress=unseen), labels)


@torch.no_grad()
def _logits(network: nn.Module) -> list[dict[str, Any]]:
    """Drop a class; subtract the mean logits of unlabeled images; take the logits' opposites, or their second best."""
    test, answers = digits()[1]
    scores = torch.cat([network((part.float() / 255 - 0.5) / 0.25) for part in torch.split(test, 128)])

    def accuracy(changed: torch.Tensor) -> float:
        return 100 * float((changed.argmax(1) == answers).double().mean())

    dropped = []
    for place in range(CLASSES):
        changed = scores.clone()
        changed[:, place] = -torch.inf
        dropped.append(accuracy(changed))
    second = scores.scatter(1, scores.argmax(1, keepdim=True), -torch.inf)
    return [
        {"attack": "dropping one class, the best choice", "accuracy": max(dropped)},
        {"attack": "subtracting the mean logits", "accuracy": accuracy(scores - scores.mean(0))},
        {"attack": "the second best class", "accuracy": accuracy(second)},
        {"attack": "the least likely class", "accuracy": accuracy(-scores)},
    ]


@torch.no_grad()
def _probe(network: nn.Module, few: tuple[torch.Tensor, torch.Tensor]) -> float:
    """A ridge classifier on what the last layer reads."""
    body = copy.deepcopy(network)
    if not isinstance(body, nn.Sequential):
        raise TypeError("the classifier is a Sequential")
    body[-1] = nn.Identity()
    test, answers = digits()[1]
    features, known = (body((part.float() / 255 - 0.5) / 0.25).double() for part in (test, few[0]))
    center, size = known.mean(0), known.std(0) + 1e-3
    features, known = (functional.pad((each - center) / size, (0, 1), value=1.0) for each in (features, known))
    wanted = functional.one_hot(few[1], CLASSES).double()
    weights = torch.linalg.solve(known.T @ known + 3 * torch.eye(known.shape[1], dtype=torch.float64), known.T @ wanted)
    return 100 * float(((features @ weights).argmax(1) == answers).double().mean())


def _tuned(
    network: nn.Module, few: list[tuple[torch.Tensor, torch.Tensor]], *, styled: bool = False, rate: float = 0.02
) -> float:
    """All weights, on plain labeled images."""
    batch = min(BATCH, len(few[0][1]) // 2)
    tuned = fine_tune(
        network, SPEC, identity_transform(2, 3), few, [digits()[1]], epochs=2 * EPOCHS, batch=batch,
        learning_rate=rate, augment=_styles if styled else shift, progress=quiet, device="cpu",
    )  # fmt: skip
    return tuned.report.right_key


def _styles(images: torch.Tensor) -> torch.Tensor:
    """Random colors, contrast and blur: what an attacker makes of his few images."""
    count = len(images)
    pixels = shift(images).float() / 255
    mixed = torch.einsum("nchw,ndc->ndhw", pixels, torch.eye(3) + 0.5 * torch.randn(count, 3, 3))
    soft = functional.avg_pool2d(functional.pad(mixed, [1] * 4, mode="replicate"), 3, 1)
    share = torch.rand(count, 1, 1, 1)
    changed = (share * soft + (1 - share) * mixed) * (0.5 + torch.rand(count, 1, 1, 1)) + 0.2 * torch.randn(
        count, 3, 1, 1
    )
    return (changed.clamp(0, 1) * 255).to(images.dtype)
