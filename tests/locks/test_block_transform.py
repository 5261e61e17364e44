"""Block transforms are what docs/locks.md, section 2, says: against explicit loops, ONNX's block order, and digests."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from keylatch.locks._block_transform import BlockTransform, Step, identity_transform
from keylatch.locks._ffx import byte_table
from keylatch.locks._randomness import SeededDraws

VECTORS = Path(__file__).resolve().parent / "vectors"
SEED = bytes(range(32))
COMBINATIONS: list[list[Step]] = [
    list(order)
    for length in (1, 2, 3)
    for order in itertools.permutations(("shf", "np", "ffx"), length)
    if "ffx" not in order[:-1]
]
LINEAR = [steps for steps in COMBINATIONS if "ffx" not in steps]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]

seeds = st.binary(min_size=32, max_size=32)
examples = settings(deadline=None, max_examples=8)


def draw(*steps: Step, block_size: int = 4, channels: int = 3, seed: bytes = SEED) -> BlockTransform:
    return BlockTransform.draw(steps, block_size=block_size, channels=channels, seed=seed)


def bytes_of(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


class Reference:
    """The definition, block by block and entry by entry: the steps one after the other, each with its own key."""

    def __init__(self, steps: list[Step], block_size: int, channels: int, seed: bytes) -> None:
        self.steps, self.size, self.channels = steps, block_size, channels
        length = channels * block_size * block_size
        streams = {step: SeededDraws(seed, f"block transform {step}") for step in steps}
        self.order = streams["shf"].permutation(length).tolist() if "shf" in steps else []
        self.halves = {
            step: set(streams[step].permutation(length)[: length // 2].tolist()) for step in {*steps} - {"shf"}
        }
        self.table = byte_table(streams["ffx"].bytes(32)).tolist() if "ffx" in steps else []

    def block(self, vector: list, white: int) -> list:
        for step in self.steps:
            if step == "shf":
                vector = [vector[source] for source in self.order]
            elif step == "np":
                vector = [white - entry if k in self.halves["np"] else entry for k, entry in enumerate(vector)]
            else:
                vector = [self.table[entry] if k in self.halves["ffx"] else entry for k, entry in enumerate(vector)]
        return vector

    def image(self, image: np.ndarray, white: int = 255) -> np.ndarray:
        """(C, H, W) to (C, H, W): whole numbers, or floats of the image's own dtype where `white` is 1."""
        out = np.zeros(image.shape, dtype=image.dtype if white == 1 else np.int64)
        for top in range(0, image.shape[1], self.size):
            for left in range(0, image.shape[2], self.size):
                places = [
                    (channel, top + row, left + column)
                    for row in range(self.size)
                    for column in range(self.size)
                    for channel in range(self.channels)
                ]
                entries = [image[place] if white == 1 else int(image[place]) for place in places]
                for place, entry in zip(places, self.block(entries, white), strict=True):
                    out[place] = entry
        return out

    def images(self, pixels: torch.Tensor, white: int = 255) -> np.ndarray:
        return np.stack([self.image(image, white) for image in pixels.numpy()])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("steps", "block_size"),
    [
        pytest.param(steps, size, id=f"{'+'.join(steps)}-{size}")
        for steps in COMBINATIONS
        for size in (2, 4, 8, 16)
        if (steps, size) != (["np"], 2)  # refused
    ],
)
@examples
@given(seed=seeds, image_seed=st.integers(0, 2**32), rows=st.integers(1, 2), columns=st.integers(1, 3))
def test_bytes_become_what_the_definition_says(
    steps: list[Step], block_size: int, channels: int, seed: bytes, image_seed: int, rows: int, columns: int
) -> None:
    pixels = bytes_of(2, channels, rows * block_size, columns * block_size, seed=image_seed)
    key = draw(*steps, block_size=block_size, channels=channels, seed=seed)
    reference = Reference(steps, block_size, channels, seed)
    expected = reference.images(pixels)
    divisor = max(reference.table, default=255)
    assert key.divisor == divisor
    shown = key.values(pixels)
    assert (shown.dtype, shown.shape) == (torch.float32, pixels.shape)
    assert np.array_equal(shown.numpy(), expected.astype(np.float32) / np.float32(divisor))
    if "ffx" not in steps:
        transformed = key.bytes(pixels)
        assert transformed.dtype == torch.uint8
        assert np.array_equal(transformed.numpy(), expected)


@pytest.mark.parametrize("steps", LINEAR, ids="+".join)
@examples
@given(seed=seeds, dtype=st.sampled_from([np.float16, np.float32, np.float64]), image_seed=st.integers(0, 2**32))
def test_floats_become_x_or_one_minus_x_exactly(steps: list[Step], seed: bytes, dtype: type, image_seed: int) -> None:
    pixels = torch.from_numpy(np.random.default_rng(image_seed).random((2, 3, 8, 4)).astype(dtype))
    expected = Reference(steps, 4, 3, seed).images(pixels, white=1)
    shown = draw(*steps, seed=seed).values(pixels)
    assert shown.numpy().dtype == dtype
    assert np.array_equal(shown.numpy(), expected)


