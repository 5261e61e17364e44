"""What an attacker puts into the gates without a key: assumed signs, and channel means estimated from images.

A gated layer gets g (a - mu) instead of its input a. The means mu are withheld, but they are means of values that the
network itself computes: with signs assumed for the earlier gates, anybody with images can estimate them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from keylatch.audit._gates import Gate
from keylatch.audit.onnx_network import OnnxNetwork
from keylatch.errors import InputError

_BATCH = 50


def estimate_centers(network: OnnxNetwork, gates: Sequence[Gate], images: torch.Tensor) -> None:
    """Put the channel means of each gate's source in place of its center, gate after gate.

    A later gate is measured with the earlier centers already in place. Gates without a center are left alone.

    Args:
        network: Changed in place.
        gates: In the network's order.
        images: (n, *shape) as the model takes them, n >= 1.
    """
    for gate in gates:
        if gate.center is not None:
            center = network.initializer(gate.center)
            network.substitute(gate.center, _means(network, gate.source, center.shape, images).to(center.dtype))


def center_on_batches(network: OnnxNetwork, gates: Sequence[Gate]) -> None:
    """Center each gate's data on the batch that is being run: `estimate_centers` inside the forward pass.

    It can be differentiated, and needs no pass for each gate. For searches; a model to keep has constant centers.
    """
    for gate in gates:
        if gate.center is not None:
            network.insert_after(gate.data, BatchCentering(network.initializer(gate.center).shape))


class BatchCentering(nn.Module):
    """Subtracts the batch's means.

    Args:
        shape: Of the means, e.g. (1, channels, 1, 1).
    """

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """(n, ...) data without its means over all axes in which `shape` is 1."""
        return data - data.mean(_averaged(data, self.shape), keepdim=True)


def set_signs(
    network: OnnxNetwork, gates: Sequence[Gate], signs: Sequence[torch.Tensor], image: torch.Tensor | None = None
) -> None:
    """Fix each gate's control to constant signs, whatever the image.

    Args:
        network: Changed in place.
        gates: In the network's order.
        signs: For each gate (channels,); a parameter is registered as one and trained in the control's shape.
        image: (n, *shape) some images; only needed for gates without a center.

    Raises:
        InputError: A gate has no center, and there is no image to find its shape with.
    """
    for gate, shape, sign in zip(gates, control_shapes(network, gates, image), signs, strict=True):
        shaped = sign.detach().to(gate_dtype(network, gate)).reshape(shape).clone()
        network.substitute(gate.control, nn.Parameter(shaped) if isinstance(sign, nn.Parameter) else shaped)


def control_shapes(network: OnnxNetwork, gates: Sequence[Gate], image: torch.Tensor | None = None) -> list[torch.Size]:
    """Shapes of the gates' controls for one image, e.g. (1, channels, 1, 1).

    Args:
        network: Only read.
        gates: Any.
        image: (n, *shape) some images; only needed for gates without a center.

    Raises:
        InputError: A gate has no center, and there is no image to find its shape with.
    """
    return [_control_shape(network, gate, image) for gate in gates]


def gate_channels(network: OnnxNetwork, gates: Sequence[Gate], image: torch.Tensor | None = None) -> list[int]:
    """Number of channels of each gate."""
    return [shape.numel() for shape in control_shapes(network, gates, image)]


def gate_dtype(network: OnnxNetwork, gate: Gate) -> torch.dtype:
    """The type that a gate computes in."""
    if gate.center is not None:
        return network.initializer(gate.center).dtype
    return next(parameter.dtype for parameter in network.parameters() if parameter.is_floating_point())


def _control_shape(network: OnnxNetwork, gate: Gate, image: torch.Tensor | None) -> torch.Size:
    if gate.center is not None:
        return network.initializer(gate.center).shape
    if image is None:
        raise InputError(f"gate {gate.node} has no center that tells its shape", hint="give an image to run")
    with torch.no_grad():
        return network.values(image[:1], [gate.control])[gate.control].shape


def _means(network: OnnxNetwork, source: str, shape: torch.Size, images: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(shape, dtype=torch.float64, device=images.device)
    with torch.no_grad():
        for part in torch.split(images, _BATCH):
            value = network.values(part, [source])[source].double()
            total += value.mean(_averaged(value, shape), keepdim=True).reshape(shape) * len(part)
    return total / len(images)


def _averaged(value: torch.Tensor, shape: torch.Size) -> list[int]:
    """Axes of a value that means of a shape are taken over: those that the shape lacks or has once."""
    lacking = value.dim() - len(shape)
    return [axis for axis in range(value.dim()) if axis < lacking or shape[axis - lacking] == 1]
