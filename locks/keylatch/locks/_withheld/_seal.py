"""The lock `seal`: a share of the weights is withheld, and plausible random ones stand in for them.

Cryptographic strength for what is withheld, without training and without data. What is left of the network is public,
so how far fine-tuning repairs it is a matter of measurement (docs/results.md).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

import torch
from torch import fx, nn

from keylatch.errors import LockError
from keylatch.locks._capture import capture, drop_unused
from keylatch.locks._gate_sites import multiply_adds_of
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._lock_proof import CHECK_IMAGES, device_of, images_for, prove, reference_outputs
from keylatch.locks._locked import Locked
from keylatch.locks._locked_module import LockedModule
from keylatch.locks._randomness import SEED_BYTES, SeededDraws
from keylatch.locks._report import LockReport
from keylatch.locks._sealing import find_layers, sealed_names
from keylatch.locks._secret import LockSecret
from keylatch.locks._withheld._choice import Granularity, Order, choose_parts
from keylatch.locks._withheld._influence import IMAGES, weight_influences
from keylatch.locks._withheld._part import Part
from keylatch.locks._withheld._parts import Parts
from keylatch.locks._withheld._report import SealReport
from keylatch.locks._withheld._stand_ins import plausible

_BYTES = 4  # float32


def seal_lock(
    model: nn.Module | torch.export.ExportedProgram,
    spec: InputSpec,
    *,
    share: float,
    by: Order = "influence",
    granularity: Granularity = "weights",
    calibration: torch.Tensor | None = None,
    seed: bytes | None = None,
    limit_bytes: int | None = None,
) -> Locked:
    """Lock a network by withholding a share of its weights.

    Args:
        model: A module in evaluation mode whose forward takes one image batch, or its exported program with a free
            batch dimension. It is copied, not changed.
        spec: Size and value range of its images.
        share: Of the weights of all convolutions and linear layers, above 0; 1 withholds their biases too.
        by: ``influence``, what changes the outputs most for each weight; ``first``, from the first layer; ``random``.
        granularity: Single ``weights``; ``rows``, the weights of one output channel; or whole ``tensors``.
        calibration: Unlabeled images as the model takes them, (N, *spec.shape), to measure influence on; default: made
            ones.
        seed: 32 bytes that the stand-ins and a random choice are drawn from; nothing secret follows from it; default
            fresh.
        limit_bytes: Refuse to withhold more than that, in bytes of float32.

    Returns:
        The locked module, its secret and a report.

    Raises:
        LockError: The share is no share, more than the limit, or too small to matter.
    """
    if not 0 < share <= 1:  # false for nan
        raise LockError(f"a share of {share} is not above 0 and at most 1", hint="give e.g. 0.01 for one per cent")
    _check_choice(by, granularity)
    graph, outputs = capture(model, spec)
    images = images_for(spec, calibration).to(device_of(graph))[:IMAGES]
    reference = reference_outputs(graph, images[:CHECK_IMAGES])
    draws = SeededDraws(secrets.token_bytes(SEED_BYTES) if seed is None else seed, "sealed weights")
    source = "made images" if calibration is None else "calibration images"
    multiply_adds = multiply_adds_of(graph)
    module = LockedModule(spec, drop_unused(graph), outputs)
    sealed = seal_weights(
        module, graph, share, by, granularity, images, draws, source=source, limit_bytes=limit_bytes
    )  # fmt: skip
    module.requires_grad_(True)
    secret = LockSecret.of_parts(sealed.originals)
    errors = prove(module, secret, images[:CHECK_IMAGES], reference)
    report = LockReport((), 0, 0.0, multiply_adds, *errors, sealed.weights, sealed.withheld)
    return Locked(module, secret, replace(report, seal=sealed.report))


@dataclass(frozen=True, slots=True, repr=False)
class Sealed:
    """Weights that were taken out of a network.

    Attributes:
        originals: They, float32, in the order of the parts; secret.
        report: How they were chosen.
        weights: How many there were to choose from.
        withheld: How many were taken.
    """

    originals: tuple[torch.Tensor, ...]
    report: SealReport
    weights: int
    withheld: int


def seal_weights(
    module: LockedModule,
    graph: fx.GraphModule,
    share: float,
    by: Order,
    granularity: Granularity,
    images: torch.Tensor,
    draws: SeededDraws,
    *,
    source: str,
    within: str = "",
    limit_bytes: int | None = None,
) -> Sealed:
    """Take weights out of a locked module that withholds none yet, in place, and put stand-ins there.

    Args:
        module: The locked module.
        graph: Its network, open, `(image) -> tuple of tensors`, with parameters of the same names.
        share: As for `seal_lock`.
        by: The same.
        granularity: The same.
        images: To measure influence on.
        draws: For the stand-ins and a random choice.
        source: Where the images come from, for the report.
        within: What the names of the parameters to choose from begin with.
        limit_bytes: As for `seal_lock`.

    Raises:
        LockError: If there is nothing to withhold, or it is more than the limit.
    """
    parts, total = _choose(graph, share, by, granularity, images, draws, within)
    withheld = sum(part.weights for part in parts)
    if limit_bytes is not None and withheld * _BYTES > limit_bytes:
        raise LockError(
            f"a share of {share} withholds {withheld * _BYTES:,} bytes, expected at most {limit_bytes:,}",
            hint="give a smaller share, or no limit: values that are too large for licenses go into a side file",
        )
    module.withheld = Parts("seal", parts)
    named = zip(module.withheld.names(), parts, strict=True)
    originals = tuple(value.float().cpu() for value in module.withheld.read(module.body).values())
    stand_ins = {name: plausible(part, module.body.get_parameter(part.parameter), draws) for name, part in named}
    module.withheld.write(module.body, stand_ins)
    measured = source if by == "influence" and share < 1 else ""
    layers = tuple(part.parameter for part in parts)
    facts = SealReport(by, granularity, withheld / total, withheld * _BYTES, layers, measured)
    return Sealed(originals, facts, total, withheld)


def _check_choice(by: str, granularity: str) -> None:
    if by not in ("influence", "first", "random"):
        raise LockError(f"weights cannot be chosen by {by!r:.20}", hint="use influence, first or random")
    if granularity not in ("weights", "rows", "tensors"):
        raise LockError(f"weights cannot be withheld by {granularity!r:.20}", hint="use weights, rows or tensors")


def _choose(
    graph: fx.GraphModule,
    share: float,
    by: Order,
    granularity: Granularity,
    images: torch.Tensor,
    draws: SeededDraws,
    within: str,
) -> tuple[tuple[Part, ...], int]:
    """The parts to withhold, and how many weights there are to choose from."""
    layers = [layer for layer in find_layers(graph) if layer.name.startswith(within)]
    if not layers:
        raise LockError(
            "the network has no convolution or linear layer of its own to withhold",
            hint="weights that are used twice, or computed, cannot be withheld",
        )
    total = sum(layer.parameters for layer in layers)
    shapes = {layer.name: tuple(graph.get_parameter(layer.name).shape) for layer in layers}
    if share == 1:
        shapes = {name: tuple(graph.get_parameter(name).shape) for name in sealed_names(layers)}
        return tuple(Part.whole(name, shape) for name, shape in shapes.items()), total
    influences = weight_influences(graph, shapes, images, draws) if by == "influence" else {}
    return choose_parts(shapes, round(share * total), by, granularity, draws, influences), total
