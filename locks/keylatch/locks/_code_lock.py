"""The code lock: lock a network in seconds, without data and without training.

Source: "Staining and locking computer vision models without retraining" (arXiv 2507.22000) for the idea of a trigger
patch; the code, the sign gates and their bound are our own derivation (docs/decisions/0002).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from keylatch.errors import LockError
from keylatch.locks._block_lock import front_of
from keylatch.locks._block_transform import BlockTransform
from keylatch.locks._capture import capture, drop_unused
from keylatch.locks._centering import ChannelMeans, channel_means
from keylatch.locks._code import code_bits_for
from keylatch.locks._code_description import CodeLockDescription
from keylatch.locks._fold_batch_norm import fold_batch_norms
from keylatch.locks._gate_sites import (
    COST_SHARE,
    DEFAULT_GATES,
    MINIMUM_CHANNELS,
    GateSite,
    choose_sites,
    find_sites,
    sites_named,
)
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._lock_proof import CHECK_IMAGES, device_of, images_for, prove, reference_outputs
from keylatch.locks._locked import Locked
from keylatch.locks._locked_module import LockedModule
from keylatch.locks._patch import find_patch
from keylatch.locks._patch_gate import Corner, PatchPlace
from keylatch.locks._randomness import SEED_BYTES, SeededDraws
from keylatch.locks._report import LayerReport, LockReport
from keylatch.locks._sealing import SealedLayer, find_layers, first_layers, seal, sealed_names
from keylatch.locks._secret import LockSecret
from keylatch.locks._sign_gates import insert_gates, pad_explicitly


def code_lock(
    model: nn.Module | torch.export.ExportedProgram,
    spec: InputSpec,
    *,
    patch_size: int = 16,
    code_bits: int | None = None,
    corner: Corner = "bottom-right",
    layers: Sequence[str] | None = None,
    gates: int = DEFAULT_GATES,
    minimum_channels: int = MINIMUM_CHANNELS,
    cost_share: float = COST_SHARE,
    sealed_share: float | None = None,
    calibration: torch.Tensor | None = None,
    seed: bytes | None = None,
    blocks: BlockTransform | None = None,
    absorb: bool = False,
) -> Locked:
    """Lock a network with a code that a small patch in the image's corner carries.

    Args:
        model: A module in evaluation mode whose forward takes one image batch, or its exported program with a free
            batch dimension. It is copied, not changed.
        spec: Size and value range of its images.
        patch_size: Side of the patch in pixels.
        code_bits: Bits of the secret code; default min(256, a third of the patch's values).
        corner: Where the patch is.
        layers: Names of the layers to gate; default: chosen by depth and cost.
        gates: How many layers to choose.
        minimum_channels: Fewest input channels of a gated layer.
        cost_share: Most weights in gated layers, as a share of all; opening a model goes over them a few times.
        sealed_share: Share of the parameters, from the first layer on, that the license carries instead of the file;
            default 2 %, or 2^18 parameters (1 MiB) if that is more.
        calibration: Unlabeled images as the model takes them, (N, *spec.shape); they center the gates best.
        seed: 32 bytes to draw the secret from; default fresh. Whoever has it has the secret.
        blocks: A key of a block transform that stands in front of the network as well.
        absorb: Let the network's patchify stem absorb it; otherwise the network was trained on transformed images.

    Returns:
        The locked module, its secret and a report.

    Raises:
        LockError: If the network cannot be locked as asked; the message names the reason, the hint the remedy.
    """
    place = PatchPlace(patch_size, corner)
    place.require_fit(spec)
    pixels = spec.channels * patch_size**2
    bits = code_bits_for(pixels, code_bits)
    graph, outputs = capture(model, spec)
    sites, multiply_adds = find_sites(graph, minimum_channels=minimum_channels)
    if layers is None:
        withheld_first = {layer.name for layer in first_layers(find_layers(graph), sealed_share)}
        visible = [site for site in sites if site.name not in withheld_first] or sites  # a withheld layer needs no gate
        parameters = sum(parameter.numel() for parameter in graph.parameters())
        chosen = choose_sites(visible, parameters, gates=gates, cost_share=cost_share)
    else:
        chosen = sites_named(sites, layers)
    if not chosen:
        raise LockError("a lock needs at least one gate, got none", hint="leave gates= and layers= to their defaults")
    named = tuple((site.name, site.channels) for site in chosen)
    description = CodeLockDescription(secrets.token_bytes(SEED_BYTES), bits, place, spec, named)
    gate = description.gate(spec).to(device_of(graph))
    code = SeededDraws(secrets.token_bytes(SEED_BYTES) if seed is None else seed, "code").signs(bits)
    patch = find_patch(gate.code_map.projection, code)

    calibrated = calibration is not None
    images = images_for(spec, calibration).to(device_of(graph))
    front = None if blocks is None else front_of(graph, spec, blocks, absorb=absorb, images=images[:CHECK_IMAGES])
    plain, images = images, images if front is None else front.transformed(images)
    # the original's own answers, before anything is changed
    reference = reference_outputs(graph, images[:CHECK_IMAGES]) if front is None else front.reference
    known = fold_batch_norms(graph)
    pad_explicitly(graph, chosen)
    means = channel_means(graph, chosen, known, images, calibrated=calibrated)
    signs = gate.code_map.signs(code)
    defaults = SeededDraws(description.public_seed, "locked defaults")
    insert_gates(graph, chosen, signs, [mean.values for mean in means], defaults)
    sealable = find_layers(graph)
    chosen_layers = first_layers(sealable, sealed_share)
    names = sealed_names(chosen_layers)
    withheld = seal(graph, chosen_layers, defaults)

    secret = LockSecret(code, patch.pixels, tuple(mean.values for mean in means), withheld, blocks)
    description = replace(description, sealed=tuple(tuple(value.shape) for value in withheld))
    blocking = None if front is None else front.gate
    module = LockedModule(spec, drop_unused(graph), outputs, description=description, gate=gate, blocks=blocking)
    module.requires_grad_(True)
    errors = prove(module, secret, plain[:CHECK_IMAGES], reference)
    report = _report(chosen, means, bits, patch.margin, multiply_adds, errors, sealable, withheld)
    report = replace(report, sealed_names=names, blocks=None if front is None else front.report)
    return Locked(module, secret, report)


def _report(
    sites: Sequence[GateSite],
    means: Sequence[ChannelMeans],
    bits: int,
    margin: float,
    multiply_adds: int,
    errors: tuple[float, float],
    sealable: Sequence[SealedLayer],
    withheld: Sequence[torch.Tensor],
) -> LockReport:
    layers = tuple(
        LayerReport(site.name, site.channels, site.parameters, site.depth, mean.source)
        for site, mean in zip(sites, means, strict=True)
    )
    parameters = sum(layer.parameters for layer in sealable)
    return LockReport(
        layers, bits, margin, multiply_adds, *errors, parameters, sum(value.numel() for value in withheld)
    )
