"""Train the project's own editor on made pictures and styles: minutes on two cores, the same one for a seed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from keylatch.errors import LockError
from keylatch.locks._model_lock._draws import Draws
from keylatch.locks._model_lock._made_images import made_pictures
from keylatch.locks._model_lock._pixel_editor import PixelEditor
from keylatch.locks._model_lock._styles import STYLE_PROMPTS, made_styles

TRAINING_STEPS = 1200
_BATCH = 24
_LEARNING_RATE = 2e-3
_UNPROMPTED_SHARE = 0.1  # of the images: no prompt, no edit, so that edits can be guided
_LEAST_TIME = 0.1


def train_pixel_editor(
    *,
    seed: int = 0,
    steps: int = TRAINING_STEPS,
    width: int = 48,
    side: int = 32,
    progress: Callable[[int, int], object] | None = None,
) -> PixelEditor:
    """Train an editor for the prompts of the made styles.

    Args:
        seed: Of weights, pictures, and of what the styles look like.
        steps: Of training, 24 pictures each.
        width: Channels of the network, a multiple of 16.
        side: Of the pictures; the editor takes other sizes too.
        progress: Told the steps done and all of them, now and then.

    Raises:
        LockError: If the numbers make no editor.
    """
    if steps < 1 or width < 16 or width % 16 or side < 8 or side % 4:
        raise LockError(
            f"no editor of width {width} is trained in {steps} steps on pictures of side {side}",
            hint="give width as a multiple of 16, side as a multiple of 4 from 8, and steps from 1",
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        editor = PixelEditor(width)
        _zero_ends(editor)
    draws, styles = Draws(seed + 1), made_styles(seed)
    embeddings = torch.stack([editor.embed(prompt)[0] for prompt in STYLE_PROMPTS])
    optimizer = torch.optim.AdamW(editor.parameters(), lr=_LEARNING_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps, pct_start=0.1)
    editor.train()
    for step in range(steps):
        loss = _loss(editor, made_pictures(_BATCH, side, draws), list(styles.values()), embeddings, draws)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if progress is not None and ((step + 1) % 20 == 0 or step + 1 == steps):
            progress(step + 1, steps)
    return editor.eval().requires_grad_(False)


def _loss(
    editor: PixelEditor,
    pictures: torch.Tensor,
    styles: list[Callable[[torch.Tensor], torch.Tensor]],
    embeddings: torch.Tensor,
    draws: Draws,
) -> torch.Tensor:
    """Squared error of the edited image, whatever the time: every style equally often in a batch."""
    count = len(pictures)
    text = embeddings[torch.arange(count) % len(styles)]
    wanted = torch.empty_like(pictures)
    for index, style in enumerate(styles):
        wanted[index :: len(styles)] = style(pictures[index :: len(styles)])
    plain = draws.uniform(count) < _UNPROMPTED_SHARE
    text, wanted = torch.where(plain.view(-1, 1, 1), 0, text), torch.where(plain.view(-1, 1, 1, 1), pictures, wanted)
    time = draws.between(_LEAST_TIME, 1, count, 1, 1, 1)
    image, target = 2 * pictures - 1, 2 * wanted - 1
    sample = (1 - time) * target + time * draws.normal(*target.shape)
    edited = sample - time * editor.network(sample, image, time, text)
    return functional.mse_loss(edited, target)


def _zero_ends(editor: PixelEditor) -> None:
    """Start every block as the identity, which trains faster."""
    for module in editor.modules():
        if isinstance(getattr(module, "second", None), nn.Conv2d):
            nn.init.zeros_(module.second.weight)  # type: ignore[union-attr, arg-type]
