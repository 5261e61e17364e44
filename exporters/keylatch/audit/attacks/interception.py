"""What one intercepted input is worth: the image as it enters the network on a licensed device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target
from keylatch.audit.attacks._block_key import block_tensors
from keylatch.audit.attacks._code_key import centered, code_key
from keylatch.audit.attacks.trigger_inversion import find_pasted
from keylatch.audit.onnx_network import OnnxNetwork
from keylatch.errors import InputError

_UNLABELED = 200
_PAIRS = 10
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class Interception:
    """Reads the key out of inputs that were seen before and after a licensed device transformed them.

    Whoever sees them can read the device's memory, as a key holder with root can. No lock on the input withstands
    that; it is measured so that nobody believes otherwise.
    """

    name: str = "interception"
    needs: str = "a key holder's inputs, perhaps unlabeled images"
    summary: str = "Compares inputs before and after the gate; it takes a key holder's own access to make them."
    version: int = 2

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """One pair with other images, and ten pairs alone, for locks that paste; known-pair is for block transforms."""
        if not resources.owner or block_tensors(target) or transformed_image(target) is None:
            return []
        if resources.pool < _PAIRS:
            return []
        givens = [Given(pairs=1, unlabeled=min(_UNLABELED, resources.pool)), Given(pairs=_PAIRS)]
        return [Variant(given, label="a key holder's access", weight=0.3, counts=False) for given in givens]

    def run(self, case: Case) -> Outcome:
        """Recover the patch, and open with it."""
        network, pasted = case.target.network(), find_pasted(case.target)
        if pasted is None:
            return Outcome(network, note="a changed image is not inverted for this lock yet")
        before = case.images[: case.variant.given.pairs]
        size, spec = network.initializer(pasted.patch).shape, case.target.spec
        patch, mask = recovered_patch(size, spec.layout, before, _transform(case, before))
        network.substitute(pasted.patch, patch.to(network.initializer(pasted.patch).dtype))
        network.substitute(pasted.mask, mask)
        opened = centered(network.float(), case.target, case.images, code_key(case.target))
        return Outcome(opened, note=f"a patch of {int(mask.sum())} pixels was read")


def recovered_patch(
    size: Sequence[int], layout: str, before: torch.Tensor, after: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pasted patch and its mask, from what is the same in all changed images.

    It lies where images are changed; a pixel in it that differs between changed images was not pasted over.

    Args:
        size: The patch's shape, which is public.
        layout: Of the images, ``NCHW`` or ``NHWC``.
        before: (k, *shape) images.
        after: (k, *shape) as they entered the network.
    """
    axes, channels = ((2, 3), 1) if layout == "NCHW" else ((1, 2), 3)
    changed = before != after
    for axis in axes:
        places = changed.movedim(axis, 0).flatten(1).any(1).nonzero().flatten().tolist()
        start = min(places[0] if places else 0, before.shape[axis] - size[axis])
        before, after = (each.narrow(axis, start, size[axis]) for each in (before, after))
    constant = (after == after[:1]).all(0, keepdim=True)
    kept = (after == before).all(0, keepdim=True) & (before != before[:1]).any(0, keepdim=True)
    return after[:1].clone(), (constant & ~kept).all(channels, keepdim=True)


def transformed_image(target: Target) -> str | None:
    """The value that holds the changed image: the first of the image's shape that all its gate tensors have entered.

    None if no gate tensor meets the image before the first weights.
    """
    network, names = target.network(), set(target.gate_names)
    reached: dict[str, frozenset[str]] = {
        network.input_name: frozenset(),
        **{name: frozenset({name}) for name in names},
    }
    for node in network.nodes:
        sources = [reached[name] for name in node.inputs if name in reached]
        if sources and not _has_weights(network, node.op, node.inputs):
            reached.update(dict.fromkeys(node.outputs, frozenset().union(*sources)))
    image = torch.zeros(1, *target.spec.shape, dtype=target.spec.torch_dtype)
    produced = [output for node in network.nodes for output in node.outputs if reached.get(output)]
    with torch.no_grad():
        values = network.values(image, produced)
    whole = [name for name in produced if values[name].shape == image.shape]
    return next((name for name in whole if reached[name] == reached[whole[-1]]), None) if whole else None


def _has_weights(network: OnnxNetwork, op: str, inputs: Sequence[str]) -> bool:
    return op in _WEIGHTED and any(name in network.initializer_names for name in inputs)


def _transform(case: Case, images: torch.Tensor) -> torch.Tensor:
    """What the device's memory shows."""
    name = transformed_image(case.target)
    if case.owner is None or name is None:
        raise InputError("intercepted inputs need the owner's secrets, got none", hint="audit with the vault")
    with torch.no_grad():
        return case.owner.unlocked(case.target).values(images, [name])[name]
