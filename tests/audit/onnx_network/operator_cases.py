"""Operators with the inputs and attributes that exporters give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx_graphs import model_of

Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """One node.

    Attributes:
        op: Operator type.
        image: Its first input.
        others: Its other inputs, as initializers; None: absent.
        attributes: Of the node.
        outputs: How many.
        opset: Version of the operator set.
        reference: Whether onnx's own evaluator is asked, because onnxruntime has no such kernel.
        note: For the test's name.
    """

    op: str
    image: Array
    others: tuple[Array | None, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1
    opset: int = 20
    reference: bool = False
    note: str = ""

    def model(self) -> onnx.ModelProto:
        names = [f"input_{place}" if value is not None else "" for place, value in enumerate(self.others)]
        outputs = [f"y{place}" for place in range(self.outputs)]
        node = helper.make_node(self.op, ["x", *names], outputs, **self.attributes)
        tensors = {name: value for name, value in zip(names, self.others, strict=True) if value is not None}
        image = helper.np_dtype_to_tensor_dtype(self.image.dtype)
        return model_of([node], outputs, image=image, opset=self.opset, **tensors)

    def __str__(self) -> str:
        words = [self.op, self.note, *(f"{key}={value}" for key, value in self.attributes.items())]
        return "-".join(word for word in words if word and len(word) < 60).replace(" ", "")


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def number(value: Any, dtype: Any = np.float32) -> Array:
    return np.array(value, dtype)


IMAGE = draw(2, 3, 7, 9)
POSITIVE = np.abs(IMAGE) + 0.1
UNIT = np.tanh(IMAGE) * 0.9
COUNTS = np.arange(-6, 6, dtype=np.int64).reshape(3, 4)
TRUTH = IMAGE > 0


def of(op: str, image: Array = IMAGE, *others: Array | None, **attributes: Any) -> Case:
    """A case; names that end in an underscore are its own fields, not attributes."""
    own = {name[:-1]: attributes.pop(name) for name in list(attributes) if name.endswith("_")}
    return Case(op, image, others, attributes, **own)


ELEMENTWISE = [
    *(of(op) for op in ("Abs", "Neg", "Exp", "Erf", "Sin", "Cos", "Floor", "Ceil", "Round", "Sign", "Relu", "Sigmoid")),
    *(of(op) for op in ("Tanh", "Softplus", "Softsign", "HardSwish", "Mish", "LeakyRelu", "Elu", "Celu", "Selu")),
    *(of(op) for op in ("HardSigmoid", "Gelu", "ThresholdedRelu", "Identity", "Dropout", "Tan", "Atan", "IsNaN")),
    *(of(op, POSITIVE) for op in ("Sqrt", "Log", "Reciprocal")),
    *(of(op, UNIT) for op in ("Asin", "Acos", "Atanh")),
    of("Round", np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32), note_="ties"),
    of("Gelu", approximate="tanh"), of("LeakyRelu", alpha=0.3), of("Elu", alpha=0.7), of("Celu", alpha=0.7),
    of("Selu", alpha=1.5, gamma=1.2), of("HardSigmoid", alpha=0.3, beta=0.4), of("Shrink", lambd=0.4, bias=0.1),
    of("Swish", alpha=1.5, opset_=24, reference_=True), of("Dropout", outputs_=2),
    of("PRelu", IMAGE, draw(3, 1, 1)), of("PRelu", IMAGE, draw(1), note_="one"),
    of("IsInf", np.array([1, np.inf, -np.inf], np.float32), detect_negative=0),
    of("Clip", IMAGE, number(-0.5), number(0.5)), of("Clip", IMAGE, None, number(0.5), note_="most"),
    of("Clip", IMAGE, number(0.0), note_="least"), of("Clip", IMAGE, note_="none"),
    of("Clip", min=-0.3, max=0.4, opset_=6),
    of("Softmax"), of("Softmax", axis=1), of("LogSoftmax", axis=-2), of("Hardmax", axis=1),
    of("Softmax", axis=1, opset_=11), of("Softmax", axis=2, opset_=11), of("LogSoftmax", opset_=11, note_="flat"),
]  # fmt: skip

ARITHMETIC = [
    *(of(op, IMAGE, draw(3, 1, 9)) for op in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean")),
    *(of(op, IMAGE, number(1.7), note_="scalar") for op in ("Add", "Sub", "Mul", "Div", "Max")),
    *(of(op, number(0.3), number([1.7]), note_="rank") for op in ("Add", "Sub", "Mul", "Div")),
    *(of(op, COUNTS, ints(3), note_="ints") for op in ("Add", "Sub", "Mul", "Div", "Mod", "Min", "Max")),
    of("Div", COUNTS, ints(-4, 3, 2, 7), note_="vector"), of("Mod", COUNTS, ints(-3), note_="negative"),
    of("Mod", IMAGE, number(0.7), fmod=1), of("Mod", COUNTS, ints(-3), fmod=1),
    of("Pow", POSITIVE, number(2.5)), of("Pow", IMAGE, number(2, np.int64), note_="square"),
    of("Pow", POSITIVE, draw(3, 1, 1), note_="tensor"), of("Pow", COUNTS, ints(2), note_="ints"),
    of("Max", IMAGE, draw(9), draw(7, 1), note_="three"), of("Mean", IMAGE, draw(9), draw(7, 1), note_="three"),
    of("BitShift", np.arange(5, dtype=np.uint8), np.full(5, 2, np.uint8), direction="LEFT"),
    of("MatMul", draw(2, 5, 4), draw(4, 3)), of("MatMul", draw(2, 3, 5, 4), draw(3, 4, 2), note_="batch"),
    of("MatMul", draw(5, 4), draw(4), note_="vector"),
    of("Einsum", draw(2, 5, 4), draw(2, 3, 4), equation="bij, bkj -> bik"),
    of("Gemm", draw(2, 4), draw(4, 3), draw(3)), of("Gemm", draw(2, 4), draw(3, 4), draw(3), transB=1),
    of("Gemm", draw(4, 2), draw(3, 4), draw(2, 1), transA=1, transB=1, alpha=0.5, beta=2.0),
    of("Gemm", draw(2, 4), draw(3, 4), transB=1, note_="bare"),
    of("Gemm", draw(2, 4), draw(4, 3), draw(2, 3), note_="matrix"),
    of("CumSum", IMAGE, number(2, np.int64)), of("CumSum", IMAGE, number(-1, np.int64), exclusive=1, reverse=1),
    of("Det", draw(2, 3, 3)),
]  # fmt: skip

LOGIC = [
    *(of(op, IMAGE, draw(9)) for op in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")),
    *(of(op, COUNTS, ints(1)) for op in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")),
    *(of(op, TRUTH, draw(3, 1, 9) > 0) for op in ("And", "Or", "Xor", "Equal")),
    of("Not", TRUTH), of("Where", TRUTH, draw(9), draw(3, 1, 1)), of("Where", TRUTH, ints(1), ints(2), note_="ints"),
    *(of("Cast", IMAGE * 3, to=kind) for kind in (1, 6, 7, 9, 10, 11)), of("Cast", TRUTH, to=1, note_="truth"),
    of("Cast", COUNTS, to=2, note_="wrap"), of("CastLike", COUNTS, draw(1)), of("NonZero", np.maximum(IMAGE, 0)),
    of("BitwiseAnd", COUNTS, ints(5)), of("BitwiseNot", COUNTS),
]  # fmt: skip

LAYOUT = [
    of("Reshape", IMAGE, ints(0, -1)), of("Reshape", IMAGE, ints(-1, 0, 3, 7), note_="zero"),
    of("Reshape", draw(0, 3), ints(3, 0), allowzero=1), of("Flatten"), of("Flatten", axis=0), of("Flatten", axis=-1),
    of("Flatten", axis=4), of("Transpose"), of("Transpose", perm=[0, 2, 3, 1]),
    of("Squeeze", draw(1, 3, 1, 2)), of("Squeeze", draw(1, 3, 1, 2), ints(-2)),
    of("Squeeze", draw(1, 3, 1), axes=[0], opset_=11),
    of("Unsqueeze", IMAGE, ints(0, -1)), of("Unsqueeze", IMAGE, ints(-2, 1)),
    of("Unsqueeze", IMAGE, axes=[1, 3], opset_=11),
    of("Concat", IMAGE, draw(2, 4, 7, 9), axis=1), of("Concat", IMAGE, IMAGE, axis=-1),
    of("Split", IMAGE, ints(4, 2, 3), axis=3, outputs_=3), of("Split", IMAGE, axis=2, num_outputs=3, outputs_=3),
    of("Split", IMAGE, axis=1, outputs_=3, opset_=13), of("Split", IMAGE, split=[2, 5], axis=2, outputs_=2, opset_=11),
    of("Split", IMAGE, num_outputs=1),
    of("Slice", IMAGE, ints(1, -4), ints(9**18, -1), ints(2, 3)), of("Slice", IMAGE, ints(0, 0), ints(1, 2)),
    of("Slice", IMAGE, ints(-1), ints(-(2**63)), ints(3), ints(-1)),
    of("Slice", IMAGE, ints(6), ints(0), ints(2), ints(-2)),
    of("Slice", IMAGE, ints(1), ints(8), ints(-1), ints(3)),
    of("Slice", IMAGE, ints(5), ints(2), ints(2), note_="empty"),
    of("Slice", starts=[1, 2], ends=[3, -1], axes=[1, 3], opset_=9),
    of("Expand", draw(3, 1, 1), ints(2, 3, 4, 1)), of("Expand", IMAGE, ints(1, 1), note_="smaller"),
    of("Tile", IMAGE, ints(1, 2, 1, 3)), of("Trilu", draw(2, 4, 5)),
    of("Trilu", draw(2, 4, 5), number(-1, np.int64), upper=0),
    of("DepthToSpace", draw(2, 8, 3, 4), blocksize=2), of("DepthToSpace", draw(2, 8, 3, 4), blocksize=2, mode="CRD"),
    of("SpaceToDepth", draw(2, 3, 4, 6), blocksize=2),
    of("Pad", IMAGE, ints(0, 0, 1, 2, 0, 0, 3, 4)), of("Pad", IMAGE, ints(0, 1, 0, -2, 0, 0, -1, 4), number(1.5)),
    *(of("Pad", IMAGE, ints(0, 0, 3, 0, 0, 2, 1, 8), mode=mode) for mode in ("reflect", "edge", "wrap")),
    of("Pad", IMAGE, ints(1, 2, 3, 4), None, ints(-1, 2), mode="edge"),
    of("Pad", pads=[0, 0, 1, 1, 0, 0, 2, 2], value=0.5, opset_=10),
    of("Shape"), of("Shape", start=1, end=-1), of("Size"), of("EyeLike", draw(3, 4), k=1),
    of("ConstantOfShape", ints(2, 3)), of("ConstantOfShape", ints(2, 3), value=numpy_helper.from_array(ints(7))),
    of("OneHot", ints(1, -1, 2), number(4, np.int64), number([0.5, 2])),
    of("OneHot", COUNTS % 3, number(3, np.int64), number([0, 1]), axis=1),
]  # fmt: skip

ELEMENTARY = [*ELEMENTWISE, *ARITHMETIC, *LOGIC, *LAYOUT]
