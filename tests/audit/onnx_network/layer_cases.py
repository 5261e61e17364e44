"""Layers, pooling, indexing, reductions and resizing, with the inputs and attributes that exporters give them."""

from __future__ import annotations

from typing import Any

import numpy as np
from operator_cases import COUNTS, ELEMENTARY, IMAGE, POSITIVE, Case, draw, ints, number, of

BOXES = np.abs(np.concatenate((draw(2, 9, 2), draw(2, 9, 2, seed=1) + 2), 2))  # many overlap
INDEXING = [
    of("Gather", IMAGE, ints(2, 0, -1), axis=2),
    of("Gather", IMAGE, number(1, np.int64), axis=1),
    of("Gather", IMAGE, ints(0, 2, 1, 1).reshape(2, 2), axis=-1),
    of("Gather", IMAGE, number(-1, np.int64), axis=2),
    of("GatherElements", draw(3, 4), ints(0, -1, 2, 1).reshape(1, 4), axis=0),
    of("GatherND", IMAGE, ints(0, 1, 1, -1).reshape(2, 2)),
    of("GatherND", IMAGE, ints(1, 2, 0, 1).reshape(2, 2, 1), batch_dims=1),
    of("ScatterElements", draw(3, 4), ints(1, -1).reshape(1, 2), draw(1, 2), axis=1),
    *(
        of("ScatterElements", draw(3, 4), ints(1, 1).reshape(1, 2), draw(1, 2), axis=1, reduction=kind)
        for kind in ("add", "mul", "max")
    ),
    of("ScatterND", draw(4, 3), ints(1, 3).reshape(2, 1), draw(2, 3)),
    of("ScatterND", draw(4, 3), ints(1, 2).reshape(1, 2), draw(1)),
    *(
        of("ScatterND", draw(4, 3), ints(1, -3).reshape(2, 1), draw(2, 3), reduction=kind, reference_=True)
        for kind in ("add", "mul", "min")
    ),
    of("TopK", draw(3, 6), ints(2), outputs_=2),
    of("TopK", draw(3, 6), ints(2), axis=0, largest=0, outputs_=2),
    of("TopK", np.array([1, 3, 3, 2, 3], np.float32), ints(2), outputs_=2, note_="ties"),
    of("ArgMax", axis=1),
    of("ArgMin", axis=-1, keepdims=0),
    of("ArgMax", COUNTS % 2, axis=1, select_last_index=1),
    of("Compress", IMAGE, np.array([True, False, True]), axis=1),
    of("GridSample", IMAGE, np.tanh(draw(2, 4, 5, 2)) * 1.2),
    of("GridSample", IMAGE, draw(2, 4, 5, 2), padding_mode="border"),
    of("GridSample", IMAGE, draw(2, 4, 5, 2), mode="nearest", padding_mode="reflection"),
    of("GridSample", IMAGE, np.tanh(draw(2, 4, 5, 2)), mode="cubic", align_corners=1),
    of("NonMaxSuppression", BOXES, draw(2, 2, 9), ints(3), number([0.3]), number([-0.2])),
    of("NonMaxSuppression", BOXES, draw(2, 2, 9), ints(9), number([0.2]), center_point_box=1),
]

REDUCTIONS = [
    *(
        of(f"Reduce{kind}", POSITIVE, ints(2, 3))
        for kind in ("Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp")
    ),
    *(of(f"Reduce{kind}", POSITIVE, ints(1), keepdims=0) for kind in ("Sum", "Mean", "Prod", "SumSquare")),
    *(of(f"Reduce{kind}", IMAGE) for kind in ("Sum", "Max", "SumSquare")),
    of("ReduceMean", axes=[-1], keepdims=0, opset_=11),
    of("ReduceSum", IMAGE, ints(), noop_with_empty_axes=1),
    of("ReduceSum", COUNTS, ints(0)),
    of("ReduceMax", COUNTS, ints(1)),
    of("ReduceProd", IMAGE, ints(0, 2), keepdims=0),
]

