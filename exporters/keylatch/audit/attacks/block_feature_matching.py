"""Search for a block transform's key by what the public base makes of the plain images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target
from keylatch.audit.attacks._block_key import Behind, lone_block_key, opened_with_blocks, pixels_of, required_block_key
from keylatch.audit.attacks._weight_layers import weight_layers
from keylatch.audit.attacks.block_key_gradient import RESTARTS, STEPS, best_descent
from keylatch.audit.onnx_network import OnnxNetwork
from keylatch.errors import InputError

_UNLABELED = 1000
_LEAST_VARIANCE = 1e-12
_TOKENS_RANK, _MAP_RANK = 3, 4


@dataclass(frozen=True, slots=True)
class BlockFeatureMatching:
    """Descends as block-key-gradient does, until the feature maps are those of the base.

    A network that was fine-tuned from the base, above all one that was taught the base's feature maps, has them again
    under the right key. That needs no label, and says more about a key than a thousand labels do.
    """

    name: str = "block-feature-matching"
    needs: str = "the public base, unlabeled images"
    summary: str = "Searches a block key by gradient until feature maps are those of the public network."
    version: int = 1

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """One, for locks that are a block transform without ffx, whose tables have no slope."""
        key = lone_block_key(target)
        if key is None or not key.is_linear or not resources.base:
            return []
        settings = {"steps": STEPS, "restarts": RESTARTS}
        return [Variant(Given(unlabeled=min(_UNLABELED, resources.pool), base=True), settings=settings, weight=8)]

    def run(self, case: Case) -> Outcome:
        """Descend from each start, and open with the key whose feature maps are nearest.

        Raises:
            InputError: The base is not there.
        """
        if case.base is None:
            raise InputError("matching needs the public base, got none", hint="audit with the base model")
        behind, base = Behind(case.target), case.base.float().requires_grad_(requires_grad=False)
        pixels = pixels_of(case.target.spec, case.images[:1])
        pairs = paired_features(behind, base, pixels, case.images[:1])
        if not pairs:
            opened = opened_with_blocks(case.target, required_block_key(case.target).nothing())
            return Outcome(opened, note="no layer of the base is like one of the model's")
        own, others = ([pair[side] for pair in pairs] for side in (0, 1))

        def distance(shown: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                wanted = base.values(case.images[chosen], others)
            found = behind.values(shown, own)
            return torch.stack([_error(found[a], wanted[b]) for a, b in pairs]).mean()

        return best_descent(case, distance, "distance")


def paired_features(
    behind: Behind, base: OnnxNetwork, pixels: torch.Tensor, image: torch.Tensor
) -> list[tuple[str, str]]:
    """Outputs of layers that stand at the same place in both networks and have the same shape, smaller than the image.

    Args:
        behind: The locked network.
        base: The public one.
        pixels: (1, channels, height, width) in [0, 1].
        image: (1, *shape), the same as the base takes it.

    Returns:
        Names of values, the locked network's and the base's.
    """
    layers, others = weight_layers(behind.network), weight_layers(base)
    if len(layers) != len(others):
        return []
    names = [(layer.node.outputs[0], other.node.outputs[0]) for layer, other in zip(layers, others, strict=True)]
    with torch.no_grad():
        wanted = base.values(image, [name for _, name in names])
        found = behind.values(pixels, [name for name, _ in names])
    places = pixels.shape[2] * pixels.shape[3]
    return [(a, b) for a, b in names if found[a].shape == wanted[b].shape and 1 < _places(found[a]) < places]


def _places(value: torch.Tensor) -> int:
    """Of feature maps (1, c, h, w), or tokens (1, t, c); 1 for anything else."""
    return value[0, 0].numel() if value.ndim == _MAP_RANK else value.shape[1] if value.ndim == _TOKENS_RANK else 1


def _error(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(found, wanted) / wanted.var().clamp_min(_LEAST_VARIANCE)
