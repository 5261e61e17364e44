"""The loaders of `benchmarks/data_pack`: on made-up files always, on the real folder when KEYLATCH_DATA names it."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from data_pack import NETWORKS, LabelledImages, MissingPackFileError, available, model_input, skipped, top1
from data_pack import images as sets
from data_pack.__main__ import main
from data_pack.cifar_resnet import RESNET20_FILE, BasicBlock, CifarResNet, load_resnet20
from data_pack.decode import centre_crop, read_png_sheet
from data_pack.deit_tiny import DEIT_TINY_FILE, DeiTTiny, load_deit_tiny
from data_pack.mobilenet_v2 import MOBILENET_V2_FILE, MobileNetV2, dequantise, load_mobilenet_v2, pad_same
from data_pack.pack_files import require

MODULES: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": MobileNetV2,
    "deit_tiny": DeiTTiny,
    "resnet20_cifar10": lambda: CifarResNet(3),
    "resnet56_cifar10": lambda: CifarResNet(9),
}


def place(data: Path, file: str) -> Path:
    path = data / file
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def random_pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


# Missing files


def test_missing_file_is_named_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(MissingPackFileError, match=r"models/x\.pt is not in .*\n  hint: pass the folder"):
        require(tmp_path, "models/x.pt")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_callable_of_a_network_reports_a_file_that_it_lists(name: str, tmp_path: Path) -> None:
    spec = NETWORKS[name]
    for callable_ in (spec.load, spec.evaluation, spec.calibration):
        with pytest.raises(MissingPackFileError) as error:
            callable_(tmp_path)
        assert error.value.file in spec.files


def test_network_is_available_only_with_all_its_files(tmp_path: Path) -> None:
    spec = NETWORKS["resnet20_cifar10"]
    for file in spec.files:
        place(tmp_path, file).touch()
    assert [found.name for found in available(tmp_path)] == ["resnet20_cifar10"]
    assert "resnet20_cifar10" not in skipped(tmp_path)
    (tmp_path / RESNET20_FILE).unlink()
    assert available(tmp_path) == []
    assert skipped(tmp_path)["resnet20_cifar10"] == f"resnet20_cifar10 is skipped: {RESNET20_FILE} is missing"


def test_command_says_what_it_skips_and_fails_when_nothing_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert all(f"{name} is skipped: " in output for name in NETWORKS)


# Images


def test_centre_crop_keeps_the_centre() -> None:
    image = random_pixels(227, 231, 3)
    assert np.array_equal(centre_crop(image, 224), image[1:225, 3:227])
    with pytest.raises(ValueError, match=r"got an image of 227x231 pixels, expected at least 230x230"):
        centre_crop(image, 230)


def test_imagenet_images_come_in_the_order_of_the_labels(tmp_path: Path) -> None:
    first, second = random_pixels(2, 227, 227, 3)
    table = b"file,label\nb.png,7\na.png,999\n"
    write_zip(place(tmp_path, sets.IMAGENET_VAL), {"labels.csv": table, "a.png": png(second), "b.png": png(first)})
    val = sets.imagenet_val(tmp_path)
    assert val.labels.tolist() == [7, 999] and val.labels.dtype == np.int64
    assert np.array_equal(val.images, np.stack([first, second])[:, 1:225, 1:225])


def test_labels_with_other_columns_are_refused(tmp_path: Path) -> None:
    write_zip(place(tmp_path, sets.IMAGENET_VAL), {"labels.csv": b"name,class\na.png,1\n"})
    with pytest.raises(ValueError, match="expected rows of file,label"):
        sets.imagenet_val(tmp_path)


def test_cifar10_sheets_are_rows_of_images(tmp_path: Path) -> None:
    pixels = random_pixels(6, 32, 32, 3)
    labels = np.arange(6, dtype=np.uint8)
    np.savez(place(tmp_path, sets.CIFAR10_LABELS), batch_50=labels[:2], batch_0=labels[2:4], batch_1=labels[4:])
    for file, part in zip((sets.CIFAR10_TEST, *sets.CIFAR10_TRAIN), (0, 2, 4), strict=True):
        place(tmp_path, file).write_bytes(png(pixels[part : part + 2].reshape(2, 1024, 3)))
    test, train = sets.cifar10_test(tmp_path), sets.cifar10_train(tmp_path)
    assert np.array_equal(test.images, pixels[:2]) and test.labels.tolist() == [0, 1]
    assert np.array_equal(train.images, pixels[2:]) and train.labels.tolist() == [2, 3, 4, 5]
    assert np.array_equal(sets.cifar10_calibration(tmp_path), pixels[2:])


def test_sheet_of_another_width_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sheet.png").write_bytes(png(random_pixels(2, 1000, 3)))
    with pytest.raises(ValueError, match=r"got rows of 1000 pixels, expected 1024"):
        read_png_sheet(tmp_path / "sheet.png", 32)


def test_lossy_cifar10_is_labelled_by_folder(tmp_path: Path) -> None:
    member = png(random_pixels(32, 32, 3))
    write_zip(place(tmp_path, sets.CIFAR10_JPEG_TRAIN), {"truck/0.jpg": member, "airplane/0.jpg": member})
    assert sets.cifar10_jpeg_train(tmp_path).labels.tolist() == [9, 0]


def test_grey_digits_get_a_channel_axis_and_colour_keeps_it(tmp_path: Path) -> None:
    grey, colour, labels = random_pixels(3, 28, 28), random_pixels(3, 32, 32, 3), np.arange(3, dtype=np.uint8)
    np.savez(place(tmp_path, sets.MNIST), x=grey, y=labels)
    np.savez(place(tmp_path, sets.MNIST_M), x=colour, y=labels)
    np.savez(place(tmp_path, sets.FASHION_MNIST), x_train=grey[:1], y_train=labels[:1], x_test=grey, y_test=labels)
    np.savez(place(tmp_path, sets.USPS), x_train=grey[:1], y_train=labels[:1], x_test=grey, y_test=labels)
    assert np.array_equal(sets.mnist(tmp_path).images[..., 0], grey)
    assert np.array_equal(sets.mnist_m(tmp_path).images, colour)
    assert len(sets.fashion_mnist_train(tmp_path)) == len(sets.usps_train(tmp_path)) == 1
    assert len(sets.fashion_mnist_test(tmp_path)) == len(sets.usps_test(tmp_path)) == 3


def test_arrays_that_are_not_bytes_are_refused(tmp_path: Path) -> None:
    np.savez(place(tmp_path, sets.MNIST), x=np.zeros((1, 28, 28)), y=np.zeros(1, np.uint8))
    with pytest.raises(ValueError, match=r"got float64 for x, expected uint8"):
        sets.mnist(tmp_path)


def test_images_without_one_label_each_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got labels of shape \(2,\) for 3 images"):
        LabelledImages(random_pixels(3, 4, 4, 1), np.zeros(2, np.int64))


# Accuracy


def test_model_input_normalises_each_channel_and_moves_it_to_the_front() -> None:
    pixels = np.array([[[[0, 255, 51]]]], dtype=np.uint8)
    x = model_input(pixels, (0.5, 0.0, 0.1), (0.5, 1.0, 0.2))
    assert x.shape == (1, 3, 1, 1) and x.dtype == np.float32 and x.flags.c_contiguous
    assert x.ravel() == pytest.approx([-1.0, 1.0, 0.5], abs=1e-6)
    with pytest.raises(ValueError, match="got 1 means and 1 stds for 3 channels"):
        model_input(pixels, (0.5,), (0.5,))


def test_top1_counts_over_a_last_short_batch() -> None:
    pixels = np.zeros((5, 1, 1, 3), dtype=np.uint8)
    labels = np.array([0, 1, 2, 0, 1])
    pixels[np.arange(5), 0, 0, [0, 1, 2, 1, 1]] = 255  # the brightest channel is the answer: four of five are right
    assert top1(nn.Flatten(), pixels, labels, (0.0,) * 3, (1.0,) * 3, batch=2) == pytest.approx(80.0)
    with pytest.raises(ValueError, match="got 0 images"):
        top1(nn.Flatten(), pixels[:0], labels[:0], (0.0,) * 3, (1.0,) * 3)


# Weights


def test_dequantise_scales_each_output_channel_without_overflow() -> None:
    q = np.array([[-128, 127], [0, 1]], dtype=np.int8)
    weight = dequantise(q, np.array([0.5, 2.0], np.float32), np.array([100, 1], np.int32))
    assert weight.dtype == np.float32
    assert weight.tolist() == [[-114.0, 13.5], [-2.0, 0.0]]
    assert dequantise(q, np.array([0.5], np.float32), np.array([0], np.int32)).tolist() == [[-64.0, 63.5], [0.0, 0.5]]
    with pytest.raises(ValueError, match="got 3 scales for 2 output channels"):
        dequantise(q, np.ones(3, np.float32), np.zeros(1, np.int32))


@pytest.mark.parametrize(("side", "before"), [(6, 0), (7, 1)])
def test_same_padding_is_that_of_tensorflow(side: int, before: int) -> None:
    padded = pad_same(torch.ones(1, 1, side, side))
    assert padded.shape[2:] == (side + 1 + before, side + 1 + before)
    assert padded[0, 0, :, before].tolist() == [0.0] * before + [1.0] * side + [0.0]


def test_mobilenet_loads_int8_weights_by_name(tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    for key, value in MobileNetV2().state_dict().items():
        name, kind = key.rsplit(".", 1)
        if kind == "bias":
            arrays[key] = value.numpy()
            continue
        arrays[f"{name}.q"] = np.full(value.shape, 4, dtype=np.int8)
        arrays[f"{name}.s"] = np.linspace(0.5, 1.0, len(value), dtype=np.float32)
        arrays[f"{name}.z"] = np.full(len(value), 2, dtype=np.int32)
    path = place(tmp_path, MOBILENET_V2_FILE)
    np.savez(path, allow_pickle=False, **arrays)
    network = load_mobilenet_v2(tmp_path)
    assert not network.training
    assert network.classifier.weight[:, 0].tolist() == (2 * arrays["classifier.s"]).tolist()
    assert torch.equal(network.state_dict()["stem.bias"], torch.from_numpy(arrays["stem.bias"]))
    del arrays["head.q"]
    np.savez(path, allow_pickle=False, **arrays)
    with pytest.raises(RuntimeError, match=r"head\.weight"):
        load_mobilenet_v2(tmp_path)


def test_deit_takes_exactly_its_own_keys(tmp_path: Path) -> None:
    path, state = place(tmp_path, DEIT_TINY_FILE), DeiTTiny().state_dict()
    assert sum(value.numel() for value in state.values()) == 5_717_416
    torch.save(state, path)
    network = load_deit_tiny(tmp_path)
    assert not network.training
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    torch.save(state | {"head_dist.bias": torch.zeros(1)}, path)
    with pytest.raises(RuntimeError, match=r"head_dist\.bias"):
        load_deit_tiny(tmp_path)


def test_resnet_strips_the_prefix_and_keeps_its_statistics(tmp_path: Path) -> None:
    path, made = place(tmp_path, RESNET20_FILE), CifarResNet(3)
    made.state_dict()["bn1.running_mean"].uniform_()
    kept = {key: value for key, value in made.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save({"state_dict": {f"module.{key}": value for key, value in kept.items()}, "best_prec1": 1.0}, path)
    network = load_resnet20(tmp_path)
    assert not network.training
    assert all(torch.equal(network.state_dict()[key], value) for key, value in kept.items())
    torch.save({"state_dict": {f"module.{key}": kept[key] for key in list(kept)[1:]}}, path)
    with pytest.raises(RuntimeError, match=r"conv1\.weight"):
        load_resnet20(tmp_path)


def test_option_a_shortcut_has_no_parameters_and_pads_both_sides() -> None:
    block = BasicBlock(16, 32, stride=2)
    x = torch.rand(1, 16, 4, 4)
    shortcut = block.shortcut(x)
    assert shortcut.shape == (1, 32, 2, 2)
    assert torch.equal(shortcut[:, 8:24], x[:, :, ::2, ::2])
    assert not shortcut[:, :8].any() and not shortcut[:, 24:].any()


@pytest.mark.parametrize("name", NETWORKS)
def test_network_exports_with_a_dynamic_batch(name: str) -> None:
    module, shape = MODULES[name]().eval(), NETWORKS[name].image_shape
    program = torch.export.export(module, (torch.zeros(2, *shape),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    x = torch.rand(3, *shape)
    assert not program.graph_signature.buffers_to_mutate
    with torch.inference_mode():
        assert torch.allclose(program.module()(x), module(x), atol=1e-5)


# The real folder


@pytest.fixture(scope="session")
def data() -> Path:
    folder = os.environ.get("KEYLATCH_DATA")
    if not folder:
        pytest.skip("KEYLATCH_DATA names no data folder")
    return Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_network_shows_its_accuracy(name: str, data: Path) -> None:
    spec = NETWORKS[name]
    if spec not in available(data):
        pytest.skip(skipped(data)[name])
    evaluation = spec.evaluation(data)
    measured = top1(spec.load(data), evaluation.images, evaluation.labels, spec.mean, spec.std)
    assert measured == pytest.approx(spec.expected_top1, abs=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_calibration_images_are_not_evaluation_images(name: str, data: Path) -> None:
    spec = NETWORKS[name]
    if spec not in available(data):
        pytest.skip(skipped(data)[name])
    evaluation = {image.tobytes() for image in spec.evaluation(data).images}
    calibration = spec.calibration(data)
    assert calibration.shape[1:] == (*spec.image_shape[1:], spec.image_shape[0])
    assert not any(image.tobytes() in evaluation for image in calibration)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "shape", "classes"),
    [
        (sets.imagenet_sample, (1000, 224, 224, 3), 1000),
        (sets.cifar10_jpeg_train, (10000, 32, 32, 3), 10),
        (sets.cifar10_jpeg_test, (2000, 32, 32, 3), 10),
        (sets.fashion_mnist_train, (5000, 28, 28, 1), 10),
        (sets.fashion_mnist_test, (10000, 28, 28, 1), 10),
        (sets.mnist, (10000, 28, 28, 1), 10),
        (sets.mnist_m, (2000, 32, 32, 3), 10),
        (sets.usps_train, (7291, 16, 16, 1), 10),
        (sets.usps_test, (2007, 16, 16, 1), 10),
    ],
)
def test_image_set_has_its_size_and_classes(
    load: Callable[[Path], LabelledImages], shape: tuple[int, ...], classes: int, data: Path
) -> None:
    try:
        images = load(data)
    except MissingPackFileError as error:
        pytest.skip(str(error))
    assert images.images.shape == shape
    assert np.array_equal(np.unique(images.labels), np.arange(classes))
