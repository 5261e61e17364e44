from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from trace_world import MarkedModel

import networks
from keylatch.errors import InputError
from keylatch.trace import read_predictions, trace_predictions

CULPRIT = 12
IMAGES = 120


@pytest.fixture(scope="module")
def images(model: MarkedModel) -> np.ndarray:
    noise = torch.rand((IMAGES, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    return (0.7 * model.digits.images[:IMAGES] + 0.3 * noise).numpy()


@pytest.fixture(scope="module")
def logits(model: MarkedModel, images: np.ndarray) -> np.ndarray:
    return np.asarray(networks.outputs_of(model.opened(model.copy_of(CULPRIT)), torch.from_numpy(images)).double())


def test_logits_name_their_license(model: MarkedModel, images: np.ndarray, logits: np.ndarray) -> None:
    found = trace_predictions(logits, images, model.target, model.marks)
    assert model.names(found) == [CULPRIT]
    assert found.tries == 40  # as many directions as were compared, and the bound counts them
    assert found.evidence[0]["agreement"] > 0.95


def test_an_offset_of_each_image_and_a_softmax_do_not_matter(
    model: MarkedModel, images: np.ndarray, logits: np.ndarray
) -> None:
    shifted = logits + np.arange(IMAGES)[:, None]
    chances = np.exp(logits - logits.max(1, keepdims=True))
    for predictions in (shifted, chances / chances.sum(1, keepdims=True)):
        assert model.names(trace_predictions(predictions, images, model.target, model.marks)) == [CULPRIT]


def test_the_unmarked_models_predictions_and_noise_name_nobody(model: MarkedModel, images: np.ndarray) -> None:
    own = np.asarray(networks.outputs_of(model.opened(model.marks.values), torch.from_numpy(images)).double())
    noise = np.random.default_rng(1).standard_normal(own.shape)
    for predictions in (own, own + 0.05 * noise, 10 * noise):
        assert model.names(trace_predictions(predictions, images, model.target, model.marks)) == []


def test_labels_alone_never_name_somebody_else(model: MarkedModel, images: np.ndarray, logits: np.ndarray) -> None:
    found = trace_predictions(logits.argmax(1)[:, None].astype(float), images, model.target, model.marks)
    assert model.names(found) in ([], [CULPRIT])
    assert found.evidence[0]["agreement"] > 0.95


def test_too_few_predictions_are_refused(model: MarkedModel, images: np.ndarray, logits: np.ndarray) -> None:
    with pytest.raises(InputError, match="too few for a verdict") as error:
        trace_predictions(logits[:4], images[:4], model.target, model.marks)
    assert "more images" in str(error.value.hint)


def test_a_limit_that_is_no_chance_is_refused(model: MarkedModel, images: np.ndarray, logits: np.ndarray) -> None:
    with pytest.raises(InputError, match="not between 0 and 1"):
        trace_predictions(logits, images, model.target, model.marks, limit=0.0)


def test_predictions_that_do_not_fit_are_refused(model: MarkedModel, images: np.ndarray, logits: np.ndarray) -> None:
    cases = [
        (logits[:50], images),
        (logits[:, :7], images),
        (np.full((IMAGES, 1), 10.0), images),
        (np.full((IMAGES, 1), 0.5), images),
        (logits, images[:, :, :30]),
        (logits, images.astype(np.float64)),
    ]
    for predictions, shown in cases:
        with pytest.raises(InputError) as error:
            trace_predictions(predictions, shown, model.target, model.marks)
        assert error.value.hint


def test_tables_are_read_with_and_without_names(tmp_path: Path) -> None:
    (tmp_path / "named.csv").write_text("cat,dog\n1.5,2e-3\n\n-1,4\n", encoding="utf-8-sig")
    (tmp_path / "bare.csv").write_text("1.5,2e-3\n-1,4")
    for file in ("named.csv", "bare.csv"):
        assert read_predictions(tmp_path / file).tolist() == [[1.5, 0.002], [-1.0, 4.0]]


@pytest.mark.parametrize("text", ["", "cat,dog\n", "1,2\n3\n", "1,2\n3,x\n", "1,nan\n", "inf,2\n3,4\n5,inf\n"])
def test_tables_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(InputError, match="no table of finite numbers"):
        read_predictions(tmp_path / "table.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_predictions(tmp_path / "missing.csv")
