from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from trace_world import LICENSES, MarkedModel, fine_tuned, write_opened

import networks
from keylatch.errors import ArtifactError, InputError
from keylatch.keys import Fingerprint
from keylatch.trace import Marks, read_leak, trace_weights
from keylatch.trace._alignment import Counterpart
from keylatch.trace._residual import evidence

CULPRIT = 7
DRAWS = np.random.default_rng(0)


def test_an_opened_model_names_its_license_and_no_other(model: MarkedModel, tmp_path: Path) -> None:
    found = trace_weights(read_leak(write_opened(model, model.copy_of(CULPRIT), tmp_path)), model.marks)
    assert model.names(found) == [CULPRIT]
    assert found.verdict == "named"
    assert found.named[0].log10_chance < -6
    assert found.suspects[1].score < found.threshold < found.suspects[0].score
    assert found.candidates == LICENSES


def test_every_license_is_told_from_every_other(model: MarkedModel) -> None:
    for index in range(LICENSES):
        assert model.names(trace_weights(model.weights(model.copy_of(index)), model.marks)) == [index]


@pytest.mark.parametrize("kind", [QuantType.QInt8, QuantType.QUInt8], ids=["int8", "uint8"])
@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
def test_a_quantized_model_names_its_license(
    model: MarkedModel, tmp_path: Path, kind: QuantType, per_channel: bool
) -> None:
    path = write_opened(model, model.copy_of(CULPRIT), tmp_path)
    quantized = tmp_path / "quantized.onnx"
    quantize_dynamic(path, quantized, weight_type=kind, per_channel=per_channel)
    leak = read_leak(quantized)
    assert any(tensor.dtype in (np.int8, np.uint8) and tensor.ndim == 4 for tensor in leak.values())
    assert model.names(trace_weights(leak, model.marks)) == [CULPRIT]


def test_a_fine_tuned_model_names_its_license(model: MarkedModel) -> None:
    leak = fine_tuned(model, model.copy_of(CULPRIT), rate=1e-2)
    moved = max(float(np.abs(leak[name] - 0).max()) for name in leak)
    assert moved > 0
    assert model.names(trace_weights(leak, model.marks)) == [CULPRIT]


def test_pruning_rounding_renaming_and_rescaling_do_not_help(model: MarkedModel, tmp_path: Path) -> None:
    weights = model.weights(model.copy_of(CULPRIT))
    changed = {}
    for index, (name, value) in enumerate(weights.items()):
        least = np.quantile(np.abs(value), 0.3)
        scales = DRAWS.uniform(0.2, 5.0, (len(value),) + (1,) * (value.ndim - 1))
        pruned = np.where(np.abs(value) < least, 0, value * scales).astype(np.float16)
        changed[f"renamed {index}"] = np.moveaxis(pruned, 0, -1)
        assert name not in changed
    np.savez(tmp_path / "leak.npz", **changed)
    assert model.names(trace_weights(read_leak(tmp_path / "leak.npz"), model.marks)) == [CULPRIT]


def mixes(copies: list[np.ndarray]) -> dict[str, np.ndarray]:
    stack = np.stack(copies)
    picked = DRAWS.integers(0, len(copies), stack.shape[1:])
    return {
        "average": stack.mean(0),
        "median": np.median(stack, axis=0),
        "smallest": stack.min(0),
        "largest": stack.max(0),
        "picked at random": np.take_along_axis(stack, picked[None], 0)[0],
    }


@pytest.mark.parametrize("mix", ["average", "median", "smallest", "largest", "picked at random"])
def test_colluders_are_named_and_nobody_else(model: MarkedModel, mix: str) -> None:
    culprits = [3, 11, 29]
    copies = [model.weights(model.copy_of(index)) for index in culprits]
    leak = {name: mixes([copy[name] for copy in copies])[mix] for name in copies[0]}
    assert model.names(trace_weights(leak, model.marks)) == culprits


def test_a_state_dict_is_read(model: MarkedModel, tmp_path: Path) -> None:
    import safetensors.torch

    state = {name: torch.from_numpy(value) for name, value in model.weights(model.copy_of(CULPRIT)).items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "leak.pt")
    safetensors.torch.save_file(
        {name: value.bfloat16() for name, value in state.items()}, tmp_path / "leak.safetensors"
    )
    for file in ("leak.pt", "leak.safetensors"):
        assert model.names(trace_weights(read_leak(tmp_path / file), model.marks)) == [CULPRIT]


