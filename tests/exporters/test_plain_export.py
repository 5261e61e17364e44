"""Exporting without a lock: the baseline of benchmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import keylatch.exporters
import networks
from keylatch.errors import ExportError
from keylatch.exporters import METADATA_KEY, export_plain


@pytest.mark.parametrize(
    "build",
    [networks.PaddedConvs, networks.Tokens, lambda: networks.Returning("tuple"), lambda: networks.Returning("dict")],
)
def test_a_plain_model_computes_what_torch_computes(build: object, tmp_path: Path) -> None:
    network = networks.settle(build)
    path = export_plain(network, networks.SPEC, tmp_path / "plain")
    images = networks.prepare(networks.pixels(5), networks.SPEC)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        outputs = session.run(None, {"image": images[:batch].numpy()})
        expected = torch.utils._pytree.tree_leaves(networks.outputs_of(network, images[:batch]))
        assert len(outputs) == len(expected)
        for ours, theirs in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5 * np.ptp(theirs.numpy()))


def test_a_plain_model_has_no_gate_and_no_lock(tmp_path: Path) -> None:
    path = export_plain(networks.settle(networks.PaddedConvs), networks.SPEC, tmp_path / "deep" / "plain")
    assert path == tmp_path / "deep" / "plain" / "model.onnx"
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    model = onnx.load(path)
    assert METADATA_KEY not in [entry.key for entry in model.metadata_props]
    assert not [tensor.name for tensor in model.graph.initializer if "gate" in tensor.name]
    assert b".py" not in path.read_bytes()


def test_an_existing_place_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "dear").write_bytes(b"dear")
    with pytest.raises(ExportError, match="exists already") as caught:
        export_plain(networks.settle(networks.PaddedConvs), networks.SPEC, tmp_path)
    assert caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["dear"]


def test_exporting_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    network = networks.settle(networks.PaddedConvs)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    export_plain(network, networks.SPEC, tmp_path / "plain")
    assert not network.training
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())


def test_the_public_names_are_sorted_and_exist() -> None:
    names = keylatch.exporters.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name.islower(), name))
    assert all(hasattr(keylatch.exporters, name) for name in names)
