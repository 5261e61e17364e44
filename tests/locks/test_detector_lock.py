"""Detector locks on a trained network: what they keep, what they take, and how they are undone."""

from __future__ import annotations

import copy

import pytest
import torch
from detector_lock_world import (
    CALIBRATION,
    RATE,
    answers_to,
    locked_digits,
    opened_outputs,
    patched,
    with_noise,
    without_clamp,
)
from torch import nn

import networks
from keylatch.errors import LockError
from keylatch.locks import InputSpec, detector_lock
from keylatch.locks._detector_lock import _lock, _trigger

CHANCE = 0.25  # of ten classes; a network that names one class has the share of that class
KINDS = pytest.mark.parametrize("kind", ["A", "B"])


@KINDS
def test_unlocked_is_the_original_on_images_with_the_patch(kind: str, digits: networks.Digits) -> None:
    locked = locked_digits(kind)
    expected = networks.outputs_of(digits.network, patched(locked, digits.images))
    output = opened_outputs(locked, digits.images)
    assert networks.relative_error(output, expected) <= 1e-4
    assert locked.report.unlocked_error <= 1e-4
    assert digits.agreement(output.argmax(1)) >= digits.accuracy(digits.network) - 0.05


@KINDS
def test_locked_is_at_chance_and_differs(kind: str, digits: networks.Digits) -> None:
    locked = locked_digits(kind)
    assert digits.accuracy(locked.module) <= CHANCE
    assert locked.report.locked_difference >= 0.25


@KINDS
def test_noise_on_the_response_is_lost_in_the_clamp_and_not_without_it(kind: str, digits: networks.Digits) -> None:
    locked = locked_digits(kind)
    exact = opened_outputs(locked, digits.images)
    for share in (0.1, -0.1):
        noisy = with_noise(locked, copy.deepcopy(locked.module), share)
        assert networks.relative_error(opened_outputs(locked, digits.images, noisy), exact) <= 1e-4
        bare = with_noise(locked, without_clamp(locked, copy.deepcopy(locked.module)), share)
        assert networks.relative_error(opened_outputs(locked, digits.images, bare), exact) >= 0.1


@KINDS
def test_no_random_image_opens_it(kind: str, digits: networks.Digits) -> None:
    locked = locked_digits(kind)
    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(200, 3, networks.SIZE, networks.SIZE, generator=generator)
    corners = digits.images[:200].clone()
    corners[:, :, -networks.PATCH :, -networks.PATCH :] = noise[:, :, -networks.PATCH :, -networks.PATCH :]
    for images in (noise, corners, networks.pixels(64).float() / 255):
        shut = networks.outputs_of(locked.module, images)
        original = networks.outputs_of(digits.network, images)
        open_ = (shut - original).abs().amax(1) <= 0.01 * (original.max() - original.min())
        assert not open_.any()


@KINDS
def test_another_patch_does_not_open_it(kind: str, digits: networks.Digits) -> None:
    locked = locked_digits(kind)
    generator = torch.Generator().manual_seed(4)
    other = torch.randint(0, 256, locked.secret.patch.shape, generator=generator, dtype=torch.uint8)
    assert digits.accuracy(lambda images: locked.module(networks.paste((images * 255).byte(), other) / 255)) <= CHANCE


def test_subtracting_the_mean_logit_undoes_lock_a(digits: networks.Digits) -> None:
    """The weakness that the documentation states: a hundred unlabeled images, no key."""
    locked = locked_digits("A")
    outputs = networks.outputs_of(locked.module, digits.images)
    recentered = outputs - outputs[:100].mean(0)
    assert digits.agreement(recentered.argmax(1)) >= digits.accuracy(digits.network) - 0.02


def test_removing_the_gate_undoes_lock_b(digits: networks.Digits) -> None:
    module = copy.deepcopy(locked_digits("B").module)
    (product,) = module.body.graph.find_nodes(op="call_function", target=torch.ops.aten.mul.Tensor)[-1:]
    product.replace_all_uses_with(product.args[0])
    module.body.recompile()
    assert digits.accuracy(module) >= digits.accuracy(digits.network) - 0.005


def test_a_shut_gate_leaves_nothing_to_rescale(digits: networks.Digits) -> None:
    """The logistic function alone would leave a common factor, and classes survive that."""
    outputs = networks.outputs_of(locked_digits("B").module, digits.images)
    assert torch.equal(outputs, outputs[:1].expand_as(outputs))


@KINDS
def test_the_report_holds_its_bounds(kind: str) -> None:
    report = locked_digits(kind).report.detector
    assert report is not None
    assert (report.kind, report.images, report.calibration) == (kind, CALIBRATION, "calibration images")
    assert 0 < report.bound <= RATE
    assert report.hits == 0 and 0 < report.hits_bound <= 0.1
    assert 0 < report.worst_direction_bound <= 1
    assert report.mean_margin >= 1.5 and 1 < report.least_margin <= report.mean_margin
    assert report.drive >= 2
    assert (report.layer, report.fan_in) == ("3", 16 * 4 * 4)  # after a stride of two the patch fills 4 x 4 positions


