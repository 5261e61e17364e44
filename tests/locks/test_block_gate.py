"""The gate form of a block transform computes what the transform computes: bytes exactly, floats to a millionth."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from keylatch.errors import LockError
from keylatch.locks import BlockDescription, BlockTransform, InputSpec
from keylatch.locks._block_gate import BlockGate, block_gate

LINEAR = [("shf",), ("np",), ("shf", "np"), ("np", "shf")]
WITH_FFX = [("ffx",), ("shf", "ffx"), ("np", "ffx"), ("shf", "np", "ffx"), ("np", "shf", "ffx")]
SIZES = [2, 4, 8, 16]
KEYS = [(steps, size) for steps in LINEAR for size in SIZES if (steps, size) != (("np",), 2)]  # that one is refused
LAYOUTS = ["NCHW", "NHWC"]
MEAN, STD = (0.485, 0.3, 0.6), (0.229, 0.5, 0.1)
HEIGHT, WIDTH = 32, 48  # of unequal sides: exchanged axes are seen
OTHER_SIZE = 64


BYTES_NHWC = {"layout": "NHWC", "dtype": "uint8"}


def spec_of(channels: int = 3, layout: str = "NCHW", dtype: str = "float32") -> InputSpec:
    affine = {"mean": MEAN[:channels], "std": STD[:channels]} if dtype == "float32" else {}
    return InputSpec(channels, HEIGHT, WIDTH, layout=layout, dtype=dtype, **affine)


def draw(steps: tuple[str, ...], size: int = 4, channels: int = 3, seed: int = 1) -> BlockTransform:
    return BlockTransform.draw(steps, block_size=size, channels=channels, seed=bytes([seed]) * 32)


def gate_for(key: BlockTransform, source: InputSpec, target: InputSpec | None = None) -> BlockGate:
    return block_gate(BlockDescription(key.steps, key.block_size), source, target or source)


def bytes_of(channels: int = 3) -> torch.Tensor:
    """Two images (2, C, H, W) in which every byte occurs."""
    generator = torch.Generator().manual_seed(channels)
    pixels = torch.randint(0, 256, (2, channels, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator)
    pixels.view(2, channels, -1)[:, :, :256] = torch.arange(256, dtype=torch.uint8)
    return pixels


def floats_of(channels: int = 3) -> torch.Tensor:
    """Pixels (2, C, H, W) in [0, 1], float64; the ends occur, and most are no bytes."""
    pixels = torch.rand(2, channels, HEIGHT, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pixels[:, :, 0, :2] = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return pixels


def normalized(values: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Pixels (N, C, H, W) in [0, 1] as a network takes them, float64."""
    mean, std = (torch.tensor(of, dtype=torch.float64).view(1, -1, 1, 1) for of in (spec.mean, spec.std))
    return laid_out((values.double() - mean) / std, spec.layout)


def laid_out(images: torch.Tensor, layout: str) -> torch.Tensor:
    return images if layout == "NCHW" else images.movedim(1, 3)


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    assert found.dtype == torch.float32 and found.shape == expected.shape
    # Normalized values reach 6 here; float32 rounds those to 5e-7.
    return bool(((found.double() - expected).abs() <= 1e-6 * expected.abs().clamp(min=1)).all())


@pytest.mark.parametrize("layouts", [("NHWC", "NHWC"), ("NHWC", "NCHW"), ("NCHW", "NCHW"), ("NCHW", "NHWC")])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("steps", "size"), KEYS)
def test_a_gate_of_bytes_gives_exactly_the_transform_s_bytes(
    steps: tuple[str, ...], size: int, channels: int, layouts: tuple[str, str]
) -> None:
    key, pixels = draw(steps, size, channels), bytes_of(channels)
    gate = gate_for(key, spec_of(channels, layouts[0], "uint8"), spec_of(channels, layouts[1])).keyed(key)
    shown = gate(laid_out(pixels, layouts[0]).contiguous())
    assert shown.dtype == torch.uint8
    assert torch.equal(shown, laid_out(key.bytes(pixels), layouts[1]))
    assert not torch.equal(shown, laid_out(pixels, layouts[1]))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("steps", "size"), KEYS)
