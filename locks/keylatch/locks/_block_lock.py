"""Block transforms as a lock: a network that only understands transformed images.

Source: "Transfer Learning-Based Model Protection With Secret Key" (arXiv 2103.03525); absorbing without training is our
own derivation (docs/decisions/0013).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx, nn

from keylatch.locks._block_gate import BlockDescription, BlockGate, FloatBlockGate, block_gate
from keylatch.locks._block_transform import BlockTransform
from keylatch.locks._capture import capture, drop_unused
from keylatch.locks._gate_sites import multiply_adds_of
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._lock_proof import CHECK_IMAGES, device_of, images_for, prove, reference_outputs
from keylatch.locks._locked import Locked
from keylatch.locks._locked_module import LockedModule
from keylatch.locks._patchify_stem import absorb as absorb_into_stem
from keylatch.locks._report import BlockReport, LockReport
from keylatch.locks._sealing import find_layers
from keylatch.locks._secret import LockSecret


def block_lock(
    model: nn.Module | torch.export.ExportedProgram, spec: InputSpec, transform: BlockTransform, *, absorb: bool = False
) -> Locked:
    """Lock a network with a keyed block transform in front of it.

    Args:
        model: Trained on transformed images, as `fine_tune` gives it; or any network with a patchify stem, with
            `absorb`. In evaluation mode; it is copied, not changed.
        spec: Size and value range of its images.
        transform: The key.
        absorb: Let the stem absorb the transform, in a second and without training. Alone it is weak where the
            original weights are public: the columns of the two stems match (combine it with `code_lock`).

    Returns:
        The locked module, its secret and a report.

    Raises:
        LockError: If images do not consist of whole blocks, the stem cannot absorb the transform, or the network does
            not care for the transform.
    """
    graph, outputs = capture(model, spec)
    multiply_adds = multiply_adds_of(graph)
    images = images_for(spec, None).to(device_of(graph))[:CHECK_IMAGES]
    front = front_of(graph, spec, transform, absorb=absorb, images=images)
    module = LockedModule(spec, drop_unused(graph), outputs, blocks=front.gate)
    secret = LockSecret.of_blocks(transform)
    errors = prove(module, secret, images, front.reference)
    parameters = sum(layer.parameters for layer in find_layers(graph))
    return Locked(module, secret, LockReport((), 0, 0.0, multiply_adds, *errors, parameters, blocks=front.report))


@dataclass(frozen=True, slots=True)
class Front:
    """A block transform in front of a network.

    Attributes:
        gate: It, locked.
        transform: The key.
        reference: What the original answers to plain images, and a network trained on transformed ones to those.
        report: For the lock's report.
    """

    gate: BlockGate
    transform: BlockTransform
    reference: list[torch.Tensor]
    report: BlockReport

    def transformed(self, images: torch.Tensor) -> torch.Tensor:
        """What the network is shown of images."""
        with torch.no_grad():
            shown: torch.Tensor = self.gate.keyed(self.transform)(images)
        return shown


def front_of(
    graph: fx.GraphModule, spec: InputSpec, transform: BlockTransform, *, absorb: bool, images: torch.Tensor
) -> Front:
    """Put a transform in front of a network; with `absorb` its stem is changed in place.

    Args:
        graph: The network.
        spec: Its images.
        transform: The key.
        absorb: Whether its stem has to absorb the transform.
        images: A few plain ones, for the reference.
    """
    gate = block_gate(BlockDescription(transform.steps, transform.block_size), spec, spec).to(device_of(graph))
    report = BlockReport(tuple(transform.steps), transform.block_size, transform.log2_key_space, absorb)
    if not absorb:
        front = Front(gate, transform, [], report)
        front.reference.extend(reference_outputs(graph, front.transformed(images)))
        return front
    reference = reference_outputs(graph, images)
    absorb_into_stem(graph, transform, gate if isinstance(gate, FloatBlockGate) else None)
    return Front(gate, transform, reference, report)
