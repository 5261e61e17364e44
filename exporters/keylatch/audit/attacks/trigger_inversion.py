"""Search for the trigger in pixels, by gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._centers import center_on_batches
from keylatch.audit._target import Target
from keylatch.audit.attacks._code_key import centered, code_key
from keylatch.audit.attacks._sign_search import at_once, cross_entropy, information_loss, put
from keylatch.audit.onnx_network import OnnxNetwork

_BATCH = 64
_UNLABELED = 200
_STEPS = 120
_RESTARTS = 2
_LEARNING_RATE = 0.1


@dataclass(frozen=True, slots=True)
class Pasted:
    """A gate tensor that is pasted into the image.

    Attributes:
        patch: Its name.
        mask: Name of the gate tensor that says where.
    """

    patch: str
    mask: str


@dataclass(frozen=True, slots=True)
class TriggerInversion:
    """Descends on the pixels of the patch until the outputs look right, as backdoors are found.

    Source: Wang et al., "Neural Cleanse", IEEE S&P 2019; there the place is searched too, here it is public. Gradients
    go through the lock's thresholds straight (`OnnxNetwork.straight_through`).
    """

    name: str = "trigger-inversion"
    needs: str = "unlabeled or labeled images"
    summary: str = "Searches the patch pixel by pixel, by gradient through the gate, as backdoor triggers are found."
    version: int = 2

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """With the most labels, and without any; for locks that paste something into the image."""
        if find_pasted(target) is None:
            return []
        unlabeled = [Given(unlabeled=min(_UNLABELED, resources.pool))] if resources.pool else []
        labeled = [Given(labeled=count) for count in resources.labeled[-1:]]
        settings = {"steps": _STEPS, "restarts": _RESTARTS}
        return [Variant(given, settings=settings, weight=6) for given in (*unlabeled, *labeled)]

    def run(self, case: Case) -> Outcome:
        """Search, and open with the best patch found."""
        pasted = find_pasted(case.target)
        assert pasted is not None, "variants() gives none for other locks"  # noqa: S101
        settings, best = case.variant.settings, Found(torch.zeros(0), math.inf, 0)
        taken = 0
        for _ in range(int(settings["restarts"])):
            if case.clock.expired:
                break
            found = descend(case, pasted, int(settings["steps"]))
            taken += found.steps
            best = min(best, found, key=lambda each: each.loss)
        network = case.target.network().float()
        if len(best.patch):
            _paste(network, pasted, best.patch)
        return Outcome(
            centered(network, case.target, case.images, code_key(case.target)),
            cost={"steps": taken},
            note=f"the best patch's loss is {best.loss:.3f}",
            truncated=case.clock.expired,
        )


@dataclass(frozen=True, slots=True)
class Found:
    """Where a descent led.

    Attributes:
        patch: The best patch met, in the input's convention.
        loss: On some of the attacker's images.
        steps: How many were done.
    """

    patch: torch.Tensor
    loss: float
    steps: int


def find_pasted(target: Target) -> Pasted | None:
    """The patch and its mask, found in the graph: a `Where` that chooses between a gate tensor and the image."""
    network, names = target.network(), set(target.gate_names)
    for node in network.nodes:
        if node.op == "Where" and set(node.inputs[:2]) <= names:
            return Pasted(patch=node.inputs[1], mask=node.inputs[0])
    return None


def descend(case: Case, pasted: Pasted, steps: int) -> Found:
    """Descend from random pixels."""
    network = case.target.network().float().requires_grad_(False)
    network.straight_through = True
    network.substitute(pasted.mask, torch.ones_like(network.initializer(pasted.mask)))
    shown = put(network, pasted.patch, torch.zeros(1))
    center_on_batches(network, case.target.gates)
    pixels = torch.randn(network.initializer(pasted.patch).shape, generator=case.generator).requires_grad_()
    optimizer, best, least = torch.optim.Adam([pixels], lr=_LEARNING_RATE), torch.zeros(0), math.inf
    done = 0
    while done < steps and not case.clock.expired:
        shown.value = as_input(case.target, torch.sigmoid(pixels))
        value = _loss(case, network)
        if float(value.detach()) < least:
            best, least = shown.value.detach(), float(value.detach())
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        done += 1
    return Found(best, least, done)


def as_input(target: Target, pixels: torch.Tensor) -> torch.Tensor:
    """Pixels in [0, 1], in the image's order of axes, rounded to bytes, in the input's convention; float32.

    Args:
        target: The locked model.
        pixels: (1, *any) that broadcasts with a part of the image.
    """
    axes = (1, -1, 1, 1) if target.spec.layout == "NCHW" else (1, 1, 1, -1)
    mean, std = (torch.tensor(values).view(axes) for values in (target.spec.mean, target.spec.std))
    rounded = pixels + ((pixels * 255).round() / 255 - pixels).detach()
    return (rounded - mean) / std


def _loss(case: Case, network: OnnxNetwork) -> torch.Tensor:
    chosen = torch.randperm(len(case.images), generator=case.generator)[: at_once(case.images, _BATCH)]
    scores = network(case.images[chosen])
    return cross_entropy(scores, case.labels[chosen]) if len(case.labels) else information_loss(scores)


def _paste(network: OnnxNetwork, pasted: Pasted, patch: torch.Tensor) -> None:
    default = network.initializer(pasted.patch)
    exact = patch if default.is_floating_point() else patch.round()
    network.substitute(pasted.patch, exact.to(default.dtype))
    network.substitute(pasted.mask, torch.ones_like(network.initializer(pasted.mask)))