def test_the_unmarked_model_and_foreign_words_name_nobody(model: MarkedModel) -> None:
    foreign = Fingerprint(bytes(32), model.marks.fingerprint.steps)
    for values in (model.marks.values, foreign.marked(model.marks.values, model.marks.licenses[0].mark)):
        found = trace_weights(model.weights(values), model.marks)
        assert found.verdict == "none" and model.names(found) == []
        assert len(found.suspects) == 3  # the nearest are shown, as not named


def test_another_network_of_the_same_architecture_names_nobody(model: MarkedModel) -> None:
    weights = model.weights(model.copy_of(CULPRIT))
    fresh = {name: DRAWS.standard_normal(value.shape) for name, value in weights.items()}
    found = trace_weights(fresh, model.marks)
    assert found.verdict == "none"
    assert not any(fact["used"] for fact in found.evidence)


def test_an_innocent_scores_as_the_bound_allows(model: MarkedModel) -> None:
    """Random leaks against all words: shares above some scores stay below the bound, and not far below a normal's."""
    size = {name: model.marks.values[name].size for name in model.marks.names}
    directions = []
    for _ in range(200):
        parts = {name: DRAWS.standard_normal(count) ** 3 for name, count in size.items()}
        length = np.sqrt(sum((part**2).sum() for part in parts.values()))
        directions.append({name: part / length for name, part in parts.items()})
    scores = model.marks.scores(directions)
    assert scores.shape == (200, LICENSES)
    assert abs(scores.mean()) < 0.05 and scores.std() == pytest.approx(1, abs=0.05)
    for score in (1.0, 2.0, 3.0):
        assert np.mean(scores >= score) <= np.exp(-(score**2) / 2)


def test_each_channel_speaks_as_clearly_as_it_can_be_heard() -> None:
    """A quiet one more than a noisy one; one fitted exactly, as when two weights are left of it, not at all."""
    base, steps = np.zeros((4, 400)), np.array([[0.1], [0.001], [0.1], [0.0]])
    word = DRAWS.choice([-1.0, 1.0], base.shape)
    moved = steps * word
    moved[2] = 1e-13 * DRAWS.standard_normal(400)
    noise = DRAWS.standard_normal(base.shape) * np.array([[0.0], [0.01], [0.0], [1.0]])
    said = evidence(Counterpart("leak", base + moved + noise, np.ones(base.shape, dtype=bool), 1.0), base, steps)
    clear, noisy, fitted, unmarked = (said * word).sum(1)
    assert clear == pytest.approx(400)
    assert 0 < noisy < 40
    assert np.abs(said[1]).max() < 0.25
    assert abs(fitted) < 1e-6 and unmarked == 0


def test_another_architecture_is_refused(model: MarkedModel) -> None:
    leak = {name: value.numpy().astype(float) for name, value in networks.Tokens().state_dict().items()}
    with pytest.raises(InputError, match="another architecture") as error:
        trace_weights(leak, model.marks)
    assert error.value.hint


@pytest.mark.parametrize("limit", [0.0, 1.0, -1.0, float("nan")])
def test_a_limit_that_is_no_chance_is_refused(model: MarkedModel, limit: float) -> None:
    with pytest.raises(InputError, match="not between 0 and 1"):
        trace_weights(model.weights(model.marks.values), model.marks, limit=limit)


def test_leaks_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    torch.save({"weight": torch.zeros(3), "code": Attack()}, tmp_path / "code.pt")
    (tmp_path / "noise.npz").write_bytes(b"PK\x03\x04 no zip")
    (tmp_path / "noise.safetensors").write_bytes(bytes(100))
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    for file in ("code.pt", "noise.npz", "noise.safetensors", "empty.pt", "missing.pt"):
        with pytest.raises(InputError) as error:
            read_leak(tmp_path / file)
        assert error.value.hint
    assert not (tmp_path / "ran").exists()
    (tmp_path / "noise.onnx").write_bytes(b"\xff" * 40)
    with pytest.raises(ArtifactError):
        read_leak(tmp_path / "noise.onnx")


def test_a_locked_artifact_by_itself_names_nobody(model: MarkedModel) -> None:
    """Its marked tensors hold locked defaults, which say nothing of any license."""
    found = trace_weights(read_leak(model.exported.path), model.marks)
    assert found.verdict == "none"


def test_marks_need_all_marked_tensors(model: MarkedModel) -> None:
    values = {name: value for name, value in model.marks.values.items() if name != model.marks.names[0]}
    with pytest.raises(InputError, match="lacks the marked tensor"):
        Marks(model.marks.fingerprint, values, model.marks.licenses)


def test_marks_need_licenses(model: MarkedModel) -> None:
    with pytest.raises(InputError, match="no license was issued"):
        Marks(model.marks.fingerprint, model.marks.values, [])
