"""A network that cannot be locked is refused with the reason and the remedy."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from keylatch.errors import LockError
from keylatch.locks import InputSpec, load_program
from networks import SEED, SIZE, SPEC, PaddedConvs, lock, program_of, settle


class DataDependent(PaddedConvs):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


class TwoInputs(PaddedConvs):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return super().forward(x + y)


class NoTensor(PaddedConvs):
    def forward(self, x: torch.Tensor) -> int:
        super().forward(x)
        return 3


class Constant(PaddedConvs):
    """An output that does not depend on the image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 0 + torch.arange(10.0)


class FixedBatch(PaddedConvs):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.reshape(2, 3, SIZE, SIZE))


def exported(network: nn.Module, inputs: tuple[torch.Tensor, ...], dynamic: Any) -> torch.export.ExportedProgram:
    return torch.export.export(network, inputs, dynamic_shapes=dynamic)


IMAGES = torch.zeros(2, 3, SIZE, SIZE)
FREE = {0: torch.export.Dim("batch", min=1)}


def fixed_program() -> torch.export.ExportedProgram:
    return exported(settle(PaddedConvs), (IMAGES,), None)


def program_of_two() -> torch.export.ExportedProgram:
    return exported(TwoInputs().eval(), (IMAGES, IMAGES), (FREE, FREE))


def program_of_doubles() -> torch.export.ExportedProgram:
    return exported(settle(PaddedConvs).double(), (IMAGES.double(),), (FREE,))


CASES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no layer is wide enough": (lambda: PaddedConvs(width=32), {}, "no layer can be gated: of 4 .* 64 input channels"),
    "no layer at all": (nn.Flatten, {}, "no layer can be gated: of 0 "),
    "patch larger than the image": (PaddedConvs, {"patch_size": 33}, "a 33x33 patch does not fit a 32x32 image"),
    "no patch": (PaddedConvs, {"patch_size": 0}, "a 0x0 patch does not fit"),
    "more bits than pixels": (PaddedConvs, {"code_bits": 193}, "192 values cannot carry 193 code bits"),
    "too few bits": (PaddedConvs, {"code_bits": 63}, "63 code bits are too few for a lock, expected at least 64"),
    "patch too small for a code": (PaddedConvs, {"patch_size": 7}, "49 code bits are too few"),
    "short seed": (PaddedConvs, {"seed": SEED[:16]}, "a seed has 32 bytes, got 16"),
    "training mode": (PaddedConvs, {}, "the model is in training mode"),
    "control flow by image values": (DataDependent, {}, "torch.export cannot trace DataDependent: "),
    "batch fixed inside": (FixedBatch, {}, "torch.export cannot trace FixedBatch: "),
    "two inputs": (TwoInputs, {}, "torch.export cannot trace TwoInputs: "),
    "program with two inputs": (program_of_two, {}, "the model has 2 inputs, expected one image batch"),
    "program with a fixed batch": (fixed_program, {}, "the batch dimension is fixed to 2"),
    "program of other images": (fixed_program, {"spec": InputSpec(3, 64, 64)}, r"shape \(3, 32, 32\), expected float"),
    "program of another dtype": (program_of_doubles, {}, "takes torch.float64 images"),
    "no tensor": (NoTensor, {}, "the model returns no tensor"),
    "constant output": (Constant, {}, "differs from the original by only 0.0e"),
    "calibration of another size": (PaddedConvs, {"calibration": torch.rand(4, 3, 16, 16)}, r"shape \(4, 3, 16, 16\)"),
    "calibration without batch": (PaddedConvs, {"calibration": torch.rand(3, 32, 32)}, r"shape \(3, 32, 32\)"),
    "calibration of one image": (PaddedConvs, {"calibration": torch.rand(1, 3, 32, 32)}, r"shape \(1, 3, 32, 32\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_locked_says_why_and_what_to_do(case: str) -> None:
    build, options, message = CASES[case]
    options = dict(options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
    if isinstance(model, nn.Module):
        model.train(case == "training mode")
    with pytest.raises(LockError, match=message) as caught:
        lock(model, options.pop("spec", SPEC), **options)
    assert caught.value.hint


def test_the_largest_number_of_bits_that_is_not_refused_is_refused_one_higher() -> None:
    assert lock(program_of(PaddedConvs), code_bits=64).report.code_bits == 64
    with pytest.raises(LockError):
        lock(program_of(PaddedConvs), code_bits=63)


def test_a_network_that_is_not_deterministic_is_refused() -> None:
    class Noisy(PaddedConvs):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.rand(x.shape[0], 10)

    with pytest.raises(LockError, match="the opened network differs from the original by") as caught:
        lock(settle(Noisy))
    assert "not deterministic" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"height": 0}, "image size 3x0x32 is not positive"), ({"mean": (0.1, 0.2)}, "mean has 2 values, expected 1 or 3"),
     ({"std": (1.0,) * 4}, "std has 4 values"), ({"std": (0.0,)}, "std must be positive"),
     ({"std": (1.0, -1.0, 1.0)}, "std must be positive"), ({"dtype": "uint8", "mean": (0.5,)}, "uint8"),
     ({"dtype": "uint8", "std": (0.2,)}, "uint8")],
)  # fmt: skip
def test_an_impossible_input_convention_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(LockError, match=message) as caught:
        InputSpec(**{"channels": 3, "height": 32, "width": 32, **fields})
    assert caught.value.hint


def test_an_input_convention_fills_in_its_defaults_and_round_trips() -> None:
    plain, raw = InputSpec(3, 32, 16), InputSpec(1, 32, 16, dtype="uint8")
    assert (plain.mean, plain.std) == ((0.0,) * 3, (1.0,) * 3)
    assert (raw.mean, raw.std) == ((0.0,), (1 / 255,))
    assert InputSpec(3, 8, 8, mean=(0.5,)).mean == (0.5, 0.5, 0.5)
    for spec in (plain, raw, InputSpec(3, 8, 9, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "NHWC")):
        assert InputSpec.from_json(spec.to_json()) == spec


def test_what_is_no_exported_program_is_refused(tmp_path: Any) -> None:
    (tmp_path / "text.pt2").write_text("not a program")
    for path in (tmp_path / "text.pt2", tmp_path / "missing.pt2", tmp_path):
        with pytest.raises(LockError, match=r"is not a torch\.export program") as caught:
            load_program(path)
        assert caught.value.hint


def test_an_exported_program_on_disk_is_read_and_locked(tmp_path: Any) -> None:
    network = settle(PaddedConvs)
    torch.export.save(exported(network, (IMAGES,), (FREE,)), tmp_path / "program.pt2")
    assert lock(load_program(tmp_path / "program.pt2")).report.unlocked_error <= 1e-5


def test_a_decomposed_program_is_refused_not_half_folded() -> None:
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(PaddedConvs().eval(), (torch.zeros(2, 3, SIZE, SIZE),), dynamic_shapes=({0: batch},))
    table = torch.export.default_decompositions()
    for kept in (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default):
        del table[kept]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its internals
        decomposed = program.run_decompositions(table)
    assert any("batch_norm" in str(node.target) for node in decomposed.graph.nodes)
    with pytest.raises(LockError, match="decomposed batch normalization") as caught:
        lock(decomposed)
    assert caught.value.hint