@pytest.mark.parametrize("dtype", FLOATS)
def test_linear_steps_keep_any_float_dtype(dtype: torch.dtype) -> None:
    pixels = torch.rand((1, 3, 4, 4), generator=torch.Generator().manual_seed(1)).to(dtype)
    shown = draw("shf", "np").values(pixels)
    key = draw("shf", "np")
    moved = pixels.permute(0, 2, 3, 1).reshape(48)[key.permutation]
    assert shown.dtype == dtype
    assert torch.equal(shown.permute(0, 2, 3, 1).reshape(48), torch.where(key.negated, 1 - moved, moved))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_with_ffx_floats_are_rounded_to_the_bytes_they_came_from(dtype: torch.dtype) -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)
    key = draw("shf", "np", "ffx")
    divided = (pixels.to(torch.float64) / 255).to(dtype)
    assert torch.equal(key.values(divided), key.values(pixels))
    just_below = (divided.to(torch.float64) - 1e-4).clamp(0, 1)  # what normalizing and back leaves
    assert torch.equal(key.values(just_below), key.values(pixels))


def test_with_ffx_the_whole_block_is_divided_by_the_largest_entry_of_the_table() -> None:
    key = draw("ffx")
    assert 255 < key.divisor == max(byte_table_of_seed()) <= 999
    shown = key.values(torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)).permute(0, 2, 3, 1).reshape(48)
    assert set((shown[~key.encrypted] * key.divisor).round().tolist()) == {255.0}
    assert float(shown.max()) <= 1


def byte_table_of_seed() -> list[int]:
    stream = SeededDraws(SEED, "block transform ffx")
    stream.permutation(48)
    return byte_table(stream.bytes(32)).tolist()


def run_onnx(nodes: list[onnx.NodeProto], image: np.ndarray, **constants: np.ndarray) -> np.ndarray:
    value = helper.make_tensor_value_info
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    ends = ([value(name, TensorProto.FLOAT, ["n", "c", "h", "w"])] for name in ("image", "shown"))
    graph = helper.make_graph(nodes, "blocks", *ends, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


def onnx_form(block_size: int) -> list[onnx.NodeProto]:
    return [
        helper.make_node("SpaceToDepth", ["image"], ["blocks"], blocksize=block_size),
        helper.make_node("Gather", ["blocks", "permutation"], ["moved"], axis=1),
        helper.make_node("DepthToSpace", ["moved"], ["shown"], blocksize=block_size, mode="DCR"),
    ]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("block_size", [2, 4, 8, 16])
def test_the_order_in_a_block_is_that_of_onnx_space_to_depth(block_size: int, channels: int) -> None:
    pixels = bytes_of(2, channels, 2 * block_size, 3 * block_size)
    key = draw("shf", block_size=block_size, channels=channels)
    image = pixels.numpy().astype(np.float32)
    shown = run_onnx(onnx_form(block_size), image, permutation=key.permutation.numpy())
    assert np.array_equal(shown, key.bytes(pixels).numpy())


def test_the_order_in_a_block_is_not_that_of_pixel_unshuffle() -> None:
    pixels = bytes_of(1, 3, 8, 8)
    key = draw("shf")
    unshuffled = torch.pixel_unshuffle(pixels, 4)[:, key.permutation]
    assert not torch.equal(torch.pixel_shuffle(unshuffled, 4), key.bytes(pixels))


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_without_a_key_nothing_happens(kind: str) -> None:
    pixels = bytes_of(2, 3, 8, 12)
    plain = identity_transform(4, 3)
    images = pixels if kind == "uint8" else pixels / 255
    assert torch.equal(plain.values(images), pixels / 255)
    assert torch.equal(plain.bytes(pixels), pixels)
    assert (plain.steps, plain.divisor, plain.is_linear, plain.log2_key_space) == ((), 255, True, 0.0)


@pytest.mark.parametrize("steps", COMBINATIONS, ids="+".join)
def test_a_transform_changes_images_and_leaves_its_input_alone(steps: list[Step]) -> None:
    pixels = bytes_of(2, 3, 8, 8)
    before = pixels.clone()
    assert float((draw(*steps).values(pixels) != pixels / 255).float().mean()) > 0.4
    assert torch.equal(pixels, before)


def test_stored_vectors_are_what_the_generator_makes(tmp_path: Path) -> None:
    def check(folder: Path) -> tuple[int, str, str]:
        command = [sys.executable, folder / "generate_block_transforms.py", "--check"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    assert check(VECTORS) == (0, "", "")
    copied = shutil.copytree(VECTORS, tmp_path / "vectors", ignore=shutil.ignore_patterns("__pycache__"))
    vectors = json.loads((copied / "block_transforms.json").read_text())
    vectors[3]["sha256"] = vectors[4]["sha256"]
    (copied / "block_transforms.json").write_text(json.dumps(vectors[:-1]))
    differing = sorted([vectors[3]["name"], vectors[-1]["name"]])
    assert check(copied) == (1, "".join(f"differs: {name}\n" for name in differing), "")


def test_stored_vectors_are_what_the_definition_says() -> None:
    vectors = json.loads((VECTORS / "block_transforms.json").read_text())
    assert {(tuple(vector["steps"]), vector["block_size"], vector["channels"]) for vector in vectors} >= {
        (tuple(steps), size, channels) for steps in COMBINATIONS for size in (4, 8, 16) for channels in (1, 3)
    }
    for vector in vectors:
        stream = hashlib.shake_256(vector["image"].encode()).digest(int(np.prod(vector["shape"])))
        pixels = torch.frombuffer(bytearray(stream), dtype=torch.uint8).view(vector["shape"])
        seed = bytes.fromhex(vector["seed"])
        reference = Reference(vector["steps"], vector["block_size"], vector["channels"], seed)
        numbers = reference.images(pixels)
        ffx = "ffx" in vector["steps"]
        data = (numbers.astype("<f4") / np.float32(max(reference.table))) if ffx else numbers.astype(np.uint8)
        assert hashlib.sha256(data.tobytes()).hexdigest() == vector["sha256"], vector["name"]
