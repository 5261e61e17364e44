"""What the audit tests share: a small locked model that is really trained, attacks that are not, and a clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import networks
from keylatch.audit import (
    AuditImages,
    Case,
    Given,
    LabeledImages,
    Outcome,
    Owner,
    Resources,
    Scene,
    Target,
    Variant,
    load_target,
    owner_from_vault,
)  # fmt: skip
from keylatch.audit._cells import CellStore
from keylatch.audit._clock import Clock
from keylatch.audit._plan import Cell, plan_cells
from keylatch.audit._runner import Runner
from keylatch.audit._timetable import Timetable
from keylatch.exporters import export, export_plain
from keylatch.keys import FileIssuerKey, Vault, write_vault
from keylatch.locks import Locked

NOTHING = Variant(Given())


@dataclass(frozen=True)
class Shipped:
    """A folder with digits.latch, its vault and issuer key, plain/model.onnx, images.npy and labels.npy."""

    folder: Path
    target: Target
    owner: Owner


def ship(locked: Locked, digits: networks.Digits, folder: Path) -> Shipped:
    """Export a locked network of the digits into a folder, with all that `keylatch audit` can be given."""
    exported = export(locked.module, locked.secret, folder / "digits.latch", report=locked.report)
    export_plain(digits.network, networks.SPEC, folder / "plain")
    issuer = FileIssuerKey.generate()
    issuer.save(folder / "issuer.key")
    vault = Vault({"lock": locked.secret.to_arrays(), exported.model_id: dict(exported.secret_values)})
    write_vault(folder / "digits.secret", vault, issuer=issuer)
    np.save(folder / "images.npy", digits.images.numpy())
    np.save(folder / "labels.npy", digits.labels.numpy())
    target = load_target(exported.path)
    return Shipped(folder, target, owner_from_vault(vault, target))


class FakeTime:
    """Stands in for the `time` module of `_clock`; goes on only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class FakeAttack:
    """An attack that does what a test says, and remembers what it was given."""

    work: Callable[[Case], Outcome]
    budgets: Sequence[Variant] = (NOTHING,)
    name: str = "fake"
    summary: str = "Does what a test says."
    version: int = 1
    cases: list[Case] = field(default_factory=list)

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        return self.budgets

    def run(self, case: Case) -> Outcome:
        self.cases.append(case)
        return self.work(case)


@dataclass
class Watcher:
    """Remembers what it is shown."""

    titles: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def begins(self, title: str, done: int, total: int) -> None:
        self.titles.append(title)

    def notes(self, text: str) -> None:
        self.said.append(text)


def knowing(images: LabeledImages, percent: float, classes: int = 10) -> Callable[[torch.Tensor], torch.Tensor]:
    """A model that is right about so many percent of these images, and knows no others."""
    right = round(len(images) * percent / 100)
    answers = {
        image.numpy().tobytes(): int(label) if place < right else (int(label) + 1) % classes
        for place, (image, label) in enumerate(zip(images.images, images.labels, strict=True))
    }

    def predict(batch: torch.Tensor) -> torch.Tensor:
        found = torch.tensor([answers[image.numpy().tobytes()] for image in batch])
        return torch.nn.functional.one_hot(found, classes).float()

    return predict


def distinct_images(count: int, classes: int = 10, start: int = 0) -> LabeledImages:
    """(count, 3, 32, 32) images, no two alike, classes in turn."""
    images = torch.zeros(count, 3, 32, 32)
    images[:, 0, 0, 0] = torch.arange(start, start + count) / 10_000
    return LabeledImages(images, torch.arange(count) % classes)


def small_scene(target: Target, owner: Owner | None = None) -> Scene:
    """A scene of 200 images to attack with and 100 to measure on."""
    return Scene(target, AuditImages(distinct_images(200), distinct_images(100, start=500), 10), owner)


def plan(scene: Scene, attacks: Sequence[Any], seeds: Sequence[int] = (0, 1), **given: Any) -> tuple[Cell, ...]:
    resources = Resources(**{
        "pool": len(scene.images.attacker), "training_images": 200, "labeled": (), "classes": 10, "base": False,
        "owner": scene.owner is not None, **given,
    })  # fmt: skip
    return plan_cells(attacks, [], scene, resources, seeds)


def run(
    scene: Scene, attacks: Sequence[Any], folder: Any, *, seconds: float = 600.0, seeds: Sequence[int] = (0, 1)
) -> Runner:
    """Run attacks without baselines."""
    runner = Runner(scene, CellStore(folder), Timetable(Clock(seconds)), Watcher())
    runner.run(plan(scene, attacks, seeds))
    return runner
