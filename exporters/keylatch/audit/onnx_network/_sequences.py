"""Lists of tensors, which older exporters cut tensors into."""

from __future__ import annotations

import torch
from torch import Tensor

from keylatch.audit.onnx_network._operator import Operation, Site, as_ints, operator


@operator("SequenceConstruct")
def _sequence_construct(_site: Site) -> Operation:
    return lambda *values: list(values)


@operator("SplitToSequence", host_inputs=(1,))
def _split_to_sequence(site: Site) -> Operation:
    axis, keep = site.attribute("axis", 0), bool(site.attribute("keepdims", 1))

    def run(value: Tensor, split: Tensor | None = None) -> list[Tensor]:
        if split is None and not keep:
            return list(value.unbind(axis))
        sizes = 1 if split is None else int(split.item()) if split.dim() == 0 else list(as_ints(split))
        return list(torch.split(value, sizes, axis))

    return run


@operator("SequenceAt", host_inputs=(1,))
def _sequence_at(_site: Site) -> Operation:
    return lambda values, place: values[int(place.item())]


@operator("SequenceLength")
def _sequence_length(_site: Site) -> Operation:
    return lambda values: torch.tensor(len(values))


@operator("ConcatFromSequence")
def _concat_from_sequence(site: Site) -> Operation:
    axis, new = site.attribute("axis"), bool(site.attribute("new_axis", 0))
    return lambda values: torch.stack(values, axis) if new else torch.cat(values, axis)
