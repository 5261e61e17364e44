"""Feature maps that a network is to have under a key: those it had on plain images, before.

Labels alone teach little: a thousand images are a thousand numbers. What a network's stages gave for the plain images
are thousands of numbers for each, at places that blocks of pixels do not leave. Source: "FitNets" (arXiv 1412.6550);
ours has the network itself for a teacher, and no layer in between. Masks take hints too where their source is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional

from keylatch.errors import LockError
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._key_training_data import normalized

# Beside the labels' loss. Chosen on training images that were held out (CIFAR-10, 2,500 to train on, shf): 77.9, 82.8
# and 83.8 % for 1, 4 and 16; 69.5 without hints.
_KEY_WEIGHT = 16.0
_MAP_DIMENSIONS = (3, 4)  # tokens (N, T, D) and feature maps (N, C, h, w)


@dataclass(frozen=True, slots=True, eq=False)
class Hints:
    """What the teacher's layers answer to plain images, and how far a student is from it.

    Attributes:
        teacher: Knows plain images; in evaluation mode, never trained.
        layers: Names of the layers, in the teacher and in the student.
        spec: Size and normalization of the images.
        weight: Of the distance.
    """

    teacher: nn.Module
    layers: tuple[str, ...]
    spec: InputSpec
    weight: float
    _student: dict[str, torch.Tensor] = field(default_factory=dict)

    @contextmanager
    def watching(self, student: nn.Module) -> Iterator[None]:
        """Note what the student's layers answer in the `with` block."""
        with _noting(student, self.layers, self._student):
            yield

    def distance(self, pixels: torch.Tensor, hinted: torch.Tensor | None = None) -> torch.Tensor:
        """Squared error of the student's last answers, in variances of the teacher's; summed over the layers, weighted.

        Args:
            pixels: (N, C, H, W) uint8, or float in [0, 1]: the plain images of the first N that the student was just
                shown.
            hinted: (N,) bool, which of them get a hint: without one, an answer counts as right. None for all.

        Returns:
            () float32.
        """
        chosen = slice(len(pixels)) if hinted is None else hinted
        share = 1.0 if hinted is None else float(hinted.float().mean())
        if not share:
            return torch.zeros((), device=pixels.device)
        wanted: dict[str, torch.Tensor] = {}
        with torch.no_grad(), _noting(self.teacher, self.layers, wanted):
            self.teacher(normalized(pixels[chosen], self.spec))
        errors = [_error(self._student[layer][chosen], wanted[layer]) for layer in self.layers]
        return torch.stack(errors).sum() * (self.weight * share)


def hint_layers(network: nn.Module, spec: InputSpec) -> tuple[str, ...]:
    """The layers to take hints from: the last one of each size of feature map that is smaller than the image.

    For a transformer whose tokens keep their number that is its last layer.

    Args:
        network: From an image batch to its answer.
        spec: Size and normalization of its images.

    Returns:
        Names of `network.named_modules()`, in the order in which they run.

    Raises:
        LockError: If no layer gives one tensor of feature maps.
    """
    layers = map_layers(network, spec)
    if not layers:
        raise LockError("no layer of the model gives feature maps or tokens", hint="train it without hints")
    return layers


def map_layers(network: nn.Module, spec: InputSpec) -> tuple[str, ...]:
    """As `hint_layers`; nothing if no layer gives one tensor of feature maps."""
    last: dict[tuple[int, ...], str] = {}
    for name, found in _maps(network, [name for name, _ in network.named_modules() if name], spec).items():
        size = _size(found)
        if 1 < torch.Size(size).numel() < spec.height * spec.width:
            last.pop(size, None)
            last[size] = name
    return tuple(last.values())


def take_hints(teacher: nn.Module, layers: Sequence[str], spec: InputSpec, *, weight: float = _KEY_WEIGHT) -> Hints:
    """Hints of some layers.

    Raises:
        LockError: If the teacher has not these layers, or one gives no feature maps.
    """
    require_hint_layers(teacher, layers, spec)
    return Hints(teacher.eval().requires_grad_(requires_grad=False), tuple(layers), spec, weight)


def require_hint_layers(network: nn.Module, layers: Sequence[str], spec: InputSpec) -> None:
    """Raise LockError unless a network has these layers, and each gives feature maps; it is left as it was."""
    names = dict(network.named_modules())
    for layer in layers:
        if layer not in names:
            raise LockError(f"the model has no layer {layer}", hint="see model.named_modules(), or hint_layers()")
    seen = _maps(network, layers, spec)
    for layer in layers:
        if layer not in seen:
            raise LockError(f"layer {layer} gives no feature maps or tokens", hint="take some of hint_layers()")


def _maps(network: nn.Module, layers: Sequence[str], spec: InputSpec) -> dict[str, torch.Tensor]:
    """Maps and tokens of some layers for two black images; the network is left as it was."""
    seen: dict[str, torch.Tensor] = {}
    was_training, device = network.training, next(network.parameters()).device
    with torch.no_grad(), _noting(network.eval(), layers, seen):
        network(torch.zeros(2, *spec.shape, device=device))
    network.train(was_training)
    return seen


def _size(found: torch.Tensor) -> tuple[int, ...]:
    """Places of an output: (h, w), or (T,)."""
    return tuple(found.shape[2:]) if found.dim() == 4 else (found.shape[1],)


def _error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    wide = teacher.float()
    return functional.mse_loss(student.float(), wide) / wide.var().clamp_min(torch.finfo(torch.float32).tiny)


@contextmanager
def _noting(network: nn.Module, layers: Sequence[str], into: dict[str, torch.Tensor]) -> Iterator[None]:
    """Keep the layers' outputs that are maps or tokens, by name, in the order in which they run."""

    def noted(name: str) -> object:
        def note(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.dim() in _MAP_DIMENSIONS:
                into.pop(name, None)
                into[name] = output

        return note

    handles = [network.get_submodule(layer).register_forward_hook(noted(layer)) for layer in layers]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
