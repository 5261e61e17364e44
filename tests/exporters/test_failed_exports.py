"""The proof, and that an export which fails leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from artifacts import FILES, Artifact

import networks
from keylatch.errors import ExportError, LockError, ProofError
from keylatch.exporters import Exported, _export, _locked_graph, _proof, describe_proof, export
from networks import Locked

_TRANSLATED: list[bytes] = []


@pytest.fixture(autouse=True)
def _translated_once(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests fail after the translation to ONNX: translate the digits classifier once, and hand out copies."""
    translate = _locked_graph.to_onnx

    def to_onnx(network: Any, spec: Any, names: tuple[str, ...], *, opset: int | None = None) -> Any:
        closed = not network.gate.mask.any() and next(network.parameters()).dtype == torch.float32
        if network.description != artifact.locked.module.description or spec != networks.SPEC or not closed:
            return translate(network, spec, names, opset=opset)
        if not _TRANSLATED:
            _TRANSLATED.append(ir.to_proto(translate(network, spec, names)).SerializeToString())
        return ir.from_proto(onnx.ModelProto.FromString(_TRANSLATED[0]))

    monkeypatch.setattr(_locked_graph, "to_onnx", to_onnx)


def try_export(locked: Locked, path: Path, **options: Any) -> Exported:
    return export(locked.module, locked.secret, path, **options)


def everything_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize(
    ("fixture", "tolerance"), [("artifact", 1e-4), ("half_artifact", 2e-2), ("byte_artifact", 1e-4)]
)
def test_an_export_returns_what_it_was_held_to(request: pytest.FixtureRequest, fixture: str, tolerance: float) -> None:
    proof = request.getfixturevalue(fixture).exported.proof
    assert 0 <= proof.keyed_error <= tolerance
    assert proof.locked_difference >= 0.1
    assert describe_proof(proof) == {
        "keyed_error": proof.keyed_error,
        "locked_error": proof.locked_error,
        "locked_difference": proof.locked_difference,
        "fingerprint_change": 0.0,
        "ran_on": "CPUExecutionProvider",
        "rounding_error": 0.0,
    }


def test_the_keyed_error_is_the_measured_one(artifact: Artifact) -> None:
    spec, module = networks.SPEC, artifact.locked.module
    images = networks.prepare(networks.pixels(3), spec)
    with module.opened(artifact.locked.secret):
        expected = networks.outputs_of(module, images).numpy()
    keyed, locked = artifact.run(images.numpy(), artifact.gate_values), artifact.run(images.numpy())
    proof = artifact.exported.proof
    assert proof.keyed_error == pytest.approx(np.abs(keyed - expected).max() / np.ptp(expected), abs=1e-6)
    assert proof.locked_difference == pytest.approx(np.abs(locked - keyed).max() / np.ptp(keyed), rel=1e-3)


def fail_by_tolerance(patch: pytest.MonkeyPatch, locked: Locked) -> Locked:
    patch.setitem(_proof.TOLERANCE, "float32", -1.0)
    return locked


def fail_by_wrong_values(patch: pytest.MonkeyPatch, locked: Locked) -> Locked:
    prove = _export.prove

    def corrupted(folder: Path, module: Any, secret: Any, values: dict[str, Any], *rest: Any) -> Any:
        wrong = {**values, "gate.patch": values["gate.patch"] * 0}
        return prove(folder, module, secret, wrong, *rest)

    patch.setattr(_export, "prove", corrupted)
    return locked


def fail_by_a_lock_that_does_not_lock(patch: pytest.MonkeyPatch, locked: Locked) -> Locked:
    # The "secret" is what stands in the file already.
    defaults = {name: value.clone() for name, value in locked.module.gate_tensors().items()}
    patch.setattr(type(locked.module), "secret_values", lambda self, secret: defaults)
    return locked


def fail_by_an_invalid_graph(patch: pytest.MonkeyPatch, locked: Locked) -> Locked:
    def refuse(path: str) -> None:
        raise onnx.checker.ValidationError("no such operator")

    patch.setattr(onnx.checker, "check_model", refuse)
    return locked


