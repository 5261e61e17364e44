"""Largest values, non-zero places, and sampling on a grid."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from keylatch.audit.onnx_network._convolution import symmetric
from keylatch.audit.onnx_network._operator import Operation, Site, as_ints, operator


@operator("TopK", host_inputs=(1,))
def _top_k(site: Site) -> Operation:
    axis, largest, count = site.attribute("axis", -1), bool(site.attribute("largest", 1)), site.ints("k", 1)

    def run(value: Tensor, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        wanted = (count(given) or (0,))[0]
        # A stable sort: of equal values the earlier one comes first, which torch.topk does not promise.
        ordered, places = torch.sort(value, dim=axis, descending=largest, stable=True)
        return ordered.narrow(axis, 0, wanted), places.narrow(axis, 0, wanted)

    return run


@operator("NonZero")
def _non_zero(_site: Site) -> Operation:
    return lambda value: torch.nonzero(value).t()


@operator("Compress", host_inputs=(1,))
def _compress(site: Site) -> Operation:
    axis = site.attribute("axis")

    def run(value: Tensor, condition: Tensor) -> Tensor:
        places = torch.nonzero(condition).reshape(-1).to(value.device)
        return value.reshape(-1)[places] if axis is None else value.index_select(axis, places)

    return run


@operator("NonMaxSuppression", host_inputs=(2, 3, 4))
def _non_max_suppression(site: Site) -> Operation:
    centered = bool(site.attribute("center_point_box", 0))

    def run(
        boxes: Tensor,
        scores: Tensor,
        most: Tensor | None = None,
        overlap: Tensor | None = None,
        least: Tensor | None = None,
    ) -> Tensor:
        limits = [0 if limit is None else limit.item() for limit in (most, overlap)]
        kept = [
            [image, kind, place]
            for image in range(scores.shape[0])
            for kind in range(scores.shape[1])
            for place in _suppress(
                _corners(boxes[image], centered=centered), scores[image, kind], int(limits[0]), limits[1], least
            )
        ]
        return torch.tensor(kept, dtype=torch.int64, device=boxes.device).reshape(-1, 3)

    return run


def _corners(boxes: Tensor, *, centered: bool) -> Tensor:
    """Boxes as (least, least, most, most)."""
    first, second = boxes[:, :2], boxes[:, 2:]
    if centered:
        return torch.cat((first - second / 2, first + second / 2), 1)
    return torch.cat((torch.minimum(first, second), torch.maximum(first, second)), 1)


def _suppress(boxes: Tensor, scores: Tensor, most: int, overlap: float, least: Tensor | None) -> list[int]:
    """Places of the best boxes that do not overlap better ones."""
    order = torch.sort(scores, descending=True, stable=True).indices
    if least is not None:
        order = order[scores[order] > least.item()]
    kept: list[int] = []
    while order.numel() and len(kept) < most:
        best, order = order[0], order[1:]
        kept.append(int(best))
        order = order[_overlap(boxes[best], boxes[order]) <= overlap]
    return kept


def _overlap(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union."""
    sides = (torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])).clamp(min=0)
    both = sides.prod(1)
    return both / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - both)


@operator("Col2Im", host_inputs=(1, 2))
def _col2im(site: Site) -> Operation:
    dilations, strides = site.attribute("dilations", (1, 1)), site.attribute("strides", (1, 1))
    pads = symmetric(tuple(site.attribute("pads", (0, 0, 0, 0))))
    if pads is None or len(pads) != 2:
        raise site.refusal("has uneven padding, or another number of axes than two")
    return lambda value, image, block: F.fold(value, as_ints(image), as_ints(block), dilations, pads, strides)


@operator("GridSample")
def _grid_sample(site: Site) -> Operation:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(
        site.attribute("mode", "bilinear"), site.attribute("mode", "bilinear")
    )
    padding, align = site.attribute("padding_mode", "zeros"), bool(site.attribute("align_corners", 0))
    return lambda value, grid: F.grid_sample(value, grid, mode, padding, align)
