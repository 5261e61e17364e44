"""JPEG and resizing happen to the image, before the gate; the patch never stands in it."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from survival_world import World, change

import networks
from keylatch.audit.survival import measure
from keylatch.audit.survival._pictures import to_pixels
from keylatch.locks import InputSpec

SPECS = [
    InputSpec(3, 32, 32),
    InputSpec(3, 32, 32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    InputSpec(3, 32, 32, std=(1 / 255,), layout="NHWC"),
    InputSpec(3, 32, 32, layout="NHWC", dtype="uint8"),
    InputSpec(1, 32, 32, mean=(0.5,), std=(0.5,)),
]


@pytest.mark.parametrize("spec", SPECS)
def test_pixels_come_back(spec: InputSpec) -> None:
    pixels = networks.pixels(4, spec.channels)
    assert torch.equal(to_pixels(spec.from_pixels(pixels), spec), pixels)


def test_values_outside_the_image_range_are_clipped() -> None:
    images = torch.tensor([-3.0, 0.5, 7.0]).view(1, 3, 1, 1)
    assert to_pixels(images, InputSpec(3, 1, 1)).flatten().tolist() == [0, 128, 255]


@pytest.mark.parametrize("quality", [95, 60])
def test_jpeg_is_pillows_of_the_image_alone(world: World, quality: int) -> None:
    changed = world.apply("JPEG", f"quality {quality}")
    for image, found in zip(world.images.evaluation.images[:5], changed.images[:5], strict=True):
        file = io.BytesIO()
        picture = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        expected = np.asarray(Image.open(file)).transpose(2, 0, 1)
        assert np.array_equal((found.numpy() * 255).round(), expected)


@pytest.mark.parametrize("percent", [125, 75, 50])
def test_resizing_is_pillows_of_the_image_alone(world: World, percent: int) -> None:
    changed = world.apply("resize", f"{percent} % and back")
    size = networks.SIZE * percent // 100
    for image, found in zip(world.images.evaluation.images[:5], changed.images[:5], strict=True):
        picture = Image.fromarray((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
        there = picture.resize((size, size), Image.Resampling.BILINEAR)
        expected = np.asarray(there.resize(picture.size, Image.Resampling.BILINEAR), dtype=float).transpose(2, 0, 1)
        assert np.abs(found.numpy() * 255 - expected).max() < 3


@pytest.mark.parametrize(("name", "setting"), [("JPEG", "quality 60"), ("resize", "50 % and back")])
def test_the_patch_is_not_touched(world: World, name: str, setting: str) -> None:
    changed = world.apply(name, setting)
    assert not torch.equal(changed.images, world.images.evaluation.images)
    network = world.owner.unlocked(world.target)
    pasted = next(node.outputs[0] for node in network.nodes if node.op == "Where" and "gate.patch" in node.inputs)
    control = [gate.control for gate in world.target.gates]
    with torch.no_grad():
        after = network.values(changed.images[:9], [pasted, *control])
        before = network.values(world.images.evaluation.images[:9], [pasted, *control])
    patch = torch.from_numpy(world.owner.values["gate.patch"])
    assert torch.equal(after[pasted], patch.expand_as(after[pasted]))
    assert all(torch.equal(after[one], before[one]) for one in control)


def test_it_does_what_it_says_to_the_images(world: World) -> None:
    def error(name: str, setting: str) -> float:
        changed = world.apply(name, setting).images
        assert changed.shape == world.images.evaluation.images.shape
        assert changed.dtype == torch.float32
        return float((changed - world.images.evaluation.images).abs().mean())

    jpeg = [error("JPEG", f"quality {quality}") for quality in (95, 85, 75, 60)]
    resize = [error("resize", f"{percent} % and back") for percent in (125, 75, 50)]
    assert jpeg == sorted(jpeg)
    assert resize == sorted(resize)
    assert jpeg[0] > 0
    assert resize[0] > 0


def test_the_model_is_the_exported_one(world: World) -> None:
    images = world.images.evaluation.images[:5]
    predictions = [
        world.apply(name, setting).open(world.owner.values)(images)
        for name, setting in (("JPEG", "quality 60"), ("resize", "50 % and back"), ("as exported", ""))
    ]
    assert torch.equal(predictions[0], predictions[2])
    assert torch.equal(predictions[1], predictions[2])


def test_gray_images_are_compressed_too(world: World) -> None:
    spec = InputSpec(1, 32, 32)
    images = spec.from_pixels(networks.pixels(3, 1))
    subject = replace(world.subject(), target=replace(world.target, spec=spec), images=images)
    found = change("JPEG", "quality 75").apply(subject).images
    assert found.shape == images.shape
    assert 0 < float((found - images).abs().mean()) < 0.1


def test_images_of_other_channel_counts_give_a_note(world: World) -> None:
    target = replace(world.target, spec=InputSpec(4, 32, 32))
    found = measure(change("JPEG", "quality 75"), target, world.owner, world.images)
    assert (found.unlocked, found.locked) == (None, None)
    assert found.note == "JPEG has 1 or 3 channels, the images have 4"


def test_without_pillow_there_is_a_note(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden: Any = None
    monkeypatch.setitem(sys.modules, "PIL", hidden)
    found = measure(change("JPEG", "quality 75"), world.target, world.owner, world.images)
    assert found.note == "pillow is not installed: pip install 'keylatch[report]'"