def test_a_gate_of_normalized_floats_gives_the_normalized_transform(
    steps: tuple[str, ...], size: int, channels: int, layout: str
) -> None:
    key, spec, pixels = draw(steps, size, channels), spec_of(channels, layout), floats_of(channels)
    shown = gate_for(key, spec).keyed(key)(normalized(pixels, spec).float())
    assert close(shown, normalized(key.values(pixels), spec))
    assert not close(shown, normalized(pixels, spec))


@pytest.mark.parametrize("layouts", [("NHWC", "NHWC"), ("NHWC", "NCHW"), ("NCHW", "NCHW")])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("steps", WITH_FFX, ids="+".join)
def test_a_gate_with_ffx_gives_the_normalized_transform_of_bytes(
    steps: tuple[str, ...], size: int, channels: int, layouts: tuple[str, str]
) -> None:
    key, pixels, own = draw(steps, size, channels), bytes_of(channels), spec_of(channels, layouts[1])
    gate = gate_for(key, spec_of(channels, layouts[0], "uint8"), own).keyed(key)
    assert close(gate(laid_out(pixels, layouts[0]).contiguous()), normalized(key.values(pixels), own))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("steps", WITH_FFX, ids="+".join)
def test_a_gate_with_ffx_rounds_normalized_floats_to_bytes(steps: tuple[str, ...], channels: int, layout: str) -> None:
    key, spec, pixels = draw(steps, 4, channels), spec_of(channels, layout), bytes_of(channels)
    gate, expected = gate_for(key, spec).keyed(key), normalized(key.values(pixels), spec)
    for shift in (0, 0.4, -0.4):  # truncated, what is just below a byte becomes its neighbor
        between = (pixels.double() + shift).clamp(0, 255) / 255
        assert close(gate(normalized(between, spec).float()), expected)


@pytest.mark.parametrize("size", SIZES)
def test_numbers_stay_exact_when_there_is_no_normalization(size: int) -> None:
    spec, pixels = InputSpec(3, HEIGHT, WIDTH), bytes_of()
    for steps in ("ffx",), ("shf", "np", "ffx"):
        key = draw(steps, size)
        assert torch.equal(gate_for(key, spec.as_uint8(), spec).keyed(key)(pixels.movedim(1, 3)), key.values(pixels))


GATES: dict[str, Callable[[], tuple[BlockGate, BlockTransform, torch.Tensor]]] = {
    "floats": lambda: _made(("shf", "np"), spec_of(), normalized(floats_of(), spec_of()).float()),
    "floats, shf": lambda: _made(("shf",), spec_of(), normalized(floats_of(), spec_of()).float()),
    "floats, np": lambda: _made(("np",), spec_of(), normalized(floats_of(), spec_of()).float()),
    "bytes": lambda: _made(("shf", "np"), spec_of(dtype="uint8"), bytes_of()),
    "bytes, np": lambda: _made(("np",), spec_of(dtype="uint8"), bytes_of()),
    "ffx": lambda: _made(("ffx",), spec_of(), normalized(bytes_of() / 255, spec_of()).float()),
    "ffx of bytes": lambda: _made(("shf", "np", "ffx"), spec_of(**BYTES_NHWC), bytes_of().movedim(1, 3)),
}  # fmt: skip


def _made(
    steps: tuple[str, ...], spec: InputSpec, images: torch.Tensor
) -> tuple[BlockGate, BlockTransform, torch.Tensor]:
    key = draw(steps)
    return gate_for(key, spec, spec_of()), key, images


@pytest.mark.parametrize("name", GATES)
def test_a_gate_does_nothing_by_default(name: str) -> None:
    gate, _, images = GATES[name]()
    pixels = bytes_of() if name == "ffx of bytes" else None
    shown = gate(images)
    if name.startswith("ffx"):  # it normalizes too
        assert close(shown, images.double() if pixels is None else normalized(pixels / 255.0, spec_of()))
    else:
        assert torch.equal(shown, images)


@pytest.mark.parametrize("name", GATES)
def test_a_gate_is_open_while_it_holds_a_key(name: str) -> None:
    gate, key, images = GATES[name]()
    before = {name: value.clone() for name, value in gate.state_dict().items()}
    assert not gate.is_open
    keyed = gate.keyed(key)
    assert keyed.is_open
    assert not torch.equal(keyed(images), gate(images))
    assert not gate.is_open
    assert all(torch.equal(value, before[name]) for name, value in gate.state_dict().items())


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double"])
@pytest.mark.parametrize("name", GATES)
def test_casting_a_network_leaves_a_key_alone(name: str, cast: str) -> None:
    gate, key, images = GATES[name]()
    keyed = gate.keyed(key)
    before = {name: value.clone() for name, value in keyed.state_dict().items()}
    expected = keyed(images)
    within = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), keyed)
    getattr(within, cast)()
    assert within[0].weight.dtype != torch.float32
    after = keyed.state_dict()
    assert all(value.dtype == after[name].dtype and torch.equal(value, after[name]) for name, value in before.items())
    assert torch.equal(keyed(images), expected)


