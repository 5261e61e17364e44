"""A key drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target
from keylatch.audit.attacks._block_key import block_key, block_values, lone_block_key
from keylatch.audit.attacks._code_key import CodeKey, centered, code_key
from keylatch.audit.onnx_network import OnnxNetwork
from keylatch.locks._patch import find_patch

_IMAGES = 200


@dataclass(frozen=True, slots=True)
class RandomKey:
    """Fills the gate tensors with a random key of the right kind; a new one for each seed."""

    name: str = "random-key"
    needs: str = "unlabeled images"
    summary: str = "Fills the gate tensors with random values of the right kind; a code lock's means are estimated."
    version: int = 1

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """One, for every locked model that has gate tensors; images only where means can be estimated from them.

        For locks that are a block transform, random-block-key draws a key that is one.
        """
        if not target.gate_names or lone_block_key(target) is not None:
            return []
        images = min(_IMAGES, resources.pool) if code_key(target) is not None else 0
        return [Variant(Given(unlabeled=images, key="a random key"), weight=0.2)]

    def run(self, case: Case) -> Outcome:
        """Draw a key and put it in."""
        key = code_key(case.target)
        if key is None or not len(case.images):
            return Outcome(_with_random_tensors(case))
        network = with_code(case.target, key, key.random_code(case.generator))
        blocks = block_key(case.target)
        if blocks is not None:
            for name, value in block_values(case.target, blocks.random(case.generator)).items():
                network.substitute(name, value)
        return Outcome(centered(network, case.target, case.images, key))


def with_code(target: Target, key: CodeKey, code: torch.Tensor) -> OnnxNetwork:
    """The network with a patch that carries a code; centers as they were."""
    patch = find_patch(key.gate.code_map.projection, code)
    network = target.network().float()
    network.substitute("gate.patch", key.gate.patch_value(patch.pixels))
    network.substitute("gate.mask", torch.ones_like(key.gate.mask))
    return network


def _with_random_tensors(case: Case) -> OnnxNetwork:
    network = case.target.network()
    for name in case.target.gate_names:
        network.substitute(name, resampled(network.initializer(name), case.generator))
    return network


def resampled(default: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random tensor of the kind of another: another permutation, other bits, whole numbers or floats as large."""
    if default.is_floating_point():
        return _normal_like(default, generator)
    if _is_permutation(default):
        return torch.randperm(len(default), generator=generator).to(default.dtype)
    if default.dtype == torch.bool:
        return torch.randint(2, default.shape, generator=generator).bool()
    low, high = int(default.min()), int(default.max())
    return torch.randint(low, max(high, low + 1) + 1, default.shape, generator=generator).to(default.dtype)


def _normal_like(default: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    values = default.double()
    spread = float(values.std(correction=0)) or float(values.abs().max()) or 1.0  # a constant default tells no spread
    drawn = torch.randn(default.shape, generator=generator, dtype=torch.float64) * spread + values.mean()
    return drawn.to(default.dtype)


def _is_permutation(tensor: torch.Tensor) -> bool:
    whole = tensor.dtype in (torch.int32, torch.int64) and tensor.dim() == 1 and len(tensor) > 1
    return whole and torch.equal(tensor.sort().values.long(), torch.arange(len(tensor)))
