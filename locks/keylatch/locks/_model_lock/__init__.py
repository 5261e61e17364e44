"""ModelLock: a network that understands only images that a diffusion model edited under a secret prompt.

    _editor            what an editor is, and the edit as a module
    _schedule          a sampler as a table of numbers
    _denoising         the loop over the steps, for every editor
    _latent_edits      instruct-pix2pix, image to image, inpainting in the latents of an autoencoder
    _diffusers_editor  these three, loaded with diffusers
    _traceable         what of diffusers had to be written anew
    _weights_digest    the digest of an editor's weights
    _pixel_editor      the project's own editor, small
    _pixel_training    trains it
    _made_images       on made pictures
    _styles            and what it makes of them
    _draws             from a seed
    _varied_editor     other editors to train against
    _load_editor       an editor of either kind, from a folder

Source: "ModelLock: Locking Your Model With a Spell" (arXiv 2405.16285).
"""

from __future__ import annotations
