"""Pruned, converted and optimized graphs are what their names say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from survival_world import GATED, World, change, tensors

from keylatch.audit.survival import measure
from keylatch.audit.survival._memory_model import model_opener, read_model
from keylatch.audit.survival._pruning import without_smallest
from keylatch.runtime import FileDigest


def graph_of(world: World, name: str, setting: str) -> Any:
    return onnx.load_from_string(world.apply(name, setting).open.graph)


@pytest.mark.parametrize("percent", [10, 30, 50, 70, 90])
def test_pruning_zeroes_the_share_it_says_in_layers_alone(world: World, percent: int) -> None:
    before, after = tensors(world.graph()), tensors(graph_of(world, "pruning", f"{percent} %"))
    layers = {node.input[1] for node in world.graph().graph.node if node.op_type in {"Conv", "Gemm"}} - set(
        world.target.gate_names
    )
    assert len(layers) >= 3
    assert layers >= {f"body.{name}.weight" for name in GATED}
    for name, value in after.items():
        if name in layers:
            share = float((value == 0).mean()) * 100
            assert percent - 1 < share <= percent + 1, name
            assert np.abs(before[name][value == 0]).max() <= np.abs(value[value != 0]).min()
        else:
            assert np.array_equal(value, before[name]), name
    assert {"gate.projection", "gate.expansion", "gate.offset"} <= after.keys() - layers


def test_the_smallest_go_first_and_the_original_is_left_alone() -> None:
    weight = np.array([[3.0, -1.0], [0.5, -4.0]])
    assert without_smallest(weight, 50).tolist() == [[3.0, 0.0], [0.0, -4.0]]
    assert without_smallest(weight, 49).tolist() == [[3.0, -1.0], [0.0, -4.0]]
    assert weight[1, 0] == 0.5


def test_a_withheld_weight_is_not_pruned(withheld: World) -> None:
    assert "9.weight" not in tensors(graph_of(withheld, "pruning", "90 %"))  # supplied, as it was
    predict = withheld.apply("pruning", "10 %").open(withheld.owner.values)
    assert predict(withheld.images.evaluation.images[:3]).shape == (3, 10)
    assert withheld.apply("pruning", "90 %").note == "4 weight tensors, each by magnitude; 1 withheld ones kept"


def test_a_withheld_weight_is_not_pruned_behind_another_node_either(
    withheld: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_identity(target: Any) -> Any:
        model = read_model(target)
        layer = next(node for node in model.graph.node if "9.weight" in node.input)
        layer.input[1] = "carried"
        model.graph.node.insert(0, onnx.helper.make_node("Identity", ["9.weight"], ["carried"], "carrier"))
        return model

    monkeypatch.setattr("keylatch.audit.survival._pruning.read_model", with_identity)
    images = withheld.images.evaluation.images[:9]
    pruned = withheld.apply("pruning", "90 %")
    monkeypatch.undo()
    assert torch.allclose(pruned.open({})(images), withheld.apply("pruning", "90 %").open({})(images), atol=1e-4)
    assert pruned.note.startswith("4 weight tensors")


def test_fp16_is_half_throughout(world: World) -> None:
    graph = graph_of(world, "fp16", "whole graph")
    assert {value.dtype.name for value in tensors(graph).values() if value.dtype.kind == "f"} == {"float16"}
    kinds = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    assert kinds["gate.patch"] == onnx.TensorProto.FLOAT16
    ends = [*graph.graph.input, *graph.graph.output]
    assert {one.type.tensor_type.elem_type for one in ends} == {onnx.TensorProto.FLOAT}


def test_fp16_with_its_gate_in_float32_has_one(world: World) -> None:
    graph = graph_of(world, "fp16", "gate in float32")
    kinds = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    assert {kinds[name] for name in (*world.target.gate_names, "gate.projection") if name != "gate.mask"} == {
        onnx.TensorProto.FLOAT
    }
    layers = {node.input[1] for node in graph.graph.node if node.op_type in {"Conv", "Gemm"}}
    halves = {name for name in layers if kinds.get(name) == onnx.TensorProto.FLOAT16}
    assert len(halves) >= 3


def test_bf16_computes_in_bfloat16(world: World) -> None:
    predict = world.apply("bf16", "PyTorch").open(world.owner.values)
    assert predict(world.images.evaluation.images[:2]).dtype == torch.bfloat16


def test_levels_are_those_of_onnxruntime(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = []
    real = onnxruntime.InferenceSession

    def record(graph: Any, options: Any, **more: Any) -> Any:
        levels.append(options.graph_optimization_level.name)
        return real(graph, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", record)
    for level in ("disabled", "basic", "extended", "all"):
        world.apply("onnxruntime optimization", level).open(world.owner.values)
    assert levels == ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"]


def test_the_graph_that_is_changed_has_its_gates_in_force_and_opens_as_the_file_does(world: World) -> None:
    model, images = read_model(world.target), world.images.evaluation.images[:7]
    assert "If" in {node.op_type for node in onnx.load(world.target.path / "model.onnx").graph.node}
    assert "If" not in {node.op_type for node in model.graph.node}
    assert {gate.node for gate in world.target.gates} <= {node.name for node in model.graph.node}
    opener = model_opener(model, world.target.gate_names)
    for values in ({}, world.owner.values):
        assert torch.allclose(opener(values)(images), world.apply("as exported").open(values)(images), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "setting"), [("fp16", "whole graph"), ("int8", "static"), ("int8", "dynamic"), ("pruning", "10 %")]
)
def test_rows_say_that_gates_do_not_fold_in_a_changed_graph(world: World, name: str, setting: str) -> None:
    assert world.apply(name, setting).note.endswith("; gates computed for each image")


def test_a_graph_in_memory_says_what_the_artifact_says(world: World) -> None:
    images = world.images.evaluation.images[:7]
    unpruned = world.apply("pruning", "10 %")
    exact, pruned = (one.open(world.owner.values)(images) for one in (world.apply("as exported"), unpruned))
    locked = unpruned.open({})(images)
    assert float((pruned - exact).abs().mean()) < float((locked - exact).abs().mean()) / 3


def test_an_operator_that_onnxruntime_lacks_gives_a_note(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_unknown(target: Any) -> Any:
        model = read_model(target)
        next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Reloo"
        return model

    monkeypatch.setattr("keylatch.audit.survival._pruning.read_model", with_unknown)
    found = measure(change("pruning", "10 %"), world.target, world.owner, world.images)
    assert (found.unlocked, found.locked) == (None, None)
    assert "onnxruntime refuses the changed model" in found.note
    assert "Reloo" in found.note


def test_models_too_large_for_memory_give_a_note(world: World) -> None:
    manifest = replace(world.target.manifest, files={"model.onnx": FileDigest(2**31, "00" * 32)})
    found = measure(change("int8", "dynamic"), replace(world.target, manifest=manifest), world.owner, world.images)
    assert found.note == "the model is larger than 2 GiB, too large to be changed in memory"
