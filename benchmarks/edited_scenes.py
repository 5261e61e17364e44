"""ModelLock for segmentation: made scenes, a small segmenter, masks that stay with the edited images."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from dense_scenes import CLASSES, SPEC, scenes, segmenter
from edited_digits import key_of, quiet, unseen
from edited_runtime import installed, opened, shut
from keylatch.locks import (
    STYLE_PROMPTS,
    EditKey,
    PixelEditor,
    edit_images,
    edit_tune,
    fine_tune,
    hint_layers,
    identity_transform,
    model_lock,
    no_augment,
    score_on,
)

_TRAIN, _TEST = (2000, 0), (300, 1)  # images and seed of `scenes`
_EPOCHS, _LONG, _BATCH = 12, 24, 16  # before anything is locked, of each training, and images in a step
PROMPT, *_DECOYS = STYLE_PROMPTS[:4]
UNSEEN = STYLE_PROMPTS[4:12]
# The default edit joins the decoy prompts.
OURS: dict[str, Any] = {"wrong_share": 0.15, "wrong_labels": "colors", "decoy_prompts": _DECOYS}


def segment(artist: PixelEditor) -> dict[str, Any]:
    """Mean IoU by the published recipe and by ours, without and with hints, beside plain fine-tuning as long."""
    network = _plain(segmenter(), _EPOCHS)
    plain = score_on(_plain(network, _LONG), SPEC, *scenes(*_TEST))
    taught = OURS | {"hints": hint_layers(network, SPEC)}
    recipes: dict[str, dict[str, Any]] = {"published": {}, "ours": OURS, "ours, with hints": taught}
    print({"plain fine-tune": plain}, flush=True)
    rows = [{"recipe": name, **_measured(network, artist, options)} for name, options in recipes.items()]
    return {
        "prompt": PROMPT,
        "scenes": _TRAIN[0],
        "epochs_before": _EPOCHS,
        "epochs": _LONG,
        "original": score_on(network, SPEC, *scenes(*_TEST)),
        "plain_fine_tune": plain,
        "rows": rows,
    }


def _plain(network: nn.Module, epochs: int) -> nn.Module:
    return fine_tune(
        network, SPEC, identity_transform(2, 3), [scenes(*_TRAIN)], [scenes(*_TEST)], epochs=epochs, batch=_BATCH,
        progress=quiet, device="cpu",
    ).model  # fmt: skip


def _measured(network: nn.Module, artist: PixelEditor, options: dict[str, Any]) -> dict[str, Any]:
    """Train under a key, then measure what is exported and licensed."""
    test = scenes(*_TEST)
    key = key_of(artist, PROMPT, SPEC)
    tuned = edit_tune(
        network, SPEC, artist, key, [scenes(*_TRAIN)], [test], classes=CLASSES, epochs=_LONG, batch=_BATCH,
        augment=no_augment, progress=quiet, edit_progress=unseen, device="cpu", **options,
    )  # fmt: skip
    locked = model_lock(tuned.model, SPEC, artist, key)
    with tempfile.TemporaryDirectory() as folder:
        place = installed(Path(folder) / "segmenter", tuned.model, SPEC, locked)
        runtime = {
            "licensed": score_on(opened(place), SPEC, *test),
            "without_license": score_on(shut(place), SPEC, *test),
        }
    others = {name: _guessed(tuned.model, artist, key.with_prompt(artist, name)) for name in UNSEEN}
    row = {**options, **runtime, **tuned.report.to_json(), "other_prompts": others}
    print(row, flush=True)
    return row


def _guessed(network: nn.Module, artist: PixelEditor, key: EditKey) -> float:
    """Mean IoU on scenes that are edited under another key."""
    images, labels = scenes(*_TEST)
    return score_on(network, SPEC, edit_images(key.keyed(artist), images, progress=unseen), labels)
