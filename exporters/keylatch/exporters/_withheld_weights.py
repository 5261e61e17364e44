"""Put the withheld parts of weights into an exported graph, as gate tensors.

A stored weight holds stand-ins; the graph puts the gate tensor in their places, by a ScatterND or ScatterElements that
reads initializers alone. onnxruntime replaces gate tensors before it optimizes, so a keyed session folds it into the
plain weight (docs/decisions/0012).

An exporter would fold such nodes too, with the stand-ins in them, and it folds normalizations into weights and
transposes them. So the network is exported twice, with the stand-ins and with the original weights, by the same passes:
the two graphs differ in withheld weights alone, and the second has each of them exactly as in a plain export. The
artifact is made of the first.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import torch

from keylatch.errors import ExportError
from keylatch.exporters._graph_builder import GraphBuilder
from keylatch.exporters._onnx_program import to_onnx
from keylatch.locks import LockedModule, LockSecret
from keylatch.locks._withheld._part import Part
from keylatch.locks._withheld._parts import Parts

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_BODY = "body."
# One ScatterND folds faster than Reshape, ScatterElements, Reshape (by hand, MobileNetV2, 52 tensors: 4 ms of opening
# instead of 16), and its index takes eight bytes for each axis instead of four in all.
_INDEX_BYTES = 2**18


@dataclass(frozen=True, slots=True)
class _Found:
    """A withheld weight in the graph: in which node, at which input, its name there, and both of its values."""

    node: ir.Node
    place: int
    name: str
    stand_in: Array
    original: Array


def withhold_weights(model: ir.Model, module: LockedModule, secret: LockSecret, opset: int | None) -> dict[str, Array]:
    """Rewrite the withheld weights of an exported model in place.

    Args:
        model: As `to_onnx` gives it for the locked module.
        module: The locked module.
        secret: Its secret.
        opset: What the model was exported with.

    Returns:
        The gate tensors' secret values, by name, as this graph takes them.

    Raises:
        ExportError: If a withheld weight cannot be found again in the graph, or was mixed with others.
    """
    twin = copy.deepcopy(module)  # exported tensors are views of a module's own
    with twin.restored(secret):
        original = to_onnx(twin, twin.spec, twin.outputs.names, opset=opset)
        weights = {part.parameter: _numbers(twin, part) for part in twin.withheld.parts}
        return _replaced(model, original, module.withheld, weights)


def _replaced(model: ir.Model, original: ir.Model, parts: Parts, weights: Mapping[str, Array]) -> dict[str, Array]:
    builder, values = GraphBuilder(model.graph, "restored"), dict[str, Array]()
    named = dict(zip(parts.names(), parts.parts, strict=True))
    for found in list(_differing(model.graph, original.graph)):
        name = next((name for name, part in named.items() if _holds(found, part, weights[part.parameter])), None)
        if name is None or name in values:
            raise _lost(found.name)
        part = named[name]
        values[name] = _insert(builder, found, name, part, turned=found.name != _BODY + part.parameter)
    lost = next((part.parameter for name, part in named.items() if name not in values), None)
    if lost is not None:
        raise _lost(lost)
    model.graph.sort()
    return {name: values[name] for name in named}


def _numbers(module: LockedModule, part: Part) -> Array:
    weight = module.body.get_parameter(part.parameter).detach().cpu()
    return (weight.float() if weight.dtype == torch.bfloat16 else weight).numpy().copy()  # NumPy has no bfloat16


def _differing(locked: ir.Graph, original: ir.Graph) -> Iterator[_Found]:
    """Each constant that is another one in the other graph, wherever a node reads it."""
    if [node.op_type for node in locked] != [node.op_type for node in original]:
        raise ExportError(
            "the exporter wrote another graph for the locked weights than for the original ones",
            hint="report this network; another opset may help",
        )
    for node, twin in zip(locked, original, strict=True):
        for place, (value, other) in enumerate(zip(node.inputs, twin.inputs, strict=True)):
            one, two = _constant(value), _constant(other)
            if one is not None and two is not None and one.tobytes() != two.tobytes():
                yield _Found(node, place, str(other.name if other is not None else ""), one, two)


def _constant(value: ir.Value | None) -> Array | None:
    tensor = None if value is None else value.const_value
    return None if tensor is None else tensor.numpy()


def _holds(found: _Found, part: Part, weight: Array) -> bool:
    """Whether a constant is a part's parameter: under its name, perhaps with a normalization in it, or transposed."""
    if found.name == _BODY + part.parameter:
        return bool(found.original.shape == part.full_shape)
    if weight.ndim != 2 or found.original.shape != weight.T.shape:
        return False
    return bool(np.array_equal(found.original, weight.T))


def _insert(builder: GraphBuilder, found: _Found, name: str, part: Part, *, turned: bool) -> Array:
    stand_in, original = (array.T if turned else array for array in (found.stand_in, found.original))
    if not np.array_equal(stand_in[~part.mask().numpy()], original[~part.mask().numpy()]):
        raise ExportError(
            f"the exporter mixed withheld weights of {part.parameter} with others",
            hint="report this network; another opset may help",
        )
    shown, value = (_at(part, array) for array in (stand_in, original))
    gate = builder.initializer(shown, name)
    full = gate if part.kind == "whole" else _scattered(builder, part, _stored(builder, found, stand_in, turned), gate)
    if turned:
        full = builder.add("Transpose", full)
        full.producer().attributes["perm"] = ir.AttrInt64s("perm", [1, 0])  # type: ignore[union-attr]
    old = found.node.inputs[found.place]
    assert old is not None  # noqa: S101  `_constant` looked at it
    full.type, full.shape = old.type, old.shape
    found.node.replace_input_with(found.place, full)
    return value


def _at(part: Part, array: Array) -> Array:
    """What an array holds at a part's places, a copy in C order: onnxruntime takes no other."""
    places = part.places.numpy()
    if part.kind == "elements":
        flat: Array = np.ascontiguousarray(array).reshape(-1)[places]
        return flat
    return np.array(array if part.kind == "whole" else array[places], order="C")


def _stored(builder: GraphBuilder, found: _Found, stand_in: Array, turned: bool) -> ir.Value:
    old = found.node.inputs[found.place]
    assert old is not None  # noqa: S101  `_constant` looked at it
    return builder.initializer(np.ascontiguousarray(stand_in)) if turned else old


def _scattered(builder: GraphBuilder, part: Part, stored: ir.Value, gate: ir.Value) -> ir.Value:
    index = _indices(part)
    if part.kind == "rows" or index.nbytes <= _INDEX_BYTES:
        return builder.add("ScatterND", stored, builder.initializer(index), gate)
    places = builder.initializer(part.places.numpy().astype(np.int32))
    flat = builder.add("Reshape", stored, builder.constant([-1]))
    return builder.add("Reshape", builder.add("ScatterElements", flat, places, gate), builder.constant(part.full_shape))


def _indices(part: Part) -> Array:
    """(k, n) int64: the places along the first n axes."""
    places = part.places.numpy()
    axes = (places,) if part.kind == "rows" else np.unravel_index(places, part.full_shape)
    return np.ascontiguousarray(np.stack(axes, axis=1).astype(np.int64))


def _lost(name: str) -> ExportError:
    return ExportError(
        f"the exporter changed the withheld weights of {name.removeprefix(_BODY)}",
        hint="withhold weights of convolutions and linear layers that are used once",
    )
