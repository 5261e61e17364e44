"""Sealed weights in an artifact: keyed it is the plain export, bit for bit and node for node."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from torch import nn
from withheld_artifacts import Mixed, license_of, opened, output, stock

from keylatch.errors import ExportError, IntegrityError, LicenseRequiredError
from keylatch.exporters import Exported, export, export_plain
from keylatch.locks import Locked, seal_lock
from keylatch.runtime import VALUES_KEY_NAME, VALUES_NAME, InferenceSession, read_manifest
from networks import SPEC, settle

SEED = bytes(32)


@dataclass(frozen=True)
class Made:
    """A network, its plain export, and it sealed and exported."""

    network: nn.Module
    plain: Path
    locked: Locked
    exported: Exported

    @property
    def values(self) -> dict[str, np.ndarray]:
        return {k: v for k, v in self.exported.secret_values.items() if k.startswith("withheld_")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder, network = tmp_path_factory.mktemp("withheld"), settle(Mixed)
    locked = seal_lock(network, SPEC, share=0.2, by="random", seed=SEED)
    exported = export(locked.module, locked.secret, folder / "net.latch", report=locked.report)
    return Made(network, export_plain(network, SPEC, folder / "plain"), locked, exported)


@pytest.fixture(scope="module")
def aside(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """All weights withheld, the values beside the model."""
    folder, network = tmp_path_factory.mktemp("aside"), settle(Mixed)
    locked = seal_lock(network, SPEC, share=1.0, seed=SEED)
    exported = export(locked.module, locked.secret, folder / "net.latch", report=locked.report, side_file=True)
    return Made(network, export_plain(network, SPEC, folder / "plain"), locked, exported)


def test_keyed_it_is_the_plain_export_bit_for_bit(made: Made, tmp_path: Path) -> None:
    kinds = {part.parameter: part.kind for part in made.locked.module.withheld.parts}
    assert {"conv.weight", "grouped.weight", "tokens.weight", "square.weight"} <= kinds.keys()
    session = opened(made.exported.path, license_of(made.exported, tmp_path), tmp_path)
    np.testing.assert_array_equal(output(session), output(stock(made.plain)))


def test_keyed_it_runs_the_plain_networks_nodes(made: Made, tmp_path: Path) -> None:
    stock(made.plain, optimized=tmp_path / "plain.onnx")
    stock(made.exported.path / "model.onnx", made.values, optimized=tmp_path / "keyed.onnx")
    plain, keyed = (onnx.load(tmp_path / name, load_external_data=False) for name in ("plain.onnx", "keyed.onnx"))
    assert [node.op_type for node in keyed.graph.node] == [node.op_type for node in plain.graph.node]


def test_many_single_weights_are_scattered_over_the_flat_weight(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keylatch.exporters._withheld_weights._INDEX_BYTES", 0)
    exported = export(made.locked.module, made.locked.secret, tmp_path / "net.latch")
    graph = onnx.load(exported.path / "model.onnx", load_external_data=False).graph
    assert "ScatterElements" in {node.op_type for node in graph.node}
    session = opened(exported.path, license_of(exported, tmp_path), tmp_path)
    np.testing.assert_array_equal(output(session), output(stock(made.plain)))


def test_locked_it_answers_otherwise_and_opens_in_stock_onnxruntime(made: Made) -> None:
    locked, plain = output(stock(made.exported.path / "model.onnx")), output(stock(made.plain))
    assert np.abs(locked - plain).max() > 0.05 * np.ptp(plain)


def test_no_withheld_value_is_in_any_file(made: Made, aside: Made) -> None:
    for each in (made, aside):
        written = b"".join(file.read_bytes() for file in each.exported.path.iterdir())
        for value in each.locked.secret.withheld:
            rows = value.numpy().reshape(len(value), -1) if value.dim() > 1 else value.numpy()[None]
            assert not any(row.tobytes() in written for row in rows if row.size >= 4)
        # of a convolution with its normalization folded in as well
        folded = each.values.get("withheld_0")
        assert folded is None or not any(row.tobytes() in written for row in folded)


def test_half_precision_opens(tmp_path: Path) -> None:
    network = settle(Mixed)
    locked = seal_lock(network, SPEC, share=0.2, by="random", seed=SEED)
    exported = export(locked.module, locked.secret, tmp_path / "half.latch", precision="float16")
    assert {v.dtype.name for k, v in exported.secret_values.items() if k.startswith("withheld_")} == {"float16"}
    assert exported.proof.keyed_error < 2e-2


def test_values_beside_the_model_open_it(aside: Made, tmp_path: Path) -> None:
    license = license_of(aside.exported, tmp_path)
    session = opened(aside.exported.path, license, tmp_path)
    np.testing.assert_array_equal(output(session), output(stock(aside.plain)))
    assert len(license.blob) < 10_000
    assert not any(name.startswith("withheld_") for name in aside.values if name != VALUES_KEY_NAME)


def test_the_manifest_says_what_lies_beside(aside: Made) -> None:
    manifest, _ = read_manifest(aside.exported.path)
    assert [tensor.name for tensor in manifest.aside] == [f"withheld_{i}" for i in range(len(manifest.gate))]
    assert manifest.values is not None
    assert manifest.values.size_bytes == (aside.exported.path / VALUES_NAME).stat().st_size
    assert [tensor.name for tensor in manifest.secrets] == [VALUES_KEY_NAME]


def test_with_values_aside_it_still_runs_locked(aside: Made) -> None:
    session = InferenceSession.locked(aside.exported.path, providers=["CPUExecutionProvider"])
    assert np.abs(output(session) - output(stock(aside.plain))).max() > 0.05 * np.ptp(output(stock(aside.plain)))


def test_both_encrypted_files_go_together(made: Made, tmp_path: Path) -> None:
    exported = export(
        made.locked.module, made.locked.secret, tmp_path / "net.latch", side_file=True, sealed_weights=True
    )
    session = opened(exported.path, license_of(exported, tmp_path), tmp_path)
    np.testing.assert_array_equal(output(session), output(stock(made.plain)))
    with pytest.raises(LicenseRequiredError):
        InferenceSession.locked(exported.path)


CHANGES = {
    "a flipped byte": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "a flipped byte in the last tag": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "the weights of zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_side_file_is_refused(aside: Made, change: str, tmp_path: Path) -> None:

    copy = shutil.copytree(aside.exported.path, tmp_path / "net.latch")
    (copy / VALUES_NAME).write_bytes(CHANGES[change]((copy / VALUES_NAME).read_bytes()))
    with pytest.raises(IntegrityError):
        opened(copy, license_of(aside.exported, tmp_path), tmp_path)


def test_the_side_file_of_another_export_is_refused(aside: Made, tmp_path: Path) -> None:

    other = export(aside.locked.module, aside.locked.secret, tmp_path / "other.latch", side_file=True)
    shutil.copy(other.path / VALUES_NAME, tmp_path / "values")
    copy = shutil.copytree(aside.exported.path, tmp_path / "net.latch")
    shutil.copy(tmp_path / "values", copy / VALUES_NAME)
    with pytest.raises(IntegrityError):
        opened(copy, license_of(aside.exported, tmp_path), tmp_path)


def test_what_cannot_lie_beside_is_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="each license brings other values"):
        export(made.locked.module, made.locked.secret, tmp_path / "a.latch", side_file=True, fingerprint=True)
    assert not list(tmp_path.iterdir())


def test_a_license_that_would_be_too_large_is_refused(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keylatch.exporters._artifact_files._LICENSE_BYTES", 1000)
    with pytest.raises(ExportError, match=r"a license would carry [\d,]+ bytes, expected at most 1,000") as raised:
        export(made.locked.module, made.locked.secret, tmp_path / "a.latch", side_file=False)
    assert "side file" in str(raised.value.hint)
    assert not list(tmp_path.iterdir())


def test_large_values_lie_beside_by_themselves(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keylatch.exporters._artifact_files.SIDE_FILE_BYTES", 1000)
    exported = export(made.locked.module, made.locked.secret, tmp_path / "a.latch")
    assert (exported.path / VALUES_NAME).exists()
    assert not (made.exported.path / VALUES_NAME).exists()
