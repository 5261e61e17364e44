"""Gathering and scattering by index."""

from __future__ import annotations

import torch
from torch import Tensor

from keylatch.audit.onnx_network._operator import Operation, Site, operator

_REDUCE = {"add": "sum", "mul": "prod", "min": "amin", "max": "amax"}


def _from_start(indices: Tensor, size: int) -> Tensor:
    """Negative indices count from the end."""
    return torch.where(indices < 0, indices + size, indices)


@operator("Gather")
def _gather(site: Site) -> Operation:
    axis, indices = site.attribute("axis", 0), site.constants.get(1)
    if indices is not None and indices.dim() == 0:
        place = int(indices.item())
        return lambda value, _: value.select(axis, place)
    positive = indices is not None and (indices.numel() == 0 or int(indices.min()) >= 0)

    def run(value: Tensor, where: Tensor) -> Tensor:
        size, place = value.shape[axis], axis % value.dim()
        flat = (where if positive else _from_start(where, size)).reshape(-1)
        found = value.index_select(place, flat)
        return (
            found if where.dim() == 1 else found.reshape(value.shape[:place] + where.shape + value.shape[place + 1 :])
        )

    return run


@operator("GatherElements")
def _gather_elements(site: Site) -> Operation:
    axis = site.attribute("axis", 0)
    return lambda value, where: torch.gather(value, axis, _from_start(where, value.shape[axis]).long())


@operator("GatherND")
def _gather_nd(site: Site) -> Operation:
    shared = site.attribute("batch_dims", 0)

    def run(value: Tensor, where: Tensor) -> Tensor:
        batches = [
            torch.arange(size, device=value.device).reshape(-1, *[1] * (where.dim() - 2 - axis))
            for axis, size in enumerate(value.shape[:shared])
        ]
        return value[(*batches, *where.long().unbind(-1))]

    return run


@operator("ScatterND")
def _scatter_nd(site: Site) -> Operation:
    reduction = site.attribute("reduction", "none")

    def run(value: Tensor, where: Tensor, updates: Tensor) -> Tensor:
        if reduction in {"none", "add"}:
            return torch.index_put(value, where.long().unbind(-1), updates, accumulate=reduction == "add")
        count = where.shape[-1]
        flat = torch.zeros_like(where[..., 0])
        for place, size in enumerate(value.shape[:count]):
            flat = flat * size + _from_start(where[..., place], size)
        rows = value.reshape(value.shape[:count].numel(), -1)
        changes = updates.reshape(flat.numel(), -1)
        index = flat.long().reshape(-1, 1).expand_as(changes)
        return rows.scatter_reduce(0, index, changes, _REDUCE[reduction]).reshape(value.shape)

    return run


@operator("ScatterElements", "Scatter")
def _scatter_elements(site: Site) -> Operation:
    axis, reduction = site.attribute("axis", 0), site.attribute("reduction", "none")

    def run(value: Tensor, where: Tensor, updates: Tensor) -> Tensor:
        index = _from_start(where, value.shape[axis]).long()
        if reduction == "none":
            return value.scatter(axis, index, updates)
        return value.scatter_reduce(axis, index, updates, _REDUCE[reduction])

    return run
