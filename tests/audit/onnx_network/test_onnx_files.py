"""Reading models: what is refused, and with which words."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import IR_VERSION, LockedFiles, model_of
from operator_cases import draw

import keylatch.audit.onnx_network
from keylatch.audit.onnx_network import file_tensors, load_onnx_network, onnx_network
from keylatch.errors import ArtifactError, InputError

ADD = helper.make_node("Add", ["x", "w"], ["y"])


@pytest.fixture
def copied(artifact: LockedFiles, tmp_path: Path) -> Path:
    """A locked model's folder, to spoil."""
    shutil.copytree(artifact.path.parent, tmp_path / "copy")
    return tmp_path / "copy"


def edited(path: Path, change: Callable[[Any], object]) -> Path:
    """The graph with a change to its first tensor with external data."""
    model = onnx.load(path / "model.onnx", load_external_data=False)
    change(next(tensor for tensor in model.graph.initializer if tensor.external_data))
    (path / "model.onnx").write_bytes(model.SerializeToString())
    return path / "model.onnx"


def set_entry(key: str, value: str) -> Callable[[Any], object]:
    def change(tensor: Any) -> None:
        entries = {entry.key: entry.value for entry in tensor.external_data} | {key: value}
        del tensor.external_data[:]
        for name, text in entries.items():
            tensor.external_data.add(key=name, value=text)

    return change


