"""Fine-tune a network on images edited under a key, so that it understands no others.

Source: ModelLock (arXiv 2405.16285), section 3: edited images keep their labels, about 5 % plain ones have wrong ones.
Ours are the decoys: images edited under other prompts, by the locked defaults and by other editors, with wrong labels
too, since a network that has only seen plain images as wrong ones understands most other styles quite well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from typing import Any

import torch
from torch import nn

from keylatch.errors import LockError
from keylatch.locks._augmentation import Augment
from keylatch.locks._block_transform import identity_transform
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._key_accuracy import KeyAccuracy
from keylatch.locks._key_training import fine_tune
from keylatch.locks._key_training_data import ImageSet, draw_subset, generator_for, read_images, seeded
from keylatch.locks._key_training_report import TrainingProgress
from keylatch.locks._model_lock._edit_gate import KeyedEdit
from keylatch.locks._model_lock._edit_key import EditKey
from keylatch.locks._model_lock._edit_tune_report import EditTuned, EditTuneReport
from keylatch.locks._model_lock._edited_images import EDIT_BATCH, EditProgress, edit_images
from keylatch.locks._model_lock._editor import Editor
from keylatch.locks._model_lock._training_set import WRONG_SHARE, WrongLabels, locked_union, retinted
from keylatch.locks._randomness import SEED_BYTES
from keylatch.locks._training_hints import require_hint_layers

DECOY_SHARE = 0.5
_BLOCK_SIZE = 2  # of the transform that does nothing


def edit_tune(
    model: nn.Module,
    spec: InputSpec,
    editor: Editor,
    key: EditKey,
    train: Iterable[Any],
    validation: Iterable[Any],
    *,
    classes: int,
    decoy_prompts: Sequence[str] = (),
    decoy_keys: Sequence[EditKey] = (),
    decoy_editors: Sequence[Editor] = (),
    decoy_share: float = DECOY_SHARE,
    tint_share: float = 0.0,
    wrong_share: float = WRONG_SHARE,
    wrong_labels: WrongLabels = "drawn",
    subset: float = 1.0,
    epochs: int = 20,
    batch: int = 128,
    learning_rate: float = 0.05,
    augment: Augment | None = None,
    hints: Sequence[str] = (),
    cache: str | PathLike[str] | None = None,
    checkpoint: str | PathLike[str] | None = None,
    edit_batch: int = EDIT_BATCH,
    edit_workers: int = 1,
    device: str | torch.device | None = None,
    seed: int = 0,
    progress: Callable[[TrainingProgress], None] | None = None,
    edit_progress: EditProgress | None = None,
) -> EditTuned:
    """Train a copy of a network on images edited under a key.

    Images are edited once, then `fine_tune` runs on edited, plain and decoy images together.

    Args:
        model: Pre-trained, as for `fine_tune`; it is copied, not changed.
        spec: Size and normalization of its images.
        editor: The editor.
        key: The key, made with this editor.
        train: Batches of images (N, 3, H, W) and labels, as for `fine_tune`.
        validation: The same; nothing is chosen by them.
        classes: How many there are.
        decoy_prompts: Other prompts, whose edits get wrong labels; if there are any, the edit by the locked defaults
            joins them. The trained network is measured on them too: keep some prompts back to measure guessing.
        decoy_keys: Other keys for this editor, whose edits get wrong labels, such as `EditKey.near` gives: what a
            prompt that nobody listed, other noise, or another editor makes of an image; or this key with each of some
            hundred `made_up_prompts`, which stand for all that could be guessed.
        decoy_editors: Other editors of this kind, whose edits under the very key get wrong labels, such as
            `varied_editor` makes.
        decoy_share: Decoys as a share of the training images, over all of these edits.
        tint_share: The same for decoys that need no editing: edits by this very key with another strength and tint in
            each channel, which stand for what other editors make of the prompt.
        wrong_share: Plain images as a share of edited and plain ones.
        wrong_labels: What these and the decoys get: `drawn`, for each another class than its own, as in the paper, or
            `colors`, the class that an image's colors decide, which a network can learn: it then refuses what it was
            never shown too.
        subset: Share of the training images.
        epochs: Passes over all of them.
        batch: Images in a step.
        learning_rate: The largest, after the warm-up.
        augment: Changes a batch of edited images, as for `fine_tune`.
        hints: Layers whose outputs for edited images are to be those of the given network for the plain ones, such as
            `hint_layers(model, spec)` names; images with wrong labels get none. A pre-trained network keeps its
            accuracy with them, whatever the decoys. None by default, as in the published method.
        cache: A folder for edited images; an interrupted editing goes on there.
        checkpoint: A file; an interrupted training goes on there.
        edit_batch: Images edited together.
        edit_workers: Parts of the images edited at a time, as for `edit_images`.
        device: Where to edit and train.
        seed: Of all draws but the key's.
        progress: Of the training.
        edit_progress: Of the editing.

    Raises:
        LockError: If the key was made with another editor, or something does not fit.
        OutputError: If cache or checkpoint cannot be written.
    """
    for each in (key, *decoy_keys):
        each.require(editor)
    everything = read_images(train, spec, name="training")
    held_back = read_images(validation, spec, name="validation")
    if hints:
        require_hint_layers(model, hints, spec)
    _require_decoys(decoy_share, tint_share, [*decoy_prompts, *decoy_keys, *decoy_editors])
    data = draw_subset(everything, subset, generator_for(seed, "edited subset"))

    def edited_by(edit: KeyedEdit, images: torch.Tensor) -> torch.Tensor:
        return edit_images(
            edit, images, cache=cache, batch=edit_batch, workers=edit_workers, device=device, progress=edit_progress
        )

    def edited(with_key: EditKey, images: torch.Tensor) -> torch.Tensor:
        return edited_by(with_key.keyed(editor), images)

    by_default = KeyedEdit(editor.edit(spec.height, spec.width, key.settings), editor.digest, key.settings).eval()
    wrong = {prompt: key.with_prompt(editor, prompt) for prompt in decoy_prompts}
    edits = [*(guess.keyed(editor) for guess in wrong.values()), *([by_default] if wrong else [])]
    edits += [other.keyed(editor) for other in decoy_keys]
    edits += [key.keyed_anyway(other) for other in decoy_editors]
    decoys = _decoys(edits, data, decoy_share, seed, edited_by)
    plain, ours = _bytes(data.images), edited(key, data.images)
    decoys.append(_tints(plain, ours, data.labels, tint_share, seed))
    union = locked_union(
        plain, ours, data.labels, classes=classes, decoys=decoys, wrong_share=wrong_share, wrong_labels=wrong_labels,
        seed=seed,
    )  # fmt: skip
    shown = edited(key, held_back.images)
    tuned = fine_tune(
        model, spec, identity_transform(_BLOCK_SIZE, spec.channels), union, [(shown, held_back.labels)],
        epochs=epochs, batch=batch, learning_rate=learning_rate, augment=augment, hints=hints, checkpoint=checkpoint,
        device=device, seed=seed, progress=progress,
    )  # fmt: skip

    def score(network: nn.Module, images: torch.Tensor) -> float:
        return score_on(network, spec, images, held_back.labels, batch)

    near = {
        f"{share:.0%}": score(tuned.model, edited(key.near(share, _bytes_of(seed, share)), held_back.images))
        for share in (0.01, 0.05, 0.25)
    }
    guesses = {prompt: score(tuned.model, edited(guess, held_back.images)) for prompt, guess in wrong.items()}
    report = EditTuneReport(
        original=score(model, held_back.images), predicted=tuned.report.original, unlocked=tuned.report.right_key,
        locked=score(tuned.model, held_back.images),
        file_alone=score(tuned.model, edited_by(by_default, held_back.images)),
        near_key=near, wrong_prompt=guesses, images=len(data), wrong_images=len(union) - len(data),
        epochs=tuned.report.epochs, seconds=tuned.report.seconds,
    )  # fmt: skip
    return EditTuned(tuned.model, report)


def score_on(
    network: nn.Module, spec: InputSpec, images: torch.Tensor, labels: torch.Tensor, batch: int = 128
) -> float:
    """Top-1 accuracy, or the mean IoU, of a network on images as they are, in percent.

    Args:
        network: On the CPU.
        spec: Its images.
        images: (N, 3, H, W) uint8, or float in [0, 1].
        labels: (N,), or (N, H, W).
        batch: Images evaluated together.
    """
    was_training = network.training
    measure = KeyAccuracy(network, spec, ImageSet(images, labels, b""), batch, torch.device("cpu"))
    found = measure(identity_transform(_BLOCK_SIZE, spec.channels))
    network.train(was_training)
    return found


def _decoys(
    edits: Sequence[KeyedEdit],
    data: ImageSet,
    share: float,
    seed: int,
    edited: Callable[[KeyedEdit, torch.Tensor], torch.Tensor],
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each edit some images, with their right labels."""
    found = []
    generator = generator_for(seed, "decoys")
    for edit in edits:
        chosen = torch.randperm(len(data), generator=generator)[: max(1, round(share * len(data) / len(edits)))]
        found.append((edited(edit, data.images[chosen]), data.labels[chosen]))
    return found


def _tints(
    plain: torch.Tensor, edited: torch.Tensor, labels: torch.Tensor, share: float, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = generator_for(seed, "tints")
    chosen = torch.randint(0, len(plain), (round(share * len(plain)),), generator=generator)
    return retinted(plain[chosen], edited[chosen], generator), labels[chosen]


def _bytes(images: torch.Tensor) -> torch.Tensor:
    return images if images.dtype == torch.uint8 else (images * 255).round().to(torch.uint8)


def _bytes_of(seed: int, share: float) -> bytes:
    return seeded(seed, f"near edit key {share}").bytes(SEED_BYTES)


def _require_decoys(share: float, tint_share: float, decoys: Sequence[object]) -> None:
    if not tint_share >= 0:
        raise LockError(f"the tints' share is {tint_share:g}, expected 0 or more", hint="take 1, or 0 for none")
    if decoys and not share > 0:
        raise LockError(f"the decoys' share is {share:g}, expected more than 0", hint=f"take {DECOY_SHARE}")
