"""Read a block transform's key off a stem that absorbed it, by comparison with the public base's stem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target
from keylatch.audit.attacks._assignment import greedy_assignment
from keylatch.audit.attacks._block_key import (
    BlockKey,
    block_key,
    opened_with_blocks,
    required_block_key,
)
from keylatch.audit.attacks._weight_layers import effective_value, weight_layers
from keylatch.audit.attacks._withheld import folded
from keylatch.audit.attacks.base_matching import open_with_base
from keylatch.audit.onnx_network import OnnxNetwork
from keylatch.errors import InputError
from keylatch.locks import BlockTransform
from keylatch.locks._block_layout import space_to_depth

_UNLABELED = 200
_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class StemMatch:
    """A stem beside the base's.

    Attributes:
        transform: The key that makes them most alike.
        similarity: Mean size of the correlation of a column with its partner, 0 to 1.
    """

    transform: BlockTransform
    similarity: float

    @property
    def moved(self) -> int:
        """How many entries the key moves or negates; none if the stem is the base's own."""
        order = self.transform.permutation
        return int(((order != torch.arange(len(order))) | self.transform.negated).sum())


@dataclass(frozen=True, slots=True)
class StemMatching:
    """Pairs the columns of the locked stem with those of the base's by correlation, whose sign tells negation.

    Absorbing moves the weights of a patchify stem as the transform moves pixels, up to a factor for each column
    (docs/decisions/0013): who has the weights as they were needs no more than to look where they went. A code beside
    the transform is then read off the base too, as base-matching does.
    """

    name: str = "stem-matching"
    needs: str = "the public base; unlabeled images for a code beside it"
    summary: str = "Finds where each column of the public network's stem went in the locked one, which is the key."
    version: int = 1

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """One, for block transforms without ffx of networks whose first layer reads whole blocks."""
        key = block_key(target)
        if key is None or not key.is_linear or not resources.base or not _stems(target.network(), target, key):
            return []
        unlabeled = min(_UNLABELED, resources.pool) if target.gates else 0
        return [Variant(Given(unlabeled=unlabeled, base=True), weight=0.5)]

    def run(self, case: Case) -> Outcome:
        """Match, and open.

        Raises:
            InputError: The base is not there.
        """
        if case.base is None:
            raise InputError("matching needs the public base, got none", hint="audit with the base model")
        match = match_stems(case.target, case.base.float())
        opened = opened_with_blocks(case.target, match.transform)
        note = f"{match.moved} columns moved or turned, the stems then correlate at {match.similarity:.2f}"
        if not case.target.gates:
            return Outcome(opened, note=note)
        unwrapped = replace(case, target=replace(case.target, _network=opened))
        matches, network = open_with_base(unwrapped, case.base.float())
        return Outcome(network, note=note, signs=tuple(each.signs for each in matches))


def match_stems(target: Target, base: OnnxNetwork) -> StemMatch:
    """The key that makes the locked stem most alike to a layer of the base; that of no change if none has its shape."""
    key = required_block_key(target)
    (stem, *_) = _stems(target.network().float(), target, key)
    others = [other for other in _stems(base, target, key) if other.shape == stem.shape]
    matches = [_match(key, stem, other) for other in others]
    return max(matches, key=lambda each: each.similarity, default=StemMatch(key.nothing(), 0.0))


def _match(key: BlockKey, stem: torch.Tensor, other: torch.Tensor) -> StemMatch:
    """Columns are (outputs x places) vectors, one for each of a block's entries."""
    correlation = _unit(stem) @ _unit(other).T
    fitting = correlation.abs() if key.has("np") else correlation
    order = greedy_assignment(fitting) if key.has("shf") else torch.arange(key.entries)
    partners = correlation[torch.arange(key.entries), order]
    negated = partners < 0 if key.has("np") else torch.zeros(key.entries, dtype=torch.bool)
    transform = replace(key.nothing(), permutation=order, negated=negated)
    return StemMatch(transform, float(partners.abs().mean()))


def _stems(network: OnnxNetwork, target: Target, key: BlockKey) -> list[torch.Tensor]:
    """(p, outputs x places) float64 columns of each convolution that reads the image's channels in whole blocks."""
    image = torch.zeros((1, *target.spec.shape), dtype=target.spec.torch_dtype)
    found = []
    for layer in weight_layers(network):
        strides = [int(side) for side in layer.node.attributes.get("strides", ())]
        whole = bool(strides) and not any(side % key.description.block_size for side in strides)
        weight = effective_value(network, layer.weight, image)
        if whole and layer.node.op == "Conv" and list(weight.shape[1:]) == [key.channels, *strides]:
            # As the lock folds a normalization behind the stem, whose factors differ from output to output.
            plain = folded(network, layer, image)[0].reshape(weight.shape)
            found.append(space_to_depth(plain, key.description.block_size).movedim(1, 0).flatten(1))
    return found


def _unit(columns: torch.Tensor) -> torch.Tensor:
    lengths: torch.Tensor = torch.linalg.vector_norm(columns, dim=1, keepdim=True)
    return columns / lengths.clamp(min=_SMALLEST)
