"""ModelLock for `keylatch lock`: choose a prompt, draw the key, train on edited pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from keylatch.cli._image_folder import class_names, read_image_folder
from keylatch.cli._source import trainable
from keylatch.errors import InputError, LockError
from keylatch.keys import Vault

MADE_UP = 400
_DECOYS, _WRONG_SHARE = 6, 0.15  # 5 % leaves a small network 30 to 88 % without a key (docs/results.md)
# Listed decoys alone left a door open to guesses: the best of 199 had 55 %, 11 with these (docs/results.md).
_MADE_UP_DECOYS = {"decoy_share": 1.2, "tint_share": 1.2, "wrong_labels": "colors"}
_RANKING_PICTURES = 300
_PROMPT_LIST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class EditOptions:
    """What the options of ModelLock ask for.

    Attributes:
        editor: Folder or name of the editor.
        prompt: The prompt; None to have one chosen.
        prompts: A file of candidates, one a line; None for the built-in list.
        decoys: Prompts that get wrong labels; empty for some of the candidates.
        made_up: How many made-up prompts do too, at most one for each training picture.
        steps: Of the edit.
        strength: Of image to image.
        guidance: For the text; 0 for none.
        image_guidance: For the image.
        blend: The edited image's share.
        cache: Folder for edited pictures.
        share: Of the weights, to withhold beside the key.
    """

    editor: str
    prompt: str | None
    prompts: Path | None
    decoys: tuple[str, ...]
    made_up: int
    steps: int
    strength: float
    guidance: float
    image_guidance: float
    blend: float
    cache: Path | None
    share: float


@dataclass(frozen=True, slots=True)
class EditLocked:
    """What came of it.

    Attributes:
        locked: As `model_lock` gives it.
        training: The training's report.
        ranks: The candidates, best first; empty where the prompt was given.
    """

    locked: Any
    training: Any
    ranks: Sequence[Any]


def edit_options_from(
    wanted: bool, editor: str | None, options: Callable[[str], EditOptions], prompted: bool
) -> EditOptions | None:
    """Make sense of the options; None for another method."""
    if wanted != (editor is not None):
        raise typer.BadParameter("--method model-lock and --editor go together")
    if not wanted and prompted:
        raise typer.BadParameter("--prompt, --prompts, --decoy and --made-up go with --method model-lock")
    return options(editor) if editor is not None else None


def lock_edited(
    network: Any,
    spec: Any,
    wanted: EditOptions,
    training: Any,
    kept: Vault | None,
    keep: Callable[[Vault], None],
) -> EditLocked:
    """Train a network on edited pictures and put the edit in front of it.

    Args:
        network: The network.
        spec: Its images.
        wanted: The options.
        training: Folders, epochs and checkpoint, as `training_from` gives them.
        kept: The vault of a run that was interrupted; None for a new one.
        keep: Writes a new key's vault, before anything long is done with it.

    Raises:
        InputError: If pictures or candidates cannot be read.
        LockError: If they, network, editor and key do not fit together.
    """
    from keylatch.locks import edit_tune, hint_layers, load_editor, model_lock

    if not 0 <= wanted.share <= 1:
        raise InputError(f"a share of {wanted.share} is not between 0 and 1", hint="give e.g. 0.1, or leave it out")
    network = trainable(network)
    editor = load_editor(wanted.editor)
    names = class_names(training.train)
    train, validation = (read_image_folder(folder, names, spec) for folder in (training.train, training.validation))
    candidates = _candidates(wanted)
    ranks: Sequence[Any] = ()
    if kept is not None:
        key = _kept_key(kept, wanted)
    else:
        prompt = wanted.prompt
        if prompt is None:
            ranks = _ranked(network.eval(), spec, editor, wanted, candidates, train)
            prompt = ranks[0].prompt
        key = _key(editor, prompt, spec, wanted)
        if wanted.cache is not None or training.checkpoint is not None:
            keep(_vault(key))  # without it what is edited and trained until an interruption would be worth nothing
    decoys = wanted.decoys or tuple(name for name in candidates if name != key.prompt)[:_DECOYS]
    tuned = edit_tune(
        network.eval(), spec, editor, key, [train], [validation], classes=len(names), decoy_prompts=decoys,
        wrong_share=_WRONG_SHARE, **_made_up_decoys(editor, key, min(wanted.made_up, len(train[1]))),
        subset=training.subset, epochs=training.epochs, checkpoint=training.checkpoint, cache=wanted.cache,
        hints=hint_layers(network, spec) if training.hints else (),
    )  # fmt: skip
    return EditLocked(model_lock(tuned.model, spec, editor, key, sealed_share=wanted.share), tuned.report, ranks)


def _made_up_decoys(editor: Any, key: Any, count: int) -> dict[str, Any]:
    from keylatch.locks import made_up_prompts

    decoys = [key.with_prompt(editor, prompt) for prompt in made_up_prompts(count)]
    return {"decoy_keys": decoys, **_MADE_UP_DECOYS} if decoys else {}


def _settings(wanted: EditOptions) -> Any:
    from keylatch.locks import EditSettings

    return EditSettings(wanted.steps, wanted.strength, guided=wanted.guidance != 0)


def _numbers(wanted: EditOptions) -> dict[str, Any]:
    return {"text_guidance": wanted.guidance, "image_guidance": wanted.image_guidance, "blend": wanted.blend}


def _key(editor: Any, prompt: str, spec: Any, wanted: EditOptions) -> Any:
    from keylatch.locks import EditKey

    return EditKey.draw(editor, prompt, spec, settings=_settings(wanted), **_numbers(wanted))


def _ranked(network: Any, spec: Any, editor: Any, wanted: EditOptions, candidates: Sequence[str], data: Any) -> Any:
    import torch

    from keylatch.locks import rank_prompts

    images, labels = data
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:_RANKING_PICTURES]
    return rank_prompts(
        network, spec, editor, images[chosen], labels[chosen], prompts=candidates, settings=_settings(wanted),
        cache=wanted.cache, **_numbers(wanted),
    )  # fmt: skip


def _candidates(wanted: EditOptions) -> tuple[str, ...]:
    from keylatch.locks import STYLE_PROMPTS

    if wanted.prompts is None:
        return STYLE_PROMPTS
    try:
        with wanted.prompts.open("rb") as file:
            lines = file.read(_PROMPT_LIST_BYTES).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{wanted.prompts} cannot be read: {error}", hint="give a text file") from None
    found = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise InputError(f"{wanted.prompts} holds no prompt", hint="write one a line")
    return found


def _vault(key: Any) -> Vault:
    from keylatch.locks import LockSecret

    return Vault({"lock": LockSecret.of_edit(key).to_arrays()})


def _kept_key(vault: Vault, wanted: EditOptions) -> Any:
    """The key of a run that was interrupted: the same noise, or nothing that is done already would count."""
    from keylatch.locks import LockSecret

    key = LockSecret.from_arrays(vault.section("lock")).edit
    if key is None or (wanted.prompt is not None and wanted.prompt != key.prompt) or key.settings != _settings(wanted):
        raise LockError(
            "the vault is that of another lock than the one that is asked for",
            hint="choose another name with --secret, or repeat the options of the run that was interrupted",
        )
    changed = [name for name, value in _numbers(wanted).items() if not _holds(key, name, value)]
    if changed:
        raise LockError(
            f"the vault's key has another {changed[0].replace('_', ' ')} than the one that is asked for",
            hint="repeat the options of the run that was interrupted",
        )
    return key


def _holds(key: Any, name: str, value: float) -> bool:
    return name not in key.values or math.isclose(float(key.values[name]), value, rel_tol=1e-6)


def edit_lines(made: EditLocked) -> list[tuple[str, object]]:
    """What came of it, for the terminal; the prompt stays in the vault."""
    report, edit = made.training, made.locked.report.edit
    wrong = ", ".join(f"{value:.1f}" for value in report.wrong_prompt.values())
    near = ", ".join(f"{name}: {value:.1f}" for name, value in report.near_key.items())
    return [
        ("edit", f"{edit.editor} {edit.digest[:8]}…, {edit.steps} steps"),
        ("cost", f"{edit.multiply_adds:,} multiply-adds for every image"),
        ("trained on", f"{report.images} edited and {report.wrong_images} other pictures, {report.epochs} epochs"),
        ("accuracy", f"{report.unlocked:.1f} % with the key (the network before, without: {report.original:.1f})"),
        (
            "without key",
            f"{report.locked:.1f} % (untrained, with the key: {report.predicted:.1f})",
        ),
        ("the file alone", f"{report.file_alone:.1f} %"),
        ("other prompts", f"{wrong} %"),
        ("near keys", f"{near} %"),
    ]
