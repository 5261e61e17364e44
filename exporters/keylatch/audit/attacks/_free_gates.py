"""Gates cut open: numbers of the attacker's own in place of what a lock computes from the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn

from keylatch.audit._attack import Case
from keylatch.audit._gates import Gate
from keylatch.audit.attacks._code_key import centered, code_key
from keylatch.audit.attacks._weight_layers import effective_value
from keylatch.audit.onnx_network import OnnxNetwork

# Adam moves every number by about the learning rate. A sign has to go a way of 1 or 2, a weight one of 0.1.
GATE_SPEED = 20.0

Start: TypeAlias = Callable[[torch.Size], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class FreeGates:
    """Parameters in place of the gates' controls and centers.

    Attributes:
        controls: One for each float control, shaped as it is for one image; the network reads `GATE_SPEED` times it.
        centers: One for each center, likewise.
    """

    controls: tuple[nn.Parameter, ...]
    centers: tuple[nn.Parameter, ...]

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """All of them."""
        return (*self.controls, *self.centers)

    def round_to_signs(self) -> None:
        """Make each control +1 or -1."""
        with torch.no_grad():
            for control in self.controls:
                control.copy_(torch.where(control >= 0, 1.0, -1.0) / GATE_SPEED)


class Scaled(nn.Module):
    """Multiplies by a constant: the parameter before it learns that many times as fast."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        return value * self.factor


def attacked_network(case: Case) -> OnnxNetwork:
    """A fresh float32 copy of the locked network."""
    return case.target.network().float()


def steered_gates(network: OnnxNetwork, gates: Sequence[Gate], image: torch.Tensor) -> tuple[Gate, ...]:
    """The gates whose control is a float tensor: a number can be put in its place."""
    return tuple(gate for gate in gates if effective_value(network, gate.control, image).is_floating_point())


def fix_controls(network: OnnxNetwork, gates: Sequence[Gate], start: Start, image: torch.Tensor) -> None:
    """Put constants in place of the gates' controls.

    Args:
        network: Changed in place.
        gates: With float controls.
        start: The constants, from a control's shape for one image.
        image: (1, *shape) as the model takes them.
    """
    for name in dict.fromkeys(gate.control for gate in gates):
        network.substitute(name, start(effective_value(network, name, image).shape))


def free_fixed(network: OnnxNetwork, gates: Sequence[Gate], image: torch.Tensor) -> FreeGates:
    """Put parameters in place of controls and centers that are constants now, with the values they have.

    Args:
        network: Changed in place.
        gates: With float controls.
        image: (1, *shape) as the model takes them.
    """
    controls = list(dict.fromkeys(gate.control for gate in gates))
    centers = list(dict.fromkeys(gate.center for gate in gates if gate.center is not None))
    values = {name: effective_value(network, name, image) for name in (*controls, *centers)}
    # A center's numbers are as large as the data: they have to go a way of that size.
    speeds = {name: GATE_SPEED * float(values[name].abs().mean().clamp(min=1e-3)) for name in centers}
    return FreeGates(
        tuple(free_value(network, name, values[name], GATE_SPEED) for name in controls),
        tuple(free_value(network, name, values[name], speeds[name]) for name in centers),
    )


def free_gates(network: OnnxNetwork, case: Case, start: Start) -> FreeGates:
    """Cut all gates open: start the controls as told, the centers from the attacker's images.

    Args:
        network: Changed in place; gates whose control is no float are left alone.
        case: With images.
        start: The controls' first values, from a control's shape for one image.
    """
    image = case.images[:1]
    gates = steered_gates(network, case.target.gates, image)
    fix_controls(network, gates, start, image)
    put_centers(network, case)
    return free_fixed(network, gates, image)


def put_centers(network: OnnxNetwork, case: Case, gates: Sequence[Gate] | None = None) -> None:
    """Estimate the centers, gate after gate, as the network is now.

    Means that the lock measured on its own made images are measured on the same ones: these are public.

    Args:
        network: Changed in place.
        case: With images.
        gates: Some of the target's; default: all.
    """
    chosen = case.target.gates if gates is None else gates
    others = [gate for gate in case.target.gates if gate not in chosen]
    centered(network, case.target, case.images, code_key(case.target), others)


def remove_gates(network: OnnxNetwork, gates: Sequence[Gate], images: torch.Tensor) -> None:
    """Cut gates out with their centers, so that the data passes unchanged; those that reshape it stay."""
    for gate in gates:
        before, after = (effective_value(network, name, images[:1]) for name in (gate.source, gate.output))
        if before.shape == after.shape:
            network.substitute(gate.output, gate.source)


def without_effect(gate: Gate) -> float:
    """The control that lets data pass unchanged through sums, products and quotients."""
    return 0.0 if gate.op in ("Add", "Sub") else 1.0


def constant(value: float) -> Start:
    """The same number everywhere."""
    return lambda shape: torch.full(shape, value)


def random_signs(generator: torch.Generator) -> Start:
    """Signs at random."""
    return lambda shape: torch.randint(0, 2, shape, generator=generator) * 2.0 - 1.0


def free_value(network: OnnxNetwork, name: str, value: torch.Tensor, speed: float) -> nn.Parameter:
    """Put a parameter in place of a value; it learns `speed` times as fast as others."""
    parameter = nn.Parameter(value.detach().float() / speed)
    network.substitute(name, parameter)
    network.insert_after(name, Scaled(speed))
    return parameter
