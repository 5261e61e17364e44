"""Locked digits, split for an attack: what the tests of attacks share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import networks
from keylatch.audit._attack import Attack, Case, Given, Outcome, Predict, Resources, Variant
from keylatch.audit._clock import Clock
from keylatch.audit._owner import Owner
from keylatch.audit._target import Target, load_target
from keylatch.audit._training import accuracy
from keylatch.audit.onnx_network import OnnxNetwork, load_onnx_network
from keylatch.exporters import export, export_plain

POOL = 300


@dataclass(frozen=True)
class World:
    """A locked network, its owner, and images.

    Attributes:
        target: The locked model.
        owner: Its secrets.
        images: (n, 3, 32, 32) float32; the first `POOL` are the attacker's, the rest are measured on.
        labels: (n,) int64.
        base: The network before it was locked, as a public base.
    """

    target: Target
    owner: Owner
    images: torch.Tensor
    labels: torch.Tensor
    base: OnnxNetwork

    @property
    def resources(self) -> Resources:
        return Resources(POOL, POOL, (30, 150), 10, base=True, owner=True)

    def variants(self, attack: Attack) -> list[Variant]:
        return list(attack.variants(self.target, self.resources))

    def case(self, variant: Variant, *, seed: int = 0, seconds: float = 60, **changes: Any) -> Case:
        """A case as the harness draws it."""
        given = variant.given
        count = max(given.unlabeled, given.labeled, given.pairs)
        fields: dict[str, Any] = {
            "target": self.target,
            "variant": variant,
            "images": self.images[:count],
            "labels": self.labels[: given.labeled],
            "classes": 10,
            "generator": torch.Generator().manual_seed(seed),
            "clock": Clock(seconds),
            "base": self.base if given.base else None,
            "owner": self.owner if given.key or given.pairs else None,
        }
        return Case(**{**fields, **changes})

    def run(self, attack: Attack, given: Given | None = None, **options: Any) -> Outcome:
        """Run an attack's variant with these givens; default: its first."""
        variants = self.variants(attack)
        return attack.run(self.case(next(v for v in variants if given is None or v.given == given), **options))

    def accuracy(self, predict: Predict) -> float:
        """Percent, on images that no attacker saw."""
        return accuracy(predict, self.images[POOL:], self.labels[POOL:])

    def right_signs(self, signs: tuple[torch.Tensor, ...]) -> list[float]:
        """For each gate the share of signs that are right."""
        return [float((a == b).float().mean()) for a, b in zip(signs, self.owner.signs(self.target), strict=True)]


def make_world(digits: networks.Digits, folder: Path, *, precision: str = "float32", **options: Any) -> World:
    """Lock the trained digits network and export it.

    Args:
        digits: Network and images.
        folder: An empty one.
        precision: Of the artifact.
        options: Of `code_lock`.
    """
    locked = networks.lock(digits.network, **{"gates": 3, "cost_share": 1.0, "sealed_share": 0.0, **options})
    exported = export(locked.module, locked.secret, folder / "digits.latch", report=locked.report, precision=precision)
    export_plain(digits.network, networks.SPEC, folder / "plain")
    target = load_target(folder / "digits.latch")
    values = {name: exported.secret_values[name] for name in target.gate_names}
    base = load_onnx_network(folder / "plain" / "model.onnx")
    return World(target, Owner(values, locked.secret), digits.images, digits.labels, base)


@contextmanager
def fan_in(units: int) -> Iterator[None]:
    """Locks made and attacked here have signs that are products of this many thresholds, not of five."""
    with mock.patch("keylatch.locks._code.FAN_IN", units):
        yield


@contextmanager
def least_bits(bits: int) -> Iterator[None]:
    """Locks made here may have codes this short."""
    with mock.patch("keylatch.locks._code.MINIMUM_BITS", bits):
        yield
