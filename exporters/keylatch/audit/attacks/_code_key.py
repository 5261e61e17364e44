"""What everybody knows of a code lock: how a code becomes the gates' signs, and how means were made."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from keylatch.audit._centers import estimate_centers, set_signs
from keylatch.audit._gates import Gate
from keylatch.audit._owner import code_description
from keylatch.audit._target import Target
from keylatch.audit.onnx_network import OnnxNetwork
from keylatch.locks import InputSpec, sample_images
from keylatch.locks._lock_proof import SAMPLE_IMAGES
from keylatch.locks._patch_gate import PatchGate

_CENTERING_IMAGES = 200  # each gate takes a pass over them; more hardly move a mean
_FROM_SAMPLES = "sample images"  # the lock's word for means that were measured on its public made images


@dataclass(frozen=True, slots=True, eq=False)
class CodeKey:
    """The public side of a code lock's key.

    Attributes:
        bits: Length of the code.
        gate: The public map from patch to signs, in the input's convention.
        slices: For each gate in the network's order, where its signs stand among all.
        from_samples: For each gate, whether its means were measured on the lock's own, public images.
    """

    bits: int
    gate: PatchGate
    slices: tuple[slice, ...]
    from_samples: tuple[bool, ...]

    def signs(self, code: torch.Tensor) -> list[torch.Tensor]:
        """For each gate the (channels,) signs of a (bits,) code in {-1, +1}."""
        return self.split(self.gate.code_map.signs(code))

    def split(self, signs: torch.Tensor) -> list[torch.Tensor]:
        """All (channels,) signs of the lock, gate by gate in the network's order."""
        return [signs[part] for part in self.slices]

    def random_code(self, generator: torch.Generator) -> torch.Tensor:
        """A uniform (bits,) float32 code."""
        return torch.randint(2, (self.bits,), generator=generator) * 2.0 - 1


def code_key(target: Target) -> CodeKey | None:
    """Read the public side of a code lock; None for other locks and networks without gates."""
    return None if code_description(target) is None or not target.gates else _code_key(target)


@lru_cache(maxsize=2)
def _code_key(target: Target) -> CodeKey:
    description = code_description(target)
    assert description is not None  # noqa: S101  the caller looked
    gate = description.gate(target.spec)
    sizes = [channels for _, channels in description.layers]
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    slices = [slice(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    order = _layer_order(target, gate, slices)
    known = target.manifest.lock.get("report", {}).get("means", [])
    samples = [index < len(known) and known[index] == _FROM_SAMPLES for index in range(len(sizes))]
    return CodeKey(
        description.code_bits, gate, tuple(slices[index] for index in order), tuple(samples[index] for index in order)
    )


def opened_with_signs(
    target: Target,
    signs: Sequence[torch.Tensor],
    images: torch.Tensor,
    key: CodeKey | None = None,
    weights: Mapping[str, torch.Tensor] | None = None,
    uncentered: Collection[Gate] = (),
) -> OnnxNetwork:
    """The network with assumed signs, and channel means estimated gate after gate.

    Args:
        target: The locked model.
        signs: For each gate (channels,).
        images: (n, *shape) the attacker's.
        key: The lock's public side, if it has a code.
        weights: Withheld weights, by gate tensor name, where the attacker has something better than the file's.
        uncentered: Gates whose layers are among these weights as they were before locking: their centers are zero.
    """
    network = target.network().float()
    for name, value in (weights or {}).items():
        network.substitute(name, value.detach().to(network.initializer(name).dtype))
    set_signs(network, target.gates, signs, images)
    for gate in uncentered:
        if gate.center is not None:
            network.substitute(gate.center, torch.zeros_like(network.initializer(gate.center)))
    return centered(network, target, images, key, uncentered)


def centered(
    network: OnnxNetwork,
    target: Target,
    images: torch.Tensor,
    key: CodeKey | None,
    uncentered: Collection[Gate] = (),
) -> OnnxNetwork:
    """Estimate the centers of a network whose signs are set, in place; gives it back.

    Means that the lock measured on its own made images are measured on the same ones.
    """
    made = public_images(target) if key is not None and any(key.from_samples) else images
    for index, gate in enumerate(target.gates):
        from_samples = key is not None and key.from_samples[index]
        if gate not in uncentered:
            estimate_centers(network, [gate], made if from_samples else images[:_CENTERING_IMAGES])
    return network


def public_images(target: Target) -> torch.Tensor:
    """The made images that the lock measures means on when it has no others, as the model takes them."""
    return _made(target.spec)


@lru_cache(maxsize=2)
def _made(spec: InputSpec) -> torch.Tensor:
    return spec.from_pixels(sample_images(SAMPLE_IMAGES, spec.channels, spec.height, spec.width))


def _layer_order(target: Target, gate: PatchGate, slices: Sequence[slice]) -> list[int]:
    """For each gate in the network's order its layer's place in the description, found by what one image gives."""
    noise = torch.randint(256, (1, *_channels_first(target)), generator=torch.Generator().manual_seed(0))
    image = target.spec.from_pixels(noise.to(torch.uint8))
    controls = [each.control for each in target.gates]
    with torch.no_grad():
        found = target.network().values(image, controls)
        expected = gate(image)[0]
    layers: list[int] = []
    for control in controls:
        signs = found[control].float().flatten()
        fitting = [index for index, part in enumerate(slices) if torch.equal(expected[part], signs)]
        layers.append(fitting[0] if fitting else len(layers))
    return layers


def _channels_first(target: Target) -> tuple[int, int, int]:
    return target.spec.channels, target.spec.height, target.spec.width
