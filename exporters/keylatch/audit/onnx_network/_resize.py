"""Resizing images: by PyTorch's own interpolation where it means the same, else axis by axis with a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from keylatch.audit.onnx_network._operator import Ints, Operation, Site, operator
from keylatch.audit.onnx_network._resampling import Sampling, resampling_matrix

_INTERPOLATE = {("linear", 3): "linear", ("linear", 4): "bilinear", ("linear", 5): "trilinear", ("cubic", 4): "bicubic"}


@dataclass(frozen=True, slots=True)
class _Target:
    """What to resize to.

    Attributes:
        sizes: Of all axes.
        scales: Of all axes, as the graph gives them; None: sizes were given.
    """

    sizes: Ints
    scales: tuple[float, ...] | None

    def scale(self, axis: int, size: int) -> float:
        return self.sizes[axis] / size if self.scales is None else self.scales[axis]


@operator("Resize", "Upsample", host_inputs=(1, 2, 3))
def _resize(site: Site) -> Operation:
    sampling = _sampling(site)

    def run(value: Tensor, *given: Tensor | None) -> Tensor:
        target = _target(site, tuple(value.shape), given)
        fast = _interpolate(value, target, sampling)
        if fast is not None:
            return fast
        for axis, size in enumerate(value.shape):
            scale = target.scale(axis, size)
            if size != target.sizes[axis] or scale != 1.0:
                value = _along(value, axis, target.sizes[axis], scale, sampling)
        return value

    return run


def _sampling(site: Site) -> Sampling:
    old = site.node.op == "Upsample" or site.opset < 11
    sampling = Sampling(
        mode=site.attribute("mode", "nearest").replace("bilinear", "linear"),
        coordinates="asymmetric" if old else site.attribute("coordinate_transformation_mode", "half_pixel"),
        rounding="floor" if old else site.attribute("nearest_mode", "round_prefer_floor"),
        cubic=site.attribute("cubic_coeff_a", -0.75),
        inside_only=bool(site.attribute("exclude_outside", 0)),
        antialias=bool(site.attribute("antialias", 0)),
    )
    if sampling.coordinates == "tf_crop_and_resize":
        raise site.refusal("crops while it resizes")
    return sampling


def _target(site: Site, shape: Ints, given: Sequence[Tensor | None]) -> _Target:
    old = site.node.op == "Upsample" or site.opset < 11
    scales = given[0] if old and given else given[1] if len(given) > 1 else None
    sizes = given[2] if len(given) > 2 else None
    axes = [axis % len(shape) for axis in site.attribute("axes", range(len(shape)))]
    if sizes is not None and sizes.numel():
        return _to_sizes(site, shape, axes, [int(size) for size in sizes.tolist()])
    factors = [1.0] * len(shape)
    numbers = site.attribute("scales", ()) if scales is None else scales.tolist()
    for axis, number in zip(axes, numbers, strict=True):
        factors[axis] = number
    return _Target(_cut_off(shape, factors), tuple(factors))


def _cut_off(shape: Ints, scales: Sequence[float]) -> Ints:
    # An axis that stays is not computed with: torch.export would take its length, the batch's say, for a constant.
    return tuple(size if scale == 1 else int(size * scale) for size, scale in zip(shape, scales, strict=True))


def _to_sizes(site: Site, shape: Ints, axes: list[int], sizes: list[int]) -> _Target:
    policy, wanted = site.attribute("keep_aspect_ratio_policy", "stretch"), list(shape)
    if policy == "stretch":
        for axis, size in zip(axes, sizes, strict=True):
            wanted[axis] = size
        return _Target(tuple(wanted), None)
    ratios = [size / shape[axis] for axis, size in zip(axes, sizes, strict=True)]
    scale, scales = min(ratios) if policy == "not_larger" else max(ratios), [1.0] * len(shape)
    for axis in axes:
        wanted[axis], scales[axis] = int(scale * shape[axis] + 0.5), scale
    return _Target(tuple(wanted), tuple(scales))


def _interpolate(value: Tensor, target: _Target, how: Sampling) -> Tensor | None:
    """By PyTorch, where it computes the same; else None."""
    shape = tuple(value.shape)
    if target.sizes[:2] != shape[:2] or not value.is_floating_point() or how.inside_only or len(shape) not in {3, 4, 5}:
        return None
    if target.scales is None:
        size: dict[str, Any] = {"size": target.sizes[2:]}
    elif target.sizes == _cut_off(shape, target.scales):
        size = {"scale_factor": target.scales[2:], "recompute_scale_factor": False}
    else:
        return None
    if how.mode == "nearest":
        same = how.coordinates == "asymmetric" and how.rounding == "floor"
        return F.interpolate(value, **size, mode="nearest") if same and not how.antialias else None
    mode, corners = _INTERPOLATE.get((how.mode, len(shape))), how.coordinates == "align_corners"
    half = how.coordinates == "half_pixel" or (how.coordinates == "pytorch_half_pixel" and min(target.sizes[2:]) > 1)
    plain = how.cubic == -0.75 and not how.antialias
    if mode is None or not plain or not (half or (corners and target.scales is None)):
        return None
    return F.interpolate(value, **size, mode=mode, align_corners=corners)


def _along(value: Tensor, axis: int, size: int, scale: float, sampling: Sampling) -> Tensor:
    matrix = resampling_matrix(value.shape[axis], size, scale, sampling)
    if sampling.mode == "nearest":
        return value.index_select(axis, matrix.argmax(1).to(value.device))
    moved = value.movedim(axis, -1) @ matrix.t().to(value)
    return moved.movedim(-1, axis)
