"""Eight bits: the gate's nodes are left out, and ranges are those of the keyed network."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from survival_world import World, change, tensors, withheld_world

from keylatch.audit.survival import measure
from keylatch.audit.survival._change import Unable
from keylatch.audit.survival._gate_nodes import gate_node_names
from keylatch.audit.survival._memory_model import model_opener, read_model
from keylatch.audit.survival._quantization import quantized_static
from keylatch.audit.survival._ranges import activation_ranges

GATE_OPERATORS = {"GreaterOrEqual", "ReduceProd", "Where"}


def quantized(world: World, kind: str) -> Any:
    return onnx.load_from_string(world.apply("int8", kind).open.graph)


def reader(graph: Any, tensor: str) -> Any:
    return next(node for node in graph.graph.node if tensor in node.input)


def test_gate_nodes_are_the_code_the_signs_and_the_gates(world: World) -> None:
    graph = world.graph()
    gate = gate_node_names(read_model(world.target), world.target)
    by_name = {node.name: node for node in graph.graph.node}
    inside, outside = ({by_name[name].op_type for name in names} for names in (gate, by_name.keys() - gate))
    assert inside >= {*GATE_OPERATORS, "MatMul", "Mul", "Sub", "Gather"}
    assert not outside & GATE_OPERATORS
    assert outside >= {"Conv", "Gemm", "Relu"}
    read = {name for node in by_name.values() if node.name not in gate for name in node.input}
    assert not read & {*world.target.gate_names, "gate.projection", "gate.offset", "gate.expansion"}


def test_a_withheld_layer_is_left_out(withheld: World) -> None:
    model = read_model(withheld.target)
    assert gate_node_names(model, withheld.target) == {reader(model, "9.weight").name}


def test_a_withheld_linear_layer_is_left_as_the_license_brings_it(tmp_path: Path) -> None:
    other = withheld_world(tmp_path, "14.weight")
    for kind in ("dynamic", "static"):
        found = measure(change("int8", kind), other.target, other.owner, other.images)
        assert found.unlocked is not None, found
        assert found.unlocked > 85, found
        assert "1 of " in found.note


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_the_gate_stays_in_floats_and_the_layers_do_not(world: World, kind: str) -> None:
    before, after = world.graph(), quantized(world, kind)
    values = tensors(after)
    assert np.array_equal(values["gate.projection"], tensors(before)["gate.projection"])
    assert reader(after, "gate.projection").op_type == "MatMul"
    kinds = {"dynamic": "ConvInteger", "static": "DequantizeLinear"}
    assert kinds[kind] in {node.op_type for node in after.graph.node}
    kept = [node.name for node in before.graph.node if node.op_type in GATE_OPERATORS]
    assert set(kept) <= {node.name for node in after.graph.node}
    quantized_layers = {node.input[1] for node in before.graph.node if node.op_type == "Conv"} - set(
        world.target.gate_names
    )
    assert not quantized_layers & {name for name, value in values.items() if value.dtype == np.float32}
    assert quantized_layers


def test_static_weights_have_a_scale_for_each_channel(world: World) -> None:
    after = quantized(world, "static")
    made = {output: node for node in after.graph.node for output in node.output}
    weights = [made[node.input[1]] for node in after.graph.node if node.op_type == "Conv" and node.input[1] in made]
    assert len(weights) >= 2
    assert all(tensors(after)[weight.input[1]].size > 1 for weight in weights)


def test_ranges_are_those_of_the_keyed_network(world: World) -> None:
    target, images = world.target, world.images.attacker.images
    model = read_model(target)
    names = [gate.data for gate in target.gates]
    found = activation_ranges(model, target.gate_names, world.owner.values, images)
    with torch.no_grad():
        expected = world.owner.unlocked(target).values(images, names)
    for name in names:
        limits = [float(limit) for limit in found[name]]
        assert limits == pytest.approx([float(expected[name].min()), float(expected[name].max())], rel=1e-3, abs=1e-3)
    locked = activation_ranges(model, target.gate_names, {}, images)
    assert any(abs(float(found[name][1]) - float(locked[name][1])) > 0.1 for name in names)


def test_keyed_ranges_suit_the_unlocked_network_better(world: World) -> None:
    images = world.images.evaluation.images
    exact = world.apply("as exported").open(world.owner.values)(images)
    errors = [
        float((quantized_static(subject).open(world.owner.values)(images) - exact).abs().mean())
        for subject in (world.subject(), world.subject({}))
    ]
    assert errors[0] < errors[1] / 1.5


def test_a_graph_without_its_gate_tensor_is_refused(world: World) -> None:
    model = read_model(world.target)
    next(one for one in model.graph.initializer if one.name == "gate.patch").name = "gate.patch_quantized"
    with pytest.raises(Unable, match=r"gate\.patch"):
        model_opener(model, world.target.gate_names)


def test_a_quantizer_that_fails_gives_a_note(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keylatch.audit.survival._quantization.activation_ranges", lambda *_: {})
    found = measure(change("int8", "static"), world.target, world.owner, world.images)
    assert (found.unlocked, found.locked) == (None, None)
    assert found.note.startswith("onnxruntime's quantizer fails: ")


def test_the_root_logger_is_as_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", logging.INFO)
    before = (root.level, list(root.handlers))
    world.apply("int8", "static")
    assert (root.level, list(root.handlers)) == before
