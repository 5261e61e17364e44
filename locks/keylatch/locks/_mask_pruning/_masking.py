"""A network without the weights that masks withhold."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import TypeAlias

import torch
from torch import nn

from keylatch.errors import LockError

Masks: TypeAlias = Mapping[str, Mapping[str, torch.Tensor]]


def union_of_masks(masks: Masks, *, paid: Collection[str] = ()) -> dict[str, torch.Tensor]:
    """What is withheld from a license for some domains: the union of the masks of all others.

    Args:
        masks: For each domain, by parameter name, bool: True where the weight is withheld for it.
        paid: The license's domains.

    Returns:
        By parameter name, bool; nothing if all domains are paid for.

    Raises:
        LockError: A paid domain has no mask.
    """
    unknown = sorted(set(paid) - set(masks))
    if unknown:
        raise LockError(
            f"there is no domain {unknown[0]}, expected {', '.join(sorted(masks)) or 'none'}",
            hint="name domains as their masks were learned; the source itself needs none",
        )
    union: dict[str, torch.Tensor] = {}
    for domain, withheld in masks.items():
        if domain not in paid:
            for name, mask in withheld.items():
                union[name] = union[name] | mask if name in union else mask.clone()
    return union


def masked_model(model: nn.Module, masks: Masks, *, paid: Collection[str] = ()) -> nn.Module:
    """A copy of a network as a license for some domains gives it: zero where a weight is withheld.

    Args:
        model: The original.
        masks: As `learn_domain_masks` gives them.
        paid: The license's domains; with all of them the copy has the original's weights, bit by bit.

    Returns:
        The copy, in evaluation mode.

    Raises:
        LockError: A mask does not fit the network.
    """
    network = copy.deepcopy(model).eval()
    weights = dict(network.named_parameters())
    with torch.no_grad():
        for name, withheld in union_of_masks(masks, paid=paid).items():
            _require_fit(name, withheld, weights)
            weights[name].masked_fill_(withheld.to(weights[name].device), 0)
    return network


def _require_fit(name: str, mask: torch.Tensor, weights: Mapping[str, torch.Tensor]) -> None:
    if name not in weights:
        raise LockError(f"the model has no parameter {name}", hint="give the network that the masks were learned for")
    if mask.dtype != torch.bool or mask.shape != weights[name].shape:
        raise LockError(
            f"the mask of {name} is {mask.dtype} of shape {tuple(mask.shape)}, "
            f"expected bool {tuple(weights[name].shape)}",
            hint="give the network that the masks were learned for",
        )