@pytest.mark.parametrize("name", GATES)
def test_a_copy_has_the_same_key_and_shares_nothing(name: str) -> None:
    gate, key, images = GATES[name]()
    keyed = gate.keyed(key)
    expected = keyed(images)
    again = copy.deepcopy(keyed)
    assert torch.equal(again(images), expected)
    for value in again.buffers():
        value.zero_()
    assert torch.equal(keyed(images), expected)


@pytest.mark.parametrize("name", GATES)
def test_a_gate_moves_between_devices(name: str) -> None:
    """The meta device has shapes and no values, and takes no tensors that were left behind."""
    gate, _, images = GATES[name]()
    shown = gate.to("meta")(images.to("meta"))
    assert (shown.device.type, shown.shape[0]) == ("meta", 2)


@pytest.mark.gpu
@pytest.mark.parametrize("name", GATES)
def test_a_gate_on_a_gpu_gives_the_same(name: str) -> None:
    gate, key, images = GATES[name]()
    keyed = gate.keyed(key)
    expected, found = keyed(images), keyed.cuda()(images.cuda()).cpu()
    assert torch.equal(found, expected) if found.dtype == torch.uint8 else close(found, expected.double())


LAYOUT: dict[str, dict[str, tuple[torch.dtype, tuple[int, ...]]]] = {
    "floats": {
        "permutation": (torch.int64, (48,)),
        "scale": (torch.float32, (48, 1, 1)), "offset": (torch.float32, (48, 1, 1)),
    },
    "bytes": {"permutation": (torch.int64, (48,)), "inversion": (torch.uint8, (48, 1, 1))},
    "ffx": {
        "permutation": (torch.int64, (48,)), "choice": (torch.int32, (48, 1, 1)), "tables": (torch.float32, (1024, 1)),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUT)
def test_gate_tensors_have_the_names_and_shapes_of_the_artifact(name: str) -> None:
    gate, key, _ = GATES[name]()
    values = gate.secret_values(key)
    assert {name: (value.dtype, tuple(value.shape)) for name, value in values.items()} == LAYOUT[name]
    assert set(gate.gate_names()) == set(LAYOUT[name])
    assert all(value.dtype == gate.get_buffer(name).dtype for name, value in values.items())


OTHERS: dict[str, dict[str, Any]] = {
    "another block size": {"size": 8}, "other channels": {"channels": 1}, "other steps": {"steps": ("shf",)},
    "another order of steps": {"steps": ("np", "shf")}, "ffx as well": {"steps": ("shf", "np", "ffx")},
}  # fmt: skip


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_key_of_another_transform_is_refused(other: str, dtype: str) -> None:
    gate = gate_for(draw(("shf", "np")), spec_of(dtype=dtype))
    with pytest.raises(LockError, match="the key does not fit this transform") as caught:
        gate.keyed(draw(**{"steps": ("shf", "np"), **OTHERS[other]}))
    assert caught.value.hint
    assert not gate.is_open


@pytest.mark.parametrize("steps", [("shf",), ("shf", "np", "ffx")], ids="+".join)
@pytest.mark.parametrize("size", [5, OTHER_SIZE])
def test_images_that_do_not_consist_of_whole_blocks_are_refused(steps: tuple[str, ...], size: int) -> None:
    message = f"images of {HEIGHT} x {WIDTH} are not divisible into blocks of {size} x {size}"
    with pytest.raises(LockError, match=message) as caught:
        gate_for(draw(steps, size), spec_of())
    assert caught.value.hint


def test_a_description_round_trips_and_says_nothing_of_the_key() -> None:
    description = BlockDescription(("np", "shf"), 8)
    assert description.to_json() == {"steps": ["np", "shf"], "block_size": 8}
    assert BlockDescription.from_json(json.loads(json.dumps(description.to_json()))) == description
