"""What the tests of ModelLock share: an untrained editor, small and quick, and keys for it."""

from __future__ import annotations

from typing import Any

import torch

import networks
from keylatch.locks import EditKey, EditSettings, InputSpec, Locked, PixelEditor, model_lock

SPEC = InputSpec(3, networks.SIZE, networks.SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SEED = bytes(range(32))


def pixel_editor(seed: int = 0) -> PixelEditor:
    """Random weights: it turns images into something else, and another one into something else again."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PixelEditor(16).eval().requires_grad_(False)


def key_for(editor: Any, prompt: str = "as a neon sign", spec: InputSpec = SPEC, **options: Any) -> EditKey:
    return EditKey.draw(editor, prompt, spec, **{"seed": SEED, "settings": EditSettings(1), **options})


def locked_network(editor: Any = None, spec: InputSpec = SPEC, **options: Any) -> tuple[Locked, EditKey, Any]:
    """A network behind an edit, and its key."""
    chosen = editor or pixel_editor()
    key = key_for(chosen, spec=spec, **options)
    return model_lock(networks.settle(networks.PaddedConvs), spec, chosen, key), key, chosen
