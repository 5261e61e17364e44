"""What an attack is: what the attacker is given, how it runs, what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import torch

from keylatch.audit._clock import Clock
from keylatch.audit._owner import Owner
from keylatch.audit._target import Target
from keylatch.audit.onnx_network import OnnxNetwork

Predict: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Given:
    """What the attacker holds besides the artifact's files.

    Attributes:
        unlabeled: Images without labels.
        labeled: Images with labels.
        pairs: Images that the attacker saw before and after the owner's device transformed them.
        base: Whether the public network that the model was fine-tuned from is at hand.
        key: A key that is nearly or not at all the right one, in words. Nobody but the owner can make a near one.
    """

    unlabeled: int = 0
    labeled: int = 0
    pairs: int = 0
    base: bool = False
    key: str = ""

    def __str__(self) -> str:
        parts = [
            f"{self.unlabeled} unlabeled images" if self.unlabeled else "",
            f"{self.labeled} labeled images" if self.labeled else "",
            f"{self.pairs} intercepted inputs" if self.pairs else "",
            "the public base" if self.base else "",
            self.key,
        ]
        return ", ".join(part for part in parts if part) or "the artifact only"


@dataclass(frozen=True, slots=True)
class Variant:
    """One budget of an attack.

    Attributes:
        given: What the attacker holds.
        label: What sets it apart from the attack's other variants, e.g. ``10 % of the clean data``.
        settings: The attack's own numbers; part of the cache's key.
        weight: Its share of the time, relative to the others'.
        counts: Whether an outsider can do this; near keys are measured, but nobody without the key has one.
    """

    given: Given
    label: str = ""
    settings: Mapping[str, float | int | str] = field(default_factory=dict)
    weight: float = 1.0
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Resources:
    """What is there for attacks to ask for: number of images in the attacker's pool, and so on.

    Attributes:
        pool: Labeled images that attackers may draw from.
        training_images: Size of the model's training set, of which budgets are shares; the pool's, if not known.
        labeled: Numbers of labeled images to attack with, ascending.
        classes: Number of classes.
        base: Whether a public base is there.
        owner: Whether the owner's secrets are there.
    """

    pool: int
    training_images: int
    labeled: tuple[int, ...]
    classes: int
    base: bool
    owner: bool


@dataclass(frozen=True, slots=True)
class Case:
    """One run of one variant with one seed. Test images are not in it: the harness alone has them.

    Attributes:
        target: The locked model, as an outsider has it.
        variant: What is run.
        images: (n, *shape) the attacker's images as the model takes them: `given.unlabeled` or `given.labeled` many
            (the larger of the two, if both).
        labels: (given.labeled,) int64, of the first images.
        classes: Number of classes.
        generator: The only source of randomness, seeded.
        clock: When to stop; an attack that has to stop returns the best it has, `truncated`.
        base: The public base, if `given.base`.
        owner: The owner's secrets, only where `given.key` or `given.pairs` asks for what they make.
    """

    target: Target
    variant: Variant
    images: torch.Tensor
    labels: torch.Tensor
    classes: int
    generator: torch.Generator
    clock: Clock
    base: OnnxNetwork | None = None
    owner: Owner | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attack came to.

    Attributes:
        predict: The recovered model: images as the model takes them, to (n, classes) scores.
        cost: What it took, e.g. ``{"steps": 160}``; time is measured by the harness.
        note: What the attacker found, in words.
        signs: For each gate in the network's order the recovered (channels,) signs, for the harness to compare.
        truncated: Whether the clock ended it early.
    """

    predict: Predict
    cost: Mapping[str, int | float] = field(default_factory=dict)
    note: str = ""
    signs: tuple[torch.Tensor, ...] = ()
    truncated: bool = False


class Attack(Protocol):
    """An attack. One class, one file."""

    @property
    def name(self) -> str:
        """Short, lower case, with hyphens: ``gate-removal``."""

    @property
    def needs(self) -> str:
        """What the attacker is given besides the artifact, in a few words."""

    @property
    def summary(self) -> str:
        """One sentence: what the attacker does."""

    @property
    def version(self) -> int:
        """Raised when results change, so that cached ones are measured again."""

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """The budgets to run; none where the attack does not apply."""

    def run(self, case: Case) -> Outcome:
        """Attack."""
