"""How masks are learned."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import nn

from keylatch.errors import LockError
from keylatch.locks._augmentation import Augment
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._mask_pruning._domains import Domains, Setting
from keylatch.locks._mask_pruning._objective import Objective
from keylatch.locks._mask_pruning._scores import Granularity
from keylatch.locks._training_checkpoint import Run, describe_model
from keylatch.locks._training_device import training_precision

_WARM_UP = 1 / 2  # share of the epochs in which generators are trained before masks are


@dataclass(frozen=True, slots=True)
class LearningSettings:
    """How masks are learned; see `learn_domain_masks`."""

    setting: Setting
    granularity: Granularity
    layers: tuple[str, ...] | None
    objective: Objective
    epochs: int
    batch: int
    learning_rate: float
    device: torch.device
    mixed_precision: bool | None
    seed: int
    augment: Augment

    @property
    def precision(self) -> torch.dtype:
        """What to compute in; float32 for no mixed precision."""
        return training_precision(self.mixed_precision, self.device)

    def autocast(self) -> torch.autocast:
        """Mixed precision, if it was asked for."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    @property
    def warm_up(self) -> int:
        """Epochs in which only generators are trained."""
        return 0 if self.setting == "SA" else min(self.epochs - 1, round(_WARM_UP * self.epochs))

    def rate(self, epoch: int) -> float:
        """Learning rate of the scores in an epoch, down along a cosine."""
        done = (epoch - self.warm_up) / (self.epochs - self.warm_up)
        return self.learning_rate * (1 + math.cos(math.pi * max(0.0, done))) / 2

    def require(self, spec: InputSpec) -> None:
        """Refuse what cannot be learned with."""
        if spec.dtype != "float32":
            raise LockError(
                f"the network takes {spec.dtype} images, learning masks needs float32",
                hint="give the float32 network; raw bytes are a choice of the export",
            )
        if self.granularity not in ("element", "channel"):
            raise LockError(f"granularity is {self.granularity!r}", hint="take 'element' or 'channel'")
        least = {"epochs": (self.epochs, 1), "batch": (self.batch, 2), "seed": (self.seed, 0)}
        for name, (value, lowest) in least.items():
            if value < lowest:
                raise LockError(f"{name} is {value}, expected {lowest} or more", hint=f"give {name}={lowest} or more")
        positive = {
            "learning_rate": self.learning_rate,
            "target_weight": self.objective.target_weight,
            "target_cap": self.objective.target_cap,
        }
        for name, number in positive.items():
            if not 0 < number < math.inf:
                raise LockError(f"{name} is {number}, expected more than 0", hint="leave it out for the paper's value")

    def describe(self, model: nn.Module, spec: InputSpec, domains: Domains) -> Run:
        """What another run would differ in; no image."""
        sets = [domains.source.digest if domains.source is not None else b"made"]
        sets += [name.encode() + data.digest for name, data in domains.targets.items()]
        return {
            "setting": self.setting, "granularity": self.granularity, "layers": str(self.layers),
            "objective": str(self.objective), "epochs": self.epochs, "batch": self.batch,
            "learning_rate": self.learning_rate, "device": self.device.type, "precision": str(self.precision),
            "augment": getattr(self.augment, "__qualname__", type(self.augment).__qualname__),
            "seed": self.seed, "spec": str(spec.to_json()), "domains": ", ".join(domains.targets),
            **describe_model(model), "pixels or labels": hashlib.sha256(b"\n".join(sets)).digest(),
        }  # fmt: skip
