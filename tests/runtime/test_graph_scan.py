"""What a graph would make onnxruntime open is found wherever it stands, and nothing crashes the scanner."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from runtime_world import LockedModel

from keylatch.errors import ArtifactError
from keylatch.runtime import GATE_NAME, GRAPH_NAME, WEIGHTS_NAME, InferenceSession, read_model_files, scan_graph
from keylatch.runtime._graph_scan import require_contained

NAMES = {GRAPH_NAME, GATE_NAME, WEIGHTS_NAME}
FOREIGN = [
    "../gate.bin",
    "/etc/passwd",
    "other.bin",
    "./gate.bin",
    "a/../gate.bin",
    "",
    "*/_ORT_MEM_ADDR_/*",
    "gate.bin ",
]


def external(location: str, name: str = "w") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])


def graph(nodes: list[onnx.NodeProto] | None = None, tensors: list[TensorProto] | None = None) -> onnx.GraphProto:
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])] if nodes is None else nodes
    return helper.make_graph(nodes, "g", [value("x")], [value("y")], tensors or [])


def model(body: onnx.GraphProto, **fields: object) -> onnx.ModelProto:
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **fields)


def sparse(location: str, part: str = "values") -> onnx.SparseTensorProto:
    tensor = onnx.SparseTensorProto(dims=[8])
    getattr(tensor, part).CopyFrom(external(location))
    return tensor


def constant(**attribute: object) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["w"], **attribute)


def in_initializer(location: str) -> onnx.ModelProto:
    return model(graph(tensors=[external(location)]))


def in_constant(location: str) -> onnx.ModelProto:
    return model(graph([constant(value=external(location))]))


def in_tensor_list(location: str) -> onnx.ModelProto:
    return model(
        graph([helper.make_node("Any", [], ["y"], domain="d", all=[external("gate.bin"), external(location)])])
    )


def in_branch(location: str) -> onnx.ModelProto:
    branch = graph([constant(value=external(location))])
    return model(graph([helper.make_node("If", ["c"], ["y"], then_branch=graph(), else_branch=branch)]))


def in_branch_of_branch(location: str) -> onnx.ModelProto:
    inner = graph([helper.make_node("If", ["c"], ["y"], then_branch=graph(tensors=[external(location)]))])
    return model(graph([helper.make_node("Loop", ["x"], ["y"], body=inner)]))


def in_graph_list(location: str) -> onnx.ModelProto:
    graphs = [graph(), graph(tensors=[external(location)])]
    return model(graph([helper.make_node("Any", [], ["y"], domain="d", graphs=graphs)]))


def in_function(location: str) -> onnx.ModelProto:
    nodes = [constant(value=external(location))]
    function = helper.make_function("d", "F", ["x"], ["w"], nodes, [helper.make_opsetid("", 17)])
    return model(graph(), functions=[function])


def in_function_default(location: str) -> onnx.ModelProto:
    nodes, default = [constant()], helper.make_attribute("value", external(location))
    function = helper.make_function("d", "F", [], ["w"], nodes, [], attribute_protos=[default])
    return model(graph(), functions=[function])


def in_training(location: str) -> onnx.ModelProto:
    made = model(graph())
    made.training_info.add().algorithm.CopyFrom(graph(tensors=[external(location)]))
    return made


def in_training_start(location: str) -> onnx.ModelProto:
    made = model(graph())
    made.training_info.add().initialization.CopyFrom(graph(tensors=[external(location)]))
    return made


PLACES = [
    in_initializer, in_constant, in_tensor_list, in_branch, in_branch_of_branch, in_graph_list, in_function,
    in_function_default, in_training, in_training_start,
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", FOREIGN)
def test_a_foreign_location_is_found_and_refused_wherever_it_stands(
    place: Callable[[str], onnx.ModelProto], location: str
) -> None:
    facts = scan_graph(place(location).SerializeToString())
    assert location in facts.locations
    with pytest.raises(ArtifactError, match="which is not in the manifest") as caught:
        require_contained(facts, NAMES)
    assert caught.value.hint


@pytest.mark.parametrize("place", PLACES)
def test_a_location_in_the_manifest_is_accepted(place: Callable[[str], onnx.ModelProto]) -> None:
    require_contained(scan_graph(place(GATE_NAME).SerializeToString()), NAMES)


@pytest.mark.parametrize("part", ["values", "indices"])
@pytest.mark.parametrize("where", ["initializer", "attribute", "attributes"])
def test_sparse_tensors_with_external_data_are_refused(part: str, where: str) -> None:
    tensor = sparse(GATE_NAME, part)
    made = model(graph([constant(sparse_value=tensor)] if where == "attribute" else None))
    if where == "initializer":
        made.graph.sparse_initializer.append(tensor)
    elif where == "attributes":
        made.graph.node[0].attribute.add(name="all", type=onnx.AttributeProto.SPARSE_TENSORS).sparse_tensors.append(
            tensor
        )
    facts = scan_graph(made.SerializeToString())
    with pytest.raises(ArtifactError, match="sparse tensor with external data"):
        require_contained(facts, NAMES)


def test_sparse_tensors_without_external_data_are_accepted() -> None:
    tensor = helper.make_sparse_tensor(
        helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("i", TensorProto.INT64, [1], [3]),
        [8],
    )
    require_contained(scan_graph(model(graph([constant(sparse_value=tensor)])).SerializeToString()), NAMES)


@pytest.mark.parametrize("where", ["graph", "branch", "function"])
@pytest.mark.parametrize("domain", ["com.microsoft", "", "other"])
def test_precompiled_contexts_are_refused(where: str, domain: str) -> None:
    node = helper.make_node("EPContext", ["x"], ["y"], domain=domain, ep_cache_context="engine.bin", embed_mode=0)
    function = helper.make_function("d", "F", ["x"], ["y"], [node], [])
    made = {
        "graph": lambda: model(graph([node])),
        "branch": lambda: model(graph([helper.make_node("If", ["c"], ["y"], then_branch=graph([node]))])),
        "function": lambda: model(graph(), functions=[function]),
    }[where]()
    with pytest.raises(ArtifactError, match="precompiled context"):
        require_contained(scan_graph(made.SerializeToString()), NAMES)


def test_operators_and_metadata_are_reported() -> None:
    made = in_branch(GATE_NAME)
    made.metadata_props.add(key="keylatch.lock", value="{}")
    facts = scan_graph(made.SerializeToString())
    assert facts.operators == {"If", "Add", "Constant"}
    assert facts.metadata == {"keylatch.lock": "{}"}


def test_it_agrees_with_onnx_on_a_real_export(made: LockedModel) -> None:
    parsed = onnx.load(made.path / GRAPH_NAME, load_external_data=False)
    tensors = [
        *parsed.graph.initializer,
        *(a.t for node in parsed.graph.node for a in node.attribute if a.HasField("t")),
    ]
    found = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    facts = scan_graph((made.path / GRAPH_NAME).read_bytes())
    assert facts.locations == found == {GATE_NAME, WEIGHTS_NAME}
    assert facts.operators >= {node.op_type for node in parsed.graph.node}
    assert facts.metadata == {entry.key: entry.value for entry in parsed.metadata_props}
    assert facts.metadata.keys() >= {"keylatch.lock"}


@pytest.mark.parametrize("location", ["other.bin", "../other.bin"])
def test_a_locked_session_refuses_such_a_graph_though_its_digest_is_right(model: LockedModel, location: str) -> None:
    (model.path / "other.bin").write_bytes(bytes(10**6))
    data = (model.path / GRAPH_NAME).read_bytes()
    parsed = onnx.load_from_string(data)
    entry = next(e for t in parsed.graph.initializer for e in t.external_data if e.key == "location")
    entry.value = location
    forged = model.rewrite(model_onnx=parsed.SerializeToString())
    with pytest.raises(ArtifactError, match=r"other\.bin"):
        InferenceSession.locked(forged.path)
    with pytest.raises(ArtifactError, match=r"other\.bin"):
        InferenceSession(forged.path, **forged.credentials(license=forged.license()))


# --- the wire format


def varint(number: int, pad_bytes: int = 0) -> bytes:
    parts = []
    while number >= 128 or pad_bytes:
        parts.append(number & 127 | 128)
        number >>= 7
        pad_bytes -= bool(pad_bytes)
    return bytes([*parts, number])


def refield(made: onnx.ModelProto, tag: bytes) -> bytes:
    """The model with its graph field under another tag."""
    body, rest = made.graph.SerializeToString(), onnx.ModelProto()
    rest.CopyFrom(made)
    rest.ClearField("graph")
    return rest.SerializeToString() + tag + varint(len(body)) + body


GRAPH_TAG = 7 << 3 | 2


def test_a_field_is_found_under_a_padded_tag() -> None:
    data = refield(in_initializer("other.bin"), varint(GRAPH_TAG, pad_bytes=4))
    assert scan_graph(data).locations == {"other.bin"}


@pytest.mark.parametrize("skipped", [b"\x09" + b"\xff" * 8, b"\x0d" + b"\xff" * 4, b"\x08" + b"\xff" * 9 + b"\x01"])
def test_numbers_between_fields_are_skipped_whole(skipped: bytes) -> None:
    data = in_initializer("other.bin").SerializeToString()
    assert scan_graph(skipped + data + skipped).locations == {"other.bin"}


@pytest.mark.parametrize("bit", range(32, 64))
def test_a_tag_that_other_parsers_cut_to_32_bits_is_refused(bit: int) -> None:
    # The C++ parser of onnxruntime takes 5 bytes of a tag and drops what is over 32 bits: field 7 to it, not to us.
    with pytest.raises(ArtifactError, match="not a well-formed"):
        scan_graph(refield(in_initializer("other.bin"), varint(GRAPH_TAG | 1 << bit)))


def test_onnxruntime_does_cut_tags() -> None:
    """Why the test above matters; if this fails one day, only the reason is gone."""
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    data = refield(model(graph(tensors=[tensor])), varint(GRAPH_TAG | 1 << 32))
    output = onnxruntime.InferenceSession(data).run(None, {"x": np.zeros(4, np.float32)})[0]
    assert output.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_a_location_split_over_repeated_fields_is_found() -> None:
    # Protobuf merges a singular message that is repeated, and takes the last of a repeated string.
    first, second = in_initializer("gate.bin").SerializeToString(), in_initializer("other.bin").SerializeToString()
    assert scan_graph(first + second).locations == {"gate.bin", "other.bin"}
    entry = b"\x0a\x08location\x12\x08gate.bin\x12\x09other.bin"
    tensor = external("gate.bin")
    tensor.ClearField("external_data")
    raw = tensor.SerializeToString() + b"\x6a" + varint(len(entry)) + entry
    body = b"\x2a" + varint(len(raw)) + raw
    data = b"\x3a" + varint(len(body)) + body
    assert onnx.load_from_string(data).graph.initializer[0].external_data[0].value == "other.bin"
    assert scan_graph(data).locations == {"other.bin"}


def test_a_truncated_graph_is_refused_at_every_length() -> None:
    data = in_branch(GATE_NAME).SerializeToString()
    complete = []
    for length in range(len(data)):
        try:
            scan_graph(data[:length])
        except ArtifactError:
            continue
        complete.append(length)
    # Only the bounds between the fields of the model itself are well-formed ends.
    assert 0 in complete
    assert len(complete) <= 4


MALFORMED = {
    "a tag without value": b"\x3a",
    "a length beyond the end": b"\x3a\x05abc",
    "a length of 2**63": b"\x3a" + varint(2**63),
    "a varint of eleven bytes": b"\x08" + b"\x80" * 10 + b"\x01",
    "an endless varint": b"\xff" * 64,
    "a group": b"\x3b\x3c",
    "the end of a group": b"\x3c",
    "wire type 6": b"\x3e\x00",
    "wire type 7": b"\x3f\x00",
    "half a fixed64": b"\x09abc",
    "half a fixed32": b"\x0dabc",
    "an operator that is not UTF-8": b"\x3a\x06\x0a\x04\x22\x02\xff\xfe",
    "an entry that is not UTF-8": b"\x72\x03\x0a\x01\xff",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_protobuf_is_refused(case: str) -> None:
    with pytest.raises(ArtifactError, match="not a well-formed ONNX graph") as caught:
        scan_graph(MALFORMED[case])
    assert caught.value.hint


@pytest.mark.parametrize("levels", [22, 1000])
def test_deep_nesting_is_refused_without_recursion(levels: int) -> None:
    data = b""
    for _ in range(levels):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # a graph in an attribute in a node in a graph
            data = tag + varint(len(data)) + data
    with pytest.raises(ArtifactError, match="nested too deeply"):
        scan_graph(b"\x3a" + varint(len(data)) + data)


def test_nesting_that_networks_have_is_accepted() -> None:
    body = graph()
    for _ in range(15):
        body = graph([helper.make_node("If", ["c"], ["y"], then_branch=body)])
    scan_graph(model(body).SerializeToString())


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300))
def test_random_bytes_give_facts_or_an_artifact_error(data: bytes) -> None:
    try:
        scan_graph(data)
    except ArtifactError as error:
        assert error.hint


_real = b"".join(place(GATE_NAME).SerializeToString() for place in PLACES)
_edits = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "repeat"]), st.integers(0, len(_real)), st.integers(0, 255)),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=500)
@given(_edits)
def test_mutations_of_a_real_graph_give_facts_or_an_artifact_error(edits: list[tuple[str, int, int]]) -> None:
    data = bytearray(_real)
    for kind, position, byte in edits:
        position = min(position, len(data) - 1)
        if kind == "flip":
            data[position] ^= byte
        elif kind == "cut":
            del data[position : position + byte % 8]
        elif kind == "insert":
            data[position:position] = bytes([byte])
        else:
            data[position:position] = data[position : position + byte % 32]
        data = data or bytearray(b"\0")
    try:
        scan_graph(bytes(data))
    except ArtifactError as error:
        assert error.hint


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(PLACES), st.text(max_size=12), st.integers(0, 2**16))
def test_whatever_onnx_still_reads_after_a_mutation_the_scanner_finds(
    place: Callable[[str], onnx.ModelProto], location: str, bit: int
) -> None:
    data = bytearray(place(location).SerializeToString())
    bit %= 8 * len(data)
    data[bit // 8] ^= 1 << bit % 8
    try:
        parsed = onnx.load_from_string(bytes(data))
        facts = scan_graph(bytes(data))
    except (ArtifactError, ValueError, DecodeError, onnx.onnx_cpp2py_export.checker.ValidationError):
        return
    found = {e.value for t in parsed.graph.initializer for e in t.external_data if e.key == "location"}
    assert found <= facts.locations


def test_what_is_read_is_what_is_scanned(made: LockedModel) -> None:
    with read_model_files(made.path) as files:
        assert files.facts == scan_graph(files.graph)