FAILURES = {
    fail_by_tolerance: "keyed onnxruntime output differs from PyTorch by",
    fail_by_wrong_values: "keyed onnxruntime output differs from PyTorch by",
    fail_by_a_lock_that_does_not_lock: "locked output differs from the keyed one by only",
    fail_by_an_invalid_graph: "onnx.checker refuses the exported model: no such operator",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_proof_leaves_nothing_behind(
    locked_digits: Locked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Any
) -> None:
    locked = failure(monkeypatch, locked_digits)
    with pytest.raises(ProofError, match=FAILURES[failure]) as caught:
        try_export(locked, tmp_path / "digits.latch")
    assert caught.value.hint
    assert everything_below(tmp_path) == []


@pytest.mark.parametrize(
    ("place", "error"),
    [("write_graph", OSError(28, "No space left")), ("write_manifest", OSError(28, "No space left")),
     ("publish", OSError(28, "No space left")), ("prove", KeyboardInterrupt())],
)  # fmt: skip
def test_an_interrupted_export_leaves_nothing_behind(
    locked_digits: Locked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: BaseException
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(_export, place, fail)
    with pytest.raises(type(error)):
        try_export(locked_digits, tmp_path / "digits.latch")
    assert everything_below(tmp_path) == []


def test_an_existing_artifact_is_not_touched(locked_digits: Locked, tmp_path: Path) -> None:
    target = tmp_path / "digits.latch"
    target.mkdir()
    (target / "dear").write_bytes(b"dear")
    with pytest.raises(ExportError, match="exists already") as caught:
        try_export(locked_digits, target)
    assert caught.value.hint
    assert everything_below(tmp_path) == [target, target / "dear"]


def test_an_artifact_is_replaced_on_request(locked_digits: Locked, tmp_path: Path) -> None:
    target = tmp_path / "digits.latch"
    target.mkdir()
    (target / "old").write_bytes(b"old")
    exported = try_export(locked_digits, target, overwrite=True)
    assert exported.path == target
    assert everything_below(tmp_path) == [target, *(target / name for name in FILES)]


def test_the_old_artifact_stays_if_the_new_export_fails(
    locked_digits: Locked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "digits.latch"
    target.mkdir()
    (target / "dear").write_bytes(b"dear")
    monkeypatch.setitem(_proof.TOLERANCE, "float32", -1.0)
    with pytest.raises(ProofError):
        try_export(locked_digits, target, overwrite=True)
    assert everything_below(tmp_path) == [target, target / "dear"]


def test_the_old_artifact_comes_back_if_the_new_one_cannot_be_moved_in(
    locked_digits: Locked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "digits.latch"
    target.mkdir()
    (target / "dear").write_bytes(b"dear")
    rename = Path.rename

    def fail_once(self: Path, to: Path) -> Path:
        if (self / "manifest.json").exists():
            raise OSError(28, "No space left on device")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(OSError, match="No space left"):
        try_export(locked_digits, target, overwrite=True)
    assert everything_below(tmp_path) == [target, target / "dear"]


def test_a_missing_folder_is_refused_before_any_work(
    locked_digits: Locked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_locked_graph, "to_onnx", lambda *arguments, **options: pytest.fail("exported already"))
    with pytest.raises(ExportError, match="does not exist") as caught:
        try_export(locked_digits, tmp_path / "missing" / "digits.latch")
    assert caught.value.hint == "create it first"
    assert everything_below(tmp_path) == []


def test_the_secret_of_another_lock_is_refused(locked_digits: Locked, tmp_path: Path) -> None:
    other = networks.lock(networks.settle(networks.Residual))
    with pytest.raises(LockError, match="does not fit"):
        export(locked_digits.module, other.secret, tmp_path / "digits.latch")
    assert everything_below(tmp_path) == []


def test_an_opened_module_is_not_exported(locked_digits: Locked, tmp_path: Path) -> None:
    # Its gate tensors would go into gate.bin as they are.
    with locked_digits.module.opened(locked_digits.secret), pytest.raises(LockError, match="opened"):
        try_export(locked_digits, tmp_path / "digits.latch")
    assert everything_below(tmp_path) == []


@pytest.mark.parametrize("change", ["drop", "retype", "reshape"])
def test_a_gate_tensor_that_the_exporter_changed_is_refused(
    locked_digits: Locked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    to_onnx = _locked_graph.to_onnx

    def changed(*arguments: Any, **options: Any) -> Any:
        model = to_onnx(*arguments, **options)
        value = model.graph.initializers["body.gate_mean_1"]
        array = value.const_value.numpy()
        if change == "drop":
            del model.graph.initializers["body.gate_mean_1"]
        else:
            array = array.astype(np.float64) if change == "retype" else array.reshape(-1)
            value.const_value = ir.tensor(array, name="body.gate_mean_1")
        return model

    monkeypatch.setattr(_locked_graph, "to_onnx", changed)
    with pytest.raises(ExportError, match=r"changed the gate tensor body\.gate_mean_1") as caught:
        try_export(locked_digits, tmp_path / "digits.latch")
    assert caught.value.hint
    assert everything_below(tmp_path) == []


def test_what_torch_onnx_cannot_export_is_an_export_error(tmp_path: Path) -> None:
    class Histogram(networks.PaddedConvs):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.special.bessel_j0(x.mean((1, 2, 3)))[:, None]

    locked = networks.lock(networks.settle(Histogram))
    with pytest.raises(ExportError, match=r"torch\.onnx cannot export this network: ") as caught:
        try_export(locked, tmp_path / "m.latch")
    assert caught.value.hint
    assert everything_below(tmp_path) == []


def test_exporting_changes_neither_the_module_nor_its_defaults(locked_digits: Locked, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in locked_digits.module.state_dict().items()}
    try_export(locked_digits, tmp_path / "half.latch", precision="float16", uint8_input=True)
    after = locked_digits.module.state_dict()
    assert all(torch.equal(value, after[name]) and value.dtype == after[name].dtype for name, value in before.items())


def test_a_batch_dimension_that_is_not_kept_is_refused() -> None:
    class Session:
        def get_inputs(self) -> list[Any]:
            return [type("Node", (), {"name": "image"})]

        def run(self, names: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [np.zeros((3, 10))]

    with pytest.raises(ProofError, match=r"for one image the output has shape \(3, 10\), expected \(1, 10\)"):
        _proof.run_all(Session(), np.zeros((3, 3, 8, 8)))


def test_outputs_that_are_not_finite_prove_nothing() -> None:
    good = np.arange(4.0)
    assert _proof.relative_difference([good], [good]) == 0
    assert _proof.relative_difference([good + 3], [good]) == pytest.approx(1.0)
    for bad in (np.nan, np.inf):
        assert _proof.relative_difference([np.array([0, 1, 2, bad])], [good]) == float("inf")


def test_a_corrupt_secret_with_the_right_shape_is_still_held_against_torch(
    locked_digits: Locked, tmp_path: Path
) -> None:
    # A wrong secret opens neither: the proof cannot know it is wrong, only that both sides agree or nothing is kept.
    wrong = replace(locked_digits.secret, means=tuple(mean + torch.nan for mean in locked_digits.secret.means))
    with pytest.raises(ProofError):
        export(locked_digits.module, wrong, tmp_path / "digits.latch")
    assert everything_below(tmp_path) == []
