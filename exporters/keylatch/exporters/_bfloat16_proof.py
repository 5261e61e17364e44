"""Prove a bfloat16 export: by its float32 twin everywhere, and as it is where CUDA runs.

onnxruntime has no bfloat16 arithmetic for CPUs. So the graph and its constants are proved in float32, tightly; and what
rounding does to the answers is seen on CUDA, or where there is none in a twin that rounds what every operator gives.
That a GPU computes the operators rightly, and has them all, is only seen on one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from keylatch.errors import ProofError
from keylatch.exporters._float32_twin import write_twin
from keylatch.exporters._proof import TOLERANCE, Proof, open_stock, relative_difference, run_all, test_images
from keylatch.locks import InputSpec
from keylatch.runtime import known_answer_input, wrong_answers

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# Of the output range: what float16 may differ by, three bits fewer.
LARGEST_ROUNDING = 8 * TOLERANCE["float16"]


@dataclass(frozen=True, slots=True)
class Provable:
    """A model as onnxruntime can run it here.

    Attributes:
        folder: Where model.onnx, its weights and gate.bin lie: the artifact's, or for bfloat16 its float32 twin's.
        ran_on: The provider that ran the artifact as it is; "" if none did.
        sessions: bfloat16 only: keyed and locked, in bfloat16 on that provider, or rounded to it on the CPU.
        rounding: How far their outputs are from the twin's, as a share of the output range.
        spec: The input convention.
    """

    folder: Path
    spec: InputSpec
    ran_on: str = _CPU
    sessions: tuple[Any, ...] = ()
    rounding: float = 0.0

    def held(self, proof: Proof) -> Proof:
        """The proof of `folder`, with what was seen in bfloat16.

        Raises:
            ProofError: If the known answer does not survive rounding.
        """
        wrong = [self._wrong_answers(session, proof.known_answer) for session in self.sessions]
        alike = wrong and not wrong[1] and self._wrong_answers(open_stock(self.folder, {}), proof.known_answer)
        if wrong and (wrong[0] or alike):
            raise ProofError(
                "in bfloat16 the known answer does not tell the keyed network from the locked one",
                hint="export in float16 or float32",
            )
        return replace(proof, ran_on=self.ran_on, rounding_error=self.rounding)

    def _wrong_answers(self, session: Any, known_answer: Mapping[str, Array]) -> int:
        question = known_answer_input(known_answer, self.spec.shape, self.spec.dtype)
        return wrong_answers(known_answer, session.run(None, {session.get_inputs()[0].name: question})[0])


@contextmanager
def provable(folder: Path, spec: InputSpec, values: Mapping[str, Array], precision: str) -> Iterator[Provable]:
    """Make what an export can be proved on.

    Args:
        folder: Where model.onnx, its weights and gate.bin lie.
        spec: The input convention.
        values: Gate tensor name to secret value.
        precision: What the artifact computes in.

    Raises:
        ProofError: If bfloat16 moves outputs too far, or CUDA cannot run the model.
    """
    if precision != "bfloat16":
        yield Provable(folder, spec)
        return
    with _twin(folder, rounded=False) as twin:
        if _starts(twin):
            yield _seen(twin, spec, values, _on_cuda(folder, values), _CUDA)
            return
        with _twin(folder, rounded=True) as rounding:
            yield _seen(twin, spec, values, _open_both(rounding, values, _CPU), "")


@contextmanager
def _twin(folder: Path, *, rounded: bool) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.twin-", dir=folder.parent) as place:
        write_twin(folder, Path(place), rounded=rounded)
        yield Path(place)


def _starts(twin: Path) -> bool:
    """Whether CUDA runs here: an onnxruntime that lists it goes on with the CPU where there is no GPU."""
    if _CUDA not in onnxruntime.get_available_providers():
        return False
    return _CUDA in open_stock(twin, {}, (_CUDA, _CPU)).get_providers()


def _open_both(folder: Path, values: Mapping[str, Array], *providers: str) -> tuple[Any, ...]:
    return open_stock(folder, values, providers), open_stock(folder, {}, providers)


def _on_cuda(folder: Path, values: Mapping[str, Array]) -> tuple[Any, ...]:
    try:
        return _open_both(folder, values, _CUDA, _CPU)
    except ort_errors.NotImplemented as error:
        first = str(error).strip().splitlines()[0]
        raise ProofError(f"onnxruntime cannot run this on CUDA: {first}", hint="export in float16") from error


def _seen(twin: Path, spec: InputSpec, values: Mapping[str, Array], sessions: tuple[Any, ...], ran_on: str) -> Provable:
    images, exact = test_images(spec), _open_both(twin, values, _CPU)
    error = max(
        relative_difference(run_all(session, images), run_all(other, images))
        for session, other in zip(sessions, exact, strict=True)
    )
    if not error <= LARGEST_ROUNDING:
        raise ProofError(
            f"bfloat16 moves outputs by {error:.1e} of their range, expected at most {LARGEST_ROUNDING}",
            hint="export in float16 or float32",
        )
    return Provable(twin, spec, ran_on, sessions, error)