LAYERS = [
    of("Conv", IMAGE, draw(4, 3, 3, 3), draw(4), pads=[1, 1, 1, 1], strides=[2, 2]),
    of("Conv", IMAGE, draw(4, 3, 3, 2)),
    of("Conv", IMAGE, draw(6, 1, 3, 3), group=3, dilations=[2, 1]),
    of("Conv", IMAGE, draw(4, 3, 3, 3), pads=[0, 1, 2, 0]),
    *(
        of("Conv", IMAGE, draw(4, 3, 4, 3), draw(4), auto_pad=mode, strides=[2, 3])
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    of("Conv", IMAGE, draw(4, 3, 3, 3), auto_pad="SAME_UPPER", dilations=[2, 2], reference_=True),
    of("Conv", draw(2, 3, 8), draw(4, 3, 3), pads=[1, 1]),
    of("Conv", draw(2, 3, 4, 5, 6), draw(4, 3, 2, 3, 3), draw(4)),
    of("ConvTranspose", IMAGE, draw(3, 4, 3, 3), draw(4), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
    of("ConvTranspose", IMAGE, draw(3, 2, 3, 3), group=3, dilations=[2, 1]),
    of("ConvTranspose", IMAGE, draw(3, 4, 3, 3), draw(4), strides=[2, 2], pads=[0, 1, 2, 0]),
    of("ConvTranspose", IMAGE, draw(3, 4, 3, 3), draw(4), strides=[2, 2], output_shape=[15, 18]),
    *(
        of("ConvTranspose", IMAGE, draw(3, 4, 3, 3), strides=[2, 2], auto_pad=mode)
        for mode in ("SAME_UPPER", "SAME_LOWER")
    ),
    of("ConvTranspose", draw(2, 3, 8), draw(3, 4, 3), strides=[2]),
    of(
        "BatchNormalization",
        IMAGE,
        draw(3),
        draw(3, seed=1),
        draw(3, seed=2),
        np.abs(draw(3, seed=3)) + 0.1,
        epsilon=1e-3,
    ),
    of("LayerNormalization", IMAGE, draw(9), draw(9, seed=1)),
    of("LayerNormalization", IMAGE, draw(3, 7, 9), axis=1),
    of("LayerNormalization", IMAGE, draw(9), draw(9, seed=1), outputs_=3, epsilon=1e-3),
    of("InstanceNormalization", IMAGE, draw(3), draw(3, seed=1)),
    of("InstanceNormalization", draw(2, 3, 8), draw(3), draw(3, seed=1)),
    of("GroupNormalization", draw(2, 6, 4, 4), draw(3), draw(3, seed=1), num_groups=3, opset_=18, reference_=True),
    of("GroupNormalization", draw(2, 6, 4, 4), draw(6), draw(6, seed=1), num_groups=3, opset_=21),
    of("RMSNormalization", IMAGE, draw(9), opset_=23),
    of("RMSNormalization", IMAGE, draw(7, 9), axis=-2, opset_=23),
    of("LpNormalization", axis=1),
    of("LpNormalization", p=1, axis=-1),
    of("MeanVarianceNormalization"),
    of("LRN", draw(2, 7, 4, 4), size=5, alpha=0.1),
    of("LRN", draw(2, 7, 4, 4), size=3, bias=2.0, beta=0.5, alpha=0.1),
    of("Attention", draw(2, 4, 5, 8), draw(2, 4, 6, 8), draw(2, 4, 6, 3), opset_=23, reference_=True),
    of(
        "Attention",
        draw(2, 5, 16),
        draw(2, 6, 8),
        draw(2, 6, 8),
        draw(5, 6),
        q_num_heads=4,
        kv_num_heads=2,
        scale=0.3,
        opset_=23,
        reference_=True,
    ),
    of(
        "Attention",
        draw(2, 4, 5, 8),
        draw(2, 4, 5, 8),
        draw(2, 4, 5, 8),
        is_causal=1,
        softcap=2.0,
        opset_=23,
        reference_=True,
    ),
    of(
        "Attention",
        draw(2, 4, 5, 8),
        draw(2, 4, 5, 8),
        draw(2, 4, 5, 8),
        draw(5, 5),
        is_causal=1,
        opset_=23,
        reference_=True,
    ),
    of(
        "Attention",
        draw(2, 4, 5, 8),
        draw(2, 4, 6, 8),
        draw(2, 4, 6, 8),
        np.triu(np.ones((5, 6), bool)),
        opset_=23,
        reference_=True,
    ),
]

POOLING = [
    of("GlobalAveragePool"),
    of("GlobalMaxPool"),
    of("GlobalAveragePool", draw(2, 3, 8)),
    *(of(op, kernel_shape=[3, 2], strides=[2, 1]) for op in ("MaxPool", "AveragePool")),
    *(of(op, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1) for op in ("MaxPool", "AveragePool")),
    *(of(op, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 2, 0]) for op in ("MaxPool", "AveragePool")),
    *(of(op, kernel_shape=[3, 3], strides=[2, 3], pads=[0, 0, 1, 1], ceil_mode=1) for op in ("MaxPool", "AveragePool")),
    *(
        of(op, kernel_shape=[3, 3], strides=[2, 2], auto_pad=mode)
        for op in ("MaxPool", "AveragePool")
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    *(
        of("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=pads, count_include_pad=1)
        for pads in ([1, 1, 1, 1], [0, 1, 2, 0])
    ),
    of("MaxPool", kernel_shape=[2, 2], dilations=[2, 3]),
    of("AveragePool", kernel_shape=[2, 2], dilations=[2, 3]),
    of("MaxPool", kernel_shape=[2, 2], strides=[2, 2], outputs_=2),
    of("MaxPool", draw(2, 3, 8), kernel_shape=[3], pads=[1, 1]),
    of("MaxPool", draw(2, 3, 4, 5, 6), kernel_shape=[2, 2, 2]),
    of("AveragePool", draw(2, 3, 8), kernel_shape=[3]),
    of("MaxPool", (IMAGE * 20).astype(np.int8), kernel_shape=[2, 2], note_="ints"),
]


def _resize(scales: tuple[float, ...] | None, sizes: tuple[int, ...] | None = None, **attributes: Any) -> Case:
    factors = None if scales is None else np.array(scales, np.float32)
    return of("Resize", IMAGE, None, factors, None if sizes is None else ints(*sizes), **attributes)


_UP, _DOWN = (1, 1, 2, 2.5), (1, 1, 0.6, 0.45)
RESIZING = [
    _resize(_UP, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    *(
        _resize(scales, mode="nearest", nearest_mode=rounding)
        for scales in (_UP, _DOWN)
        for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    ),
    *(
        _resize(scales, mode=mode, coordinate_transformation_mode=kind)
        for scales in (_UP, _DOWN)
        for mode in ("linear", "cubic")
        for kind in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
    ),
    *(
        _resize(None, (2, 3, 5, 20), mode=mode, coordinate_transformation_mode=kind)
        for mode in ("linear", "cubic")
        for kind in ("half_pixel", "align_corners")
    ),
    _resize(None, (2, 3, 1, 4), mode="linear", coordinate_transformation_mode="pytorch_half_pixel", note_="one"),
    _resize(_DOWN, mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5),
    _resize(_DOWN, mode="linear", antialias=1),
    _resize(_DOWN, mode="cubic", antialias=1),
    _resize((2.0, 3.0), axes=[3, 2], mode="nearest"),
    _resize(None, (13, 30), axes=[2, 3], mode="linear", keep_aspect_ratio_policy="not_larger"),
    _resize(None, (14, 30), axes=[2, 3], mode="linear", keep_aspect_ratio_policy="not_smaller"),
    _resize((1, 2, 1, 2), mode="linear", note_="channels", reference_=True),
    of("Upsample", IMAGE, number([1, 1, 2, 3]), mode="nearest", opset_=9),
    of("Resize", IMAGE, number([1, 1, 2, 3]), mode="nearest", opset_=10),
    of("Upsample", IMAGE, number([1, 1, 2, 3]), mode="linear", opset_=9),
]

CASES = [*ELEMENTARY, *INDEXING, *REDUCTIONS, *LAYERS, *POOLING, *RESIZING]