@pytest.mark.parametrize("location", ["../model.onnx.data", "/etc/passwd", "a/b", "a\\b", "", "..", "."])
def test_external_data_outside_the_folder_is_refused(copied: Path, location: str) -> None:
    with pytest.raises(ArtifactError, match="expected a plain name"):
        load_onnx_network(edited(copied, set_entry("location", location)))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("offset", str(10**12), "expected 1000"), ("offset", "-8", "no range"), ("length", "x", "no range"),
        ("length", "8", "has 8 bytes, expected"), ("location", "missing.bin", "missing.bin cannot be opened"),
    ],
)  # fmt: skip
def test_a_wrong_range_is_refused(copied: Path, key: str, value: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        load_onnx_network(edited(copied, set_entry(key, value)))
    assert caught.value.hint


@pytest.mark.parametrize("name", ["model.onnx.data", "gate.bin"])
def test_missing_external_data_and_links_are_refused(copied: Path, name: str) -> None:
    (copied / name).rename(copied / "elsewhere")
    with pytest.raises(ArtifactError, match=f"{name} cannot be opened"):
        load_onnx_network(copied / "model.onnx")
    (copied / name).symlink_to(copied / "elsewhere")
    with pytest.raises(ArtifactError, match="links are not followed"):
        load_onnx_network(copied / "model.onnx")
    (copied / name).unlink()
    os.mkfifo(copied / name)
    with pytest.raises(ArtifactError, match=name):
        load_onnx_network(copied / "model.onnx")


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x00" * 64, bytes(range(256)), b"\x08\x0a"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match="is no ONNX model") as caught:
        load_onnx_network(tmp_path / "model.onnx")
    assert caught.value.hint


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "model.onnx", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(ArtifactError, match="cannot be read"):
            load_onnx_network(path)


def test_external_data_needs_a_path(artifact: LockedFiles) -> None:
    model = onnx.load(artifact.path, load_external_data=False)
    with pytest.raises(ArtifactError, match="in another file") as caught:
        onnx_network(model)
    assert "load_onnx_network" in str(caught.value.hint)


def test_all_unknown_operators_are_named_at_once() -> None:
    nodes = [
        helper.make_node("GRU", ["x", "w", "w"], ["a"], name="first"),
        helper.make_node("Own", ["a"], ["b"], domain="my.domain"),
        helper.make_node("Unique", ["b"], ["y"]), helper.make_node("StringNormalizer", ["x"], ["dead"]),
    ]  # fmt: skip
    with pytest.raises(InputError, match="cannot convert operator GRU of node first") as caught:
        onnx_network(model_of(nodes, w=draw(2)))
    assert "my.domain::Own of node b" in caught.value.message
    assert "Unique of node y" in caught.value.message
    assert "StringNormalizer" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("op", ["If", "Loop", "Scan"])
def test_control_flow_is_refused(op: str) -> None:
    with pytest.raises(InputError, match=f"operator {op} of node choice") as caught:
        onnx_network(model_of([helper.make_node(op, ["x"], ["y"], name="choice")]))
    assert caught.value.hint


def test_one_image_input_is_expected() -> None:
    model = model_of([helper.make_node("Add", ["x", "second"], ["y"])])
    model.graph.input.append(helper.make_tensor_value_info("second", 1, [1]))
    with pytest.raises(InputError, match=r"has 2 inputs .*\(x, second\)"):
        onnx_network(model)
    with pytest.raises(InputError, match="has 0 inputs"):
        onnx_network(model_of([helper.make_node("Neg", ["w"], ["y"])], w=draw(2)))


def test_an_input_that_is_an_initializer_or_unused_does_not_count() -> None:
    model = model_of([ADD], w=np.ones(2, np.float32))
    for name in ("w", "unused"):
        model.graph.input.append(helper.make_tensor_value_info(name, 1, [2]))
    assert onnx_network(model)(torch.zeros(2)).tolist() == [1, 1]


def test_a_graph_that_is_not_in_order_is_refused() -> None:
    nodes = [helper.make_node("Neg", ["later"], ["y"]), helper.make_node("Neg", ["x"], ["later"])]
    with pytest.raises(ArtifactError, match="'later' before anything gives it"):
        onnx_network(model_of(nodes))


def test_tensors_that_pytorch_does_not_have_are_refused() -> None:
    model = model_of([ADD])
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.STRING, [1], [b"text"]))
    with pytest.raises(InputError, match="data type STRING"):
        onnx_network(model)
    model = model_of([ADD])
    model.graph.sparse_initializer.add()
    with pytest.raises(InputError, match="sparse"):
        onnx_network(model)
    with pytest.raises(InputError, match="ONNX data type 8"):
        onnx_network(model_of([helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING)]))(torch.zeros(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
def test_weights_keep_their_type(dtype: torch.dtype) -> None:
    kind = {
        torch.float16: TensorProto.FLOAT16,
        torch.float64: TensorProto.DOUBLE,
        torch.bfloat16: TensorProto.BFLOAT16,
    }[dtype]
    values = [1.5, -2.0, 0.25]
    model = model_of([ADD], image=kind)
    model.graph.initializer.append(helper.make_tensor("w", kind, [3], values))
    network = onnx_network(model)
    assert network.initializer("w").dtype == dtype
    output = network(torch.ones(3, dtype=dtype))
    assert output.dtype == dtype
    assert output.tolist() == [2.5, -1.0, 1.25]


def test_functions_of_the_model_are_inlined() -> None:
    function = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 20)]
    )
    graph = helper.make_graph(
        [helper.make_node("Twice", ["x"], ["t"], domain="own"), helper.make_node("Add", ["t", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", 1, [2])],
        [helper.make_tensor_value_info("y", 1, [2])],
        [numpy_helper.from_array(np.ones(2, np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=IR_VERSION)
    assert onnx_network(model)(torch.ones(2)).tolist() == [3, 3]


def test_the_public_names_are_sorted_and_every_module_is_in_the_table_of_contents() -> None:
    package = keylatch.audit.onnx_network
    assert package.__all__ == [
        "Node",
        "OnnxNetwork",
        "file_tensors",
        "load_onnx_network",
        "onnx_network",
        "without_branches",
    ]
    assert all(hasattr(package, name) for name in package.__all__)
    for path in Path(package.__file__).parent.glob("_[a-z]*.py"):
        assert path.stem in str(package.__doc__), path.name


def test_all_tensors_of_a_file_are_read_whether_or_not_it_can_be_run(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["z"], value=numpy_helper.from_array(np.ones(3, np.int8)))],
        "inner", [], [onnx.ValueInfoProto(name="z")], [numpy_helper.from_array(np.full(2, 5.0, np.float32), "w")],
    )  # fmt: skip
    nodes = [ADD, helper.make_node("NoSuchOperator", ["y"], ["u"], body=inner)]
    onnx.save(model_of(nodes, ("u",), w=np.arange(2, dtype=np.float32)), tmp_path / "model.onnx")
    found = file_tensors(tmp_path / "model.onnx")
    assert {name: tensor.tolist() for name, tensor in found.items()} == {"w": [0, 1], "w#1": [5, 5], "z": [1, 1, 1]}


def test_tensors_in_other_folders_are_not_read(copied: Path) -> None:
    with pytest.raises(ArtifactError, match="expected a plain name"):
        file_tensors(edited(copied, set_entry("location", "../model.onnx.data")))
