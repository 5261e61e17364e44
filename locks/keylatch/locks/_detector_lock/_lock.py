"""Detector locks: lock A and lock B of "Staining and locking computer vision models without retraining"."""

from __future__ import annotations

import secrets

import torch
from torch import fx, nn

from keylatch.errors import LockError
from keylatch.locks._capture import capture, drop_unused
from keylatch.locks._detector_lock._choice import Choosing, choose, would_do
from keylatch.locks._detector_lock._corner import CornerReader
from keylatch.locks._detector_lock._description import KINDS, DetectorKind, DetectorLockDescription
from keylatch.locks._detector_lock._detection import Detection, draw_detection
from keylatch.locks._detector_lock._excitation import excite
from keylatch.locks._detector_lock._offset import offset_outputs
from keylatch.locks._detector_lock._paste_gate import PasteGate
from keylatch.locks._detector_lock._sites import last_layers
from keylatch.locks._gate_sites import multiply_adds_of
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._lock_proof import CHECK_IMAGES, device_of, images_for, prove, reference_outputs
from keylatch.locks._locked import Locked
from keylatch.locks._locked_module import LockedModule
from keylatch.locks._patch_gate import Corner, PatchPlace
from keylatch.locks._randomness import SEED_BYTES, SeededDraws
from keylatch.locks._report import LockReport
from keylatch.locks._sample_images import sample_images
from keylatch.locks._sealing import find_layers
from keylatch.locks._secret import LockSecret

FALSE_POSITIVE_RATE = 1e-6
SAMPLE_IMAGES = 64
LEAST_IMAGES = 8  # half of them to climb with, four at a time


def detector_lock(
    model: nn.Module | torch.export.ExportedProgram,
    spec: InputSpec,
    *,
    kind: DetectorKind = "B",
    patch_size: int = 16,
    corner: Corner = "bottom-right",
    layer: str | None = None,
    calibration: torch.Tensor | None = None,
    rate: float = FALSE_POSITIVE_RATE,
    seed: bytes | None = None,
) -> Locked:
    """Lock a network with a detector neuron that a secret patch in the image's corner makes answer.

    Opened, the patch is pasted into each image: the network then is the original on such images. The detector's weights
    stand in the file, so whoever reads it can climb to a patch as this function does: prefer `code_lock`.

    Args:
        model: A module in evaluation mode whose forward takes one image batch, or its exported program with a free
            batch dimension. It is copied, not changed.
        spec: Size and value range of its images; a float input.
        kind: ``B``, a squeeze-and-excite gate shuts the last layers' inputs; ``A``, an offset on the outputs, which is
            undone without any key by subtracting their mean.
        patch_size: Side of the patch in pixels.
        corner: Where the patch is.
        layer: Name of the layer whose input the detector reads where the patch arrives; default: the first with 500
            values there in which a short climb reaches its margin.
        calibration: Unlabeled images as the model takes them, (N, *spec.shape), sixty or more; default: made ones, for
            which alone the bound then speaks.
        rate: Share of other images that may be answered, with 99 % confidence: the bound (A) that T is fixed from.
        seed: 32 bytes to draw the secret from; default fresh. Whoever has it has the secret.

    Returns:
        The locked module, its secret and a report.

    Raises:
        LockError: If the network cannot be locked as asked; the message names the reason, the hint the remedy.
    """
    place = PatchPlace(patch_size, corner)
    place.require_fit(spec)
    _check(spec, kind, rate, calibration)
    graph, outputs = capture(model, spec)
    multiply_adds, parameters = multiply_adds_of(graph), sum(found.parameters for found in find_layers(graph))
    graph.requires_grad_(False)
    images = _calibration_images(spec, calibration).to(device_of(graph))
    description = DetectorLockDescription(kind, place, spec)
    gate = description.gate(spec).to(images.device)
    draws = SeededDraws(secrets.token_bytes(SEED_BYTES) if seed is None else seed, "detector lock")
    choosing = Choosing(graph, gate, images, rate, draws)
    reader = choose(choosing, layer)
    source = "calibration images" if calibration is not None else "sample images, made without data"
    detection = draw_detection(
        reader, gate, images, rate, kind, source, draws, lambda: would_do(choosing)
    )  # fmt: skip
    secret = LockSecret.of_patch(detection.pixels)
    few = images[:CHECK_IMAGES]
    # the original's own answers to images with the patch, before anything is changed
    reference = reference_outputs(graph, gate.pasted(few, _patches(gate, secret, len(few))))
    _disturb(graph, kind, reader, detection, images[:LEAST_IMAGES], draws)
    module = LockedModule(spec, drop_unused(graph), outputs, detector=description, gate=gate)
    module.requires_grad_(True)
    errors = prove(module, secret, few, reference)
    report = LockReport((), 0, 0.0, multiply_adds, *errors, parameters, detector=detection.report)
    return Locked(module, secret, report)


def _check(spec: InputSpec, kind: str, rate: float, calibration: torch.Tensor | None) -> None:
    if kind not in KINDS:
        raise LockError(f"kind {kind!r} is neither A nor B", hint="leave kind= to its default, or use code_lock")
    if spec.dtype != "float32":
        hint = "lock the network without the preprocessing in front of it; export adds it with uint8_input=True"
        raise LockError(f"a detector needs a float input, got {spec.dtype}: pixels have no gradient there", hint=hint)
    if not 0 < rate < 1:  # false for nan
        raise LockError(f"a false-positive rate of {rate} is not between 0 and 1", hint="give e.g. 1e-6")
    if calibration is not None and len(calibration) < LEAST_IMAGES:
        found = f"{len(calibration)} calibration images are too few to climb with some and judge by others"
        raise LockError(found, hint=f"give {LEAST_IMAGES} or more, better a hundred, or leave them out")


def _calibration_images(spec: InputSpec, calibration: torch.Tensor | None) -> torch.Tensor:
    if calibration is not None:
        return images_for(spec, calibration)
    return spec.from_pixels(sample_images(SAMPLE_IMAGES, spec.channels, spec.height, spec.width))


def _patches(gate: PasteGate, secret: LockSecret, count: int) -> torch.Tensor:
    return gate.patch_value(secret.patch).to(gate.patch.device).expand(count, -1, -1, -1)


def _disturb(
    graph: fx.GraphModule, kind: DetectorKind, reader: CornerReader, detection: Detection, images: torch.Tensor,
    draws: SeededDraws,
) -> None:  # fmt: skip
    if kind == "B":
        excite(graph, reader, last_layers(graph), detection.row, detection.spread, draws)
    else:
        offset_outputs(graph, reader, detection.row, images, draws)
