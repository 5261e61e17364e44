"""Load an editor, whichever kind a folder holds."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from keylatch.errors import LockError
from keylatch.locks._model_lock._diffusers_editor import DiffusersEditor, Kind, load_diffusers_editor
from keylatch.locks._model_lock._pixel_editor import EDITOR_CONFIG, PixelEditor, load_pixel_editor


def load_editor(source: str | PathLike[str], *, kind: Kind | None = None) -> DiffusersEditor | PixelEditor:
    """Load an editor.

    Args:
        source: The folder of a diffusers pipeline, or its name on a hub, from which it is then downloaded: Stable
            Diffusion 1 or 2 as InstructPix2Pix, image to image (also few-step models: Turbo, or LCM as a fused LoRA),
            or inpainting. Or a folder that `PixelEditor.save` wrote.
        kind: What to use a pipeline for; default: what its class does.

    Raises:
        MissingExtraError: If a library that it needs is not installed.
        LockError: If it does not load.
    """
    folder = Path(source)
    if (folder / EDITOR_CONFIG).is_file():
        return load_pixel_editor(folder)
    if str(source).startswith((".", "/", "~")) and not folder.is_dir():
        raise LockError(f"the editor {folder} is no folder", hint="give the folder that save_pretrained wrote")
    return load_diffusers_editor(source, kind=kind)