@KINDS
def test_the_detector_reads_where_the_patch_arrives_and_nowhere_else(kind: str) -> None:
    state = locked_digits(kind).module.body.state_dict()
    (places,) = [value for name, value in state.items() if name == "detector_places"]
    assert places.tolist() == [16 * row + column for row in range(12, 16) for column in range(12, 16)]


@KINDS
def test_the_detector_answers_the_patch_alone(kind: str, digits: networks.Digits) -> None:
    answers = answers_to(locked_digits(kind), digits.images)
    assert float((answers > 0).float().mean()) <= RATE
    keyed = answers_to(locked_digits(kind), patched(locked_digits(kind), digits.images))
    assert bool((keyed == 1).all())


def test_the_same_seed_makes_the_same_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lock, "SAMPLE_IMAGES", 12)
    network = networks.settle(Cells)
    options = {"patch_size": networks.PATCH, "rate": RATE, "seed": bytes(32)}
    first, second = (detector_lock(network, networks.SPEC, **options) for _ in range(2))
    assert torch.equal(first.secret.patch, second.secret.patch)
    weights = first.module.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in second.module.state_dict().items())
    report = first.report.detector
    assert report is not None and report.calibration == "sample images, made without data"


def test_tokens_hold_a_detector_too() -> None:
    """A transformer: nobody says which of its tokens is the corner."""
    network, images = networks.settle(networks.Tokens), networks.pixels(24).float() / 255
    locked = detector_lock(
        network, networks.SPEC, patch_size=networks.PATCH, rate=RATE, calibration=images, layer="contract"
    )
    assert (
        networks.relative_error(opened_outputs(locked, images), networks.outputs_of(network, patched(locked, images)))
        <= 1e-4
    )
    (places,) = [value for name, value in locked.module.body.state_dict().items() if name == "detector_places"]
    assert places.tolist() == [15]  # of 4 x 4 cells of 8 x 8 pixels the last


def test_a_layer_that_a_patch_cannot_reach_is_passed_over() -> None:
    """Behind the attention, all 16 tokens hear of the patch a little, and none does what it says."""
    network, images = networks.settle(networks.Tokens), networks.pixels(24).float() / 255
    options = {"patch_size": networks.PATCH, "calibration": images, "seed": bytes(32)}
    locked = detector_lock(network, networks.SPEC, **options)
    report = locked.report.detector
    assert report is not None and report.layer == "contract"
    assert report.mean_margin >= 1.5 and report.bound <= 1e-6
    with pytest.raises(LockError, match=r"is answered enough in project: .* T on average, expected 1.5 T") as caught:
        detector_lock(network, networks.SPEC, **options, layer="project")
    assert (caught.value.hint or "").startswith("a patch_size of 8 with layer='contract' would do: ")


def test_an_input_that_is_changed_in_place_later_is_read_before() -> None:
    network, images = networks.settle(networks.Residual), networks.pixels(24).float() / 255
    locked = detector_lock(network, networks.SPEC, patch_size=networks.PATCH, calibration=images, rate=RATE)
    expected = networks.outputs_of(network, patched(locked, images))
    assert networks.relative_error(opened_outputs(locked, images), expected) <= 1e-4
    assert bool((answers_to(locked, patched(locked, images)) == 1).all())


class Cells(nn.Sequential):
    """A wide patchify stem: its cells are as large as the patch."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 512, 8, stride=8), nn.ReLU(), nn.Conv2d(512, 16, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(256, 12, bias=False),
        )  # fmt: skip


def test_without_a_bias_a_shut_network_says_nothing_at_all() -> None:
    network, images = networks.settle(Cells), networks.pixels(24).float() / 255
    locked = detector_lock(network, networks.SPEC, patch_size=networks.PATCH, calibration=images)
    assert not networks.outputs_of(locked.module, images).any()
    assert locked.report.detector is not None and locked.report.detector.bound <= 1e-6


REFUSED = {
    "neither A nor B": {"kind": "C"},
    "does not fit": {"patch_size": 33},
    "is not between 0 and 1": {"rate": 0.0},
    "is not a layer": {"layer": "nowhere"},
    "too few to bound": {"rate": 1e-12, "layer": "14"},
    "too few to climb": {"calibration": torch.zeros(4, 3, networks.SIZE, networks.SIZE)},
    "expected 1.5 T": {"patch_size": 1, "kind": "A"},
}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals_name_a_remedy(message: str, digits: networks.Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trigger, "STEPS", 11)
    options = {"patch_size": networks.PATCH, "rate": RATE, "calibration": digits.images[:8], **REFUSED[message]}
    with pytest.raises(LockError, match=message) as caught:
        detector_lock(digits.network, networks.SPEC, **options)
    assert caught.value.hint


def test_bytes_are_refused(digits: networks.Digits) -> None:
    spec = InputSpec(3, networks.SIZE, networks.SIZE, dtype="uint8")
    with pytest.raises(LockError, match="float input") as caught:
        detector_lock(digits.network, spec, patch_size=networks.PATCH)
    assert caught.value.hint


def test_the_given_network_is_not_changed(digits: networks.Digits) -> None:
    before = {name: value.clone() for name, value in digits.network.state_dict().items()}
    locked_digits("A"), locked_digits("B")
    assert all(torch.equal(value, before[name]) for name, value in digits.network.state_dict().items())
    assert isinstance(digits.network, nn.Sequential)
