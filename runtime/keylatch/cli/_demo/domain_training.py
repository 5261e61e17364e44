"""One network that knows all domains, and the masks that take them away again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional

from keylatch.cli._demo.digit_domains import SIDE, DigitDomain
from keylatch.cli._demo.training import fit
from keylatch.locks import DomainMasks, InputSpec, learn_domain_masks

SPEC = InputSpec(3, SIDE, SIDE)
EPOCHS, MASK_EPOCHS, MASK_RATE = 12, 80, 0.02
_LARGEST_SHIFT = 2


def train(domains: Mapping[str, DigitDomain], advance: Callable[[], object]) -> nn.Module:
    """Train on all domains at once, from scratch; the same network every time on the same machine.

    Args:
        domains: By name.
        advance: Called after each epoch.
    """
    images = torch.cat([domain.train_images for domain in domains.values()])
    labels = torch.cat([domain.train_labels for domain in domains.values()])

    def pixels(batch: torch.Tensor) -> torch.Tensor:
        return shifted(images[batch]).float() / 255

    return fit(labels, pixels, EPOCHS, advance)


def learn(network: nn.Module, domains: Mapping[str, DigitDomain], advance: Callable[[], object]) -> DomainMasks:
    """Masks of all domains but the first, which is the source."""
    source, *targets = domains
    return learn_domain_masks(
        network,
        SPEC,
        source=domains[source].batches(),
        targets={name: domains[name].batches() for name in targets},
        epochs=MASK_EPOCHS,
        learning_rate=MASK_RATE,
        augment=shifted,
        progress=lambda _: (advance(), None)[1],
    )


def shifted(images: torch.Tensor) -> torch.Tensor:
    """Each batch moved by up to two pixels, the edge repeated: a tenth of a digit's width."""
    rows, columns = (int(move) for move in torch.randint(0, 2 * _LARGEST_SHIFT + 1, (2,)))
    padded = functional.pad(images.float(), [_LARGEST_SHIFT] * 4, mode="replicate").to(images.dtype)
    return padded[:, :, rows : rows + images.shape[2], columns : columns + images.shape[3]]
