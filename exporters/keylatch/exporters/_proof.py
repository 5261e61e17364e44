"""Prove an export: what onnxruntime computes is what the PyTorch module computes, keyed and locked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
import torch

from keylatch.errors import ProofError
from keylatch.locks import InputSpec, LockedModule, LockSecret, sample_images
from keylatch.runtime import GRAPH_NAME, choose_pairs, known_answer_input, new_question

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

# Largest error as a share of the output range. bfloat16 is proved in float32, by a twin of the graph; what the PyTorch
# module has in float32 still are numbers written in its code, which the graph rounds by up to 2^-9.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 2e-3}
LEAST_DIFFERENCE = 0.05
_IMAGES = 3
_FEW_OUTPUTS = 64  # a network with fewer outputs answers on more images, so that chance cannot pass
_QUESTIONS, _QUESTIONS_OF_FEW_OUTPUTS = (1, 4, 16), (8, 32, 64)  # images in each try; a reader takes 64


@dataclass(frozen=True, slots=True)
class Proof:
    """What the export was held to; errors are shares of the output range.

    Attributes:
        keyed_error: onnxruntime with the secret values against the opened PyTorch module.
        locked_error: onnxruntime with the locked defaults against the locked PyTorch module.
        locked_difference: Locked against keyed outputs.
        known_answer: Question and answer for the vault.
        fingerprint_change: How far a license's word moves outputs, at most, of the words that were tried; 0 without.
        ran_on: The onnxruntime provider that ran the artifact as it is; "" if only its float32 twin was run, because
            this onnxruntime has no bfloat16.
        rounding_error: bfloat16 only: outputs against the twin's, on that provider, or with every operator's result
            rounded to bfloat16 where there is none.
    """

    keyed_error: float
    locked_error: float
    locked_difference: float
    known_answer: dict[str, Array]
    fingerprint_change: float = 0.0
    ran_on: str = "CPUExecutionProvider"
    rounding_error: float = 0.0


def prove(
    directory: Path,
    module: LockedModule,
    secret: LockSecret,
    values: Mapping[str, Array],
    precision: str,
    rounding: float = 0.0,
) -> Proof:
    """Hold an exported model against its module.

    Args:
        directory: Where model.onnx, its weights and gate.bin lie.
        module: The locked module, float32, of the same input convention.
        secret: What opens it.
        values: The secret values in the exported dtypes.
        precision: What the artifact computes in.
        rounding: bfloat16 only: how far that moves an output, as a share of the output range.

    Raises:
        ProofError: If the ONNX file is invalid, an output differs too much, or the lock does not lock.
    """
    _check_onnx(directory / GRAPH_NAME)
    keyed, locked = open_stock(directory, values), open_stock(directory, {})
    images = test_images(module.spec)
    keyed_outputs, locked_outputs = run_all(keyed, images), run_all(locked, images)
    with torch.no_grad():
        expected_locked = [output.float().numpy() for output in module.flat(torch.from_numpy(images))]
        with module.opened(secret):
            expected_keyed = [output.float().numpy() for output in module.flat(torch.from_numpy(images))]
    keyed_error = relative_difference(keyed_outputs, expected_keyed)
    locked_error = relative_difference(locked_outputs, expected_locked)
    difference = relative_difference(locked_outputs, keyed_outputs)
    if not keyed_error <= TOLERANCE[precision]:
        raise ProofError(
            f"keyed onnxruntime output differs from PyTorch by {keyed_error:.1e} of the output range, "
            f"expected at most {TOLERANCE[precision]:.0e}",
            hint="try float32, or gate other layers" if precision == "float16" else "try another opset",
        )
    # Without a domain's weights a network still works on its own: how far it is off is not for made images to say.
    alone = bool(module.withheld.domains) and module.gate is None and module.blocks is None
    if not difference >= LEAST_DIFFERENCE and not alone:
        raise ProofError(
            f"the locked output differs from the keyed one by only {difference:.1e} of the output range",
            hint="does the network have trained weights? gate other layers with layers=[...]",
        )
    known_answer = known_answer_of(keyed, locked, module.spec, rounding=rounding, alone=alone)
    return Proof(keyed_error, locked_error, difference, known_answer)


def _check_onnx(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError) as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise ProofError(f"onnx.checker refuses the exported model: {first}", hint="try another opset") from error


def open_stock(
    directory: Path, values: Mapping[str, Array], providers: Sequence[str] = ("CPUExecutionProvider",)
) -> Any:
    """Open a model in stock onnxruntime, from its path, with some initializers overridden."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if values:
        options.add_external_initializers(
            list(values), [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in values.values()]
        )
    return onnxruntime.InferenceSession(str(directory / GRAPH_NAME), options, providers=list(providers))


def test_images(spec: InputSpec, count: int = _IMAGES) -> Array:
    """Made images in a network's convention, (count, *spec.shape)."""
    images: Array = spec.from_pixels(sample_images(count, spec.channels, spec.height, spec.width)).numpy()
    return images


def run_all(session: Any, images: Array) -> list[Array]:
    """All outputs of a session, run as one batch and as a single image, so that the batch dimension is proved free."""
    name = session.get_inputs()[0].name
    whole: list[Array] = session.run(None, {name: images})
    single = session.run(None, {name: images[:1]})
    for all_at_once, alone in zip(whole, single, strict=True):
        if alone.shape != (1, *all_at_once.shape[1:]):
            raise ProofError(
                f"for one image the output has shape {alone.shape}, expected {(1, *all_at_once.shape[1:])}",
                hint="the network must keep the batch as its first dimension",
            )
    return whole


def relative_difference(outputs: Sequence[Array], expected: Sequence[Array]) -> float:
    """Largest difference over all outputs, each as a share of its expected range."""
    worst = 0.0
    for output, reference in zip(outputs, expected, strict=True):
        span = max(float(np.ptp(reference.astype(np.float64))), 1e-12)
        difference = np.abs(output.astype(np.float64) - reference.astype(np.float64)).max()
        worst = max(worst, float(difference) / span) if np.isfinite(difference) else float("inf")
    return worst


def known_answer_of(
    keyed: Any, locked: Any, spec: InputSpec, *, rounding: float = 0.0, alone: bool = False
) -> dict[str, Array]:
    """A question that tells the two networks apart; more images where one does not.

    Args:
        keyed: A session with the secret values.
        locked: One with the locked defaults.
        spec: The input convention.
        rounding: How far the artifact's precision moves an output, as a share of the output range.
        alone: Whether a question will do that both answer alike: a license for no domain opens what the file shows.

    Raises:
        ProofError: If there is no such question.
    """
    few = run_all(keyed, test_images(spec, 1))[0].size < _FEW_OUTPUTS
    name = keyed.get_inputs()[0].name
    for images in _QUESTIONS_OF_FEW_OUTPUTS if few else _QUESTIONS:
        question = new_question(images)
        image = known_answer_input(question, spec.shape, spec.dtype)
        right, wrong = (session.run(None, {name: image})[0] for session in (keyed, locked))
        pairs, bits = choose_pairs(right, wrong, np.random.default_rng(), rounding)
        if len(pairs) >= 2:
            return {**question, "known_answer.pairs": pairs, "known_answer.bits": bits}
    if alone:
        pairs, bits = choose_pairs(right, -right, np.random.default_rng(), rounding)
        if len(pairs) >= 2:
            return {**question, "known_answer.pairs": pairs, "known_answer.bits": bits}
    raise ProofError(
        "the locked and the keyed network answer the fixed test inputs in the same order",
        hint="gate more layers with gates=, or others with layers=[...]; train a block transform longer",
    )
