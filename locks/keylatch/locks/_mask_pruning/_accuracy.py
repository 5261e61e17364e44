"""What withholding costs the source, and what it costs the targets: the metrics of arXiv 2403.04149."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from keylatch.errors import LockError
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._key_training_data import ImageSet, normalized, read_images
from keylatch.locks._mask_pruning._domains import Loader
from keylatch.locks._training_device import training_device

Role = Literal["source", "target", "third"]
_BATCH = 256


@dataclass(frozen=True, slots=True)
class DomainAccuracy:
    """Two networks on one domain, top-1 in percent.

    Attributes:
        name: The domain.
        role: ``source``, ``target``, or ``third`` for one that neither was meant.
        images: How many.
        original: Accuracy of the original.
        masked: Accuracy of the other network.
    """

    name: str
    role: Role
    images: int
    original: float
    masked: float

    @property
    def drop(self) -> float:
        """In points."""
        return self.original - self.masked

    @property
    def relative_drop(self) -> float:
        """As a share of the original's accuracy; 0 where that is 0."""
        return self.drop / self.original if self.original else 0.0

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "drop": self.drop, "relative_drop": self.relative_drop}


@dataclass(frozen=True, slots=True)
class DomainDrops:
    """Two networks on several domains.

    Attributes:
        domains: The source first, then targets, then third domains.
    """

    domains: tuple[DomainAccuracy, ...]

    @property
    def source_drop(self) -> float:
        """In points."""
        return self._mean("source", relative=False)

    @property
    def target_drop(self) -> float:
        """In points, mean over the targets."""
        return self._mean("target", relative=False)

    @property
    def st_d(self) -> float | None:
        """Relative source drop / relative target drop, lower is better; None if targets lost nothing."""
        target = self._mean("target", relative=True)
        return self._mean("source", relative=True) / target if target > 0 else None

    def _mean(self, role: Role, *, relative: bool) -> float:
        values = [d.relative_drop if relative else d.drop for d in self.domains if d.role == role]
        return sum(values) / len(values)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "source_drop": self.source_drop,
            "target_drop": self.target_drop,
            "st_d": self.st_d,
            "domains": [domain.to_json() for domain in self.domains],
        }


def measure_domains(
    original: nn.Module,
    masked: nn.Module,
    spec: InputSpec,
    domains: Mapping[str, Loader],
    *,
    source: str,
    targets: Sequence[str],
    device: str | torch.device | None = None,
) -> DomainDrops:
    """Compare a network with its original on named domains.

    Args:
        original: Before anything was withheld.
        masked: `masked_model`, or any other network for the same images and classes.
        spec: Size and normalization of the images.
        domains: Held-out images, by name: batches of pixels (N, C, H, W), uint8 or float in [0, 1], and labels (N,).
        source: The one that is to be served.
        targets: Those that are not. What is neither is reported as a third domain.
        device: Where to compute; default the GPU if there is one.

    Raises:
        LockError: A name has no domain, there is no target, or a domain is empty or of another size.
    """
    wanted = [source, *targets]
    missing = [name for name in wanted if name not in domains]
    if missing or not targets or len(set(wanted)) < len(wanted):
        what = f"no domain {missing[0]}" if missing else "no target" if not targets else "a domain named twice"
        raise LockError(f"there is {what}; given are {', '.join(domains) or 'none'}", hint="name a source and targets")
    where = training_device(device)
    networks = [copy.deepcopy(network).to(where).eval() for network in (original, masked)]
    roles: dict[str, Role] = {source: "source", **dict.fromkeys(targets, "target")}
    found = []
    for name in (*wanted, *(name for name in domains if name not in roles)):
        data = read_images(domains[name], spec, name=f"{name} domain's")
        first, second = (accuracy_on(network, spec, data, where) for network in networks)
        found.append(DomainAccuracy(name, roles.get(name, "third"), len(data), first, second))
    return DomainDrops(tuple(found))


@torch.no_grad()
def accuracy_on(network: nn.Module, spec: InputSpec, data: ImageSet, device: torch.device) -> float:
    """Top-1 in percent, of a network in evaluation mode on that device."""
    parts = zip(torch.split(data.images, _BATCH), torch.split(data.labels, _BATCH), strict=True)
    right = sum(int((network(normalized(x.to(device), spec)).argmax(1).cpu() == y).sum()) for x, y in parts)
    return 100 * right / len(data)
