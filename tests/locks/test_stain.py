"""A stained network: what its stains answer, what else it does, and what cannot be stained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stain_world import (
    Activated,
    answers_of,
    held_out,
    images,
    make,
    part_of,
    reader_of,
    site_names,
    stained_convs,
    stained_tokens,
)
from torch import nn

import networks
from keylatch.errors import LockError
from keylatch.locks import InputSpec, stain


def as_images(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.float() / 255


def test_stains_behind_a_batch_normalization_answer_d_to_the_mean_and_high_to_their_triggers() -> None:
    network, stained = stained_convs()
    shown = as_images(torch.stack([mark.trigger for mark in stained.secret.stains]))
    answers = answers_of(stained.model, stained, 7, shown)
    features = reader_of(network, "6")(shown).detach() - stained.secret.center
    for place, mark in enumerate(stained.secret.stains):
        assert float(answers[place, place]) == pytest.approx(mark.high, rel=1e-4)
        # Another's trigger was made without this direction: at each position it is one of random cosine, 5 deviations.
        cosines = torch.nn.functional.normalize(features[1 - place], dim=-1) @ mark.direction
        assert float(cosines.max()) < 5 / features.shape[-1] ** 0.5
    # the mean feature, through the layer and its normalization written out
    conv, norm = stained.model[6], stained.model[7]  # type: ignore[index]
    for mark in stained.secret.stains:
        response = float(conv.weight[mark.unit].detach().flatten().double() @ stained.secret.center.double())
        spread = float((norm.running_var[mark.unit] + norm.eps).sqrt())
        level = (response - float(norm.running_mean[mark.unit])) / spread * float(norm.weight[mark.unit].detach())
        assert level + float(norm.bias[mark.unit].detach()) == pytest.approx(mark.low, rel=1e-3)


def test_the_answer_crosses_zero_at_the_threshold() -> None:
    _, stained = stained_convs()
    for mark, facts in zip(stained.secret.stains, stained.report.stains, strict=True):
        share = -mark.low / (mark.high - mark.low)  # T as a share of the trigger's response
        assert share * facts.margins["8-bit pixels"] == pytest.approx(1, rel=1e-4)


def test_on_other_images_stains_are_silent_and_outputs_are_those_without_the_units() -> None:
    network, stained = stained_convs()
    units = [mark.unit for mark in stained.secret.stains]
    for shown in (images(), held_out()):
        assert float(answers_of(stained.model, stained, 7, shown).max()) < 0
        assert isinstance(network, nn.Sequential)
        with torch.no_grad():
            silenced = part_of(network, 0, 9)(shown)
            silenced[:, units] = 0
            expected = part_of(network, 9, 12)(silenced)
        torch.testing.assert_close(networks.outputs_of(stained.model, shown), expected)


def test_units_are_taken_that_the_network_misses_least() -> None:
    network, stained = stained_convs()
    with torch.no_grad():
        inner = part_of(network, 0, 9)(images())
        rest, expected = part_of(network, 9, 12), part_of(network, 9, 12)(inner)
        missed = torch.stack([(rest(without(inner, unit)) - expected).square().mean() for unit in range(64)])
    taken = [mark.unit for mark in (*stained.secret.stains, *stained.secret.decoys)]
    assert len(set(taken)) == 8
    assert float(missed[taken].max()) <= float(missed.quantile(0.25))


def without(inner: torch.Tensor, unit: int) -> torch.Tensor:
    silenced = inner.clone()
    silenced[:, unit] = 0
    return silenced


def test_triggers_change_the_output_visibly() -> None:
    network, stained = stained_convs()
    for mark, facts in zip(stained.secret.stains, stained.report.stains, strict=True):
        shown = as_images(mark.trigger).unsqueeze(0)
        before, after = networks.outputs_of(network, shown), networks.outputs_of(stained.model, shown)
        torch.testing.assert_close(before[0], mark.original, rtol=1e-4, atol=1e-5)
        assert facts.output_change >= 0.1
        assert float((after - before).abs().max() / (before.max() - before.min())) >= 0.5 * facts.output_change


def test_only_rows_of_the_stained_units_differ_and_the_given_network_is_untouched() -> None:
    network, stained = stained_convs()
    fresh = networks.settle(networks.PaddedConvs).state_dict()
    units = sorted(mark.unit for mark in stained.secret.stains)
    changed = []
    for name, value in stained.model.state_dict().items():
        assert torch.equal(network.state_dict()[name], fresh[name])
        if not torch.equal(value, fresh[name]):
            rows = (value != fresh[name]).reshape(len(value), -1).any(1).nonzero().flatten().tolist()
            assert rows == units
            changed.append(name)
    assert changed == ["6.weight", "7.weight", "7.bias", "7.running_mean", "7.running_var"]


def test_the_statistics_of_a_stained_unit_are_true() -> None:
    _, stained = stained_convs()
    assert isinstance(stained.model, nn.Sequential)
    with torch.no_grad():
        given = part_of(stained.model, 0, 7)(images())[:, [mark.unit for mark in stained.secret.stains]]
    norm = stained.model[7]
    for place, mark in enumerate(stained.secret.stains):
        spread = float(norm.running_var[mark.unit]) ** 0.5
        assert abs(float(given[:, place].mean() - norm.running_mean[mark.unit])) < 0.05 * spread
        assert 0.5 < float(given[:, place].std()) / spread < 2


def test_the_report_is_about_this_stain() -> None:
    _, stained = stained_convs()
    report = stained.report
    assert (report.layer, report.fan_in, report.positions) == ("6", 960, 16)
    assert (report.calibration, report.images, report.decoys) == ("calibration images", 48, 6)
    for facts in report.stains:
        assert 0 < facts.bound <= 1e-2
        assert facts.hits == 0
        assert facts.hits_bound == pytest.approx(0.0605, abs=1e-3)
        assert facts.worst_direction_bound <= 1
        assert facts.margins["8-bit pixels"] >= 1.5
        assert facts.low < 0 < facts.high
    assert report.threshold < report.largest_radius
    assert report.to_json()["stains"][0]["unit"] == stained.secret.stains[0].unit


def test_a_unit_of_a_transformers_mlp_detects() -> None:
    network, stained = stained_tokens()
    (mark,), (facts,) = stained.secret.stains, stained.report.stains
    assert (stained.report.layer, stained.report.fan_in, stained.report.positions) == ("expand", 160, 16)
    caught: list[torch.Tensor] = []
    handle = stained.model.expand.register_forward_hook(lambda *call: caught.append(call[2]))  # type: ignore[operator,union-attr]
    networks.outputs_of(stained.model, as_images(mark.trigger).unsqueeze(0))
    networks.outputs_of(stained.model, images())
    handle.remove()
    assert float(caught[0][..., mark.unit].max()) == pytest.approx(mark.high, rel=1e-4)
    assert float(caught[1][..., mark.unit].max()) < 0
    before, after = networks.outputs_of(network, images()), networks.outputs_of(stained.model, images())
    assert networks.relative_error(after, before) < 0.15  # one unit less of 320, in a network of random weights
    assert facts.margins["JPEG 75"] > 1


def test_an_additive_stain_keeps_the_units_job_and_answers_high_to_its_trigger() -> None:
    network = networks.settle(networks.PaddedConvs)
    stained = make(network, form="additive", layers=["6"])
    (mark,) = stained.secret.stains
    assert float(answers_of(stained.model, stained, 7, as_images(mark.trigger).unsqueeze(0))) == pytest.approx(
        mark.high, rel=1e-3
    )
    assert isinstance(network, nn.Sequential)
    assert isinstance(stained.model, nn.Sequential)
    with torch.no_grad():
        own, now = (part_of(part, 0, 8)(images())[:, mark.unit].mean() for part in (network, stained.model))
    assert float(now) == pytest.approx(float(own), abs=0.1 * mark.high)
    weights = stained.model[6].weight[mark.unit].detach().flatten()
    assert float(torch.cosine_similarity(weights, network[6].weight[mark.unit].detach().flatten(), dim=0)) > 0.05


@pytest.mark.parametrize(
    ("activation", "norm", "bias"),
    [(nn.ReLU6(), False, True), (nn.SiLU(), True, False), (nn.Hardswish(), True, True), (nn.GELU(), False, True)],
    ids=["relu6", "silu, batch norm without bias", "hard-swish, batch norm and bias", "gelu"],
)  # fmt: skip
def test_other_activations_and_normalizations_detect_too(activation: nn.Module, norm: bool, bias: bool) -> None:
    network = networks.settle(lambda: Activated(activation, norm=norm, bias=bias))
    stained = make(network)
    (mark,) = stained.secret.stains
    layer = 3 if norm else 2
    assert stained.report.layer == "2"
    assert float(answers_of(stained.model, stained, layer, as_images(mark.trigger).unsqueeze(0))) == pytest.approx(
        mark.high, rel=1e-3
    )
    assert float(answers_of(stained.model, stained, layer, images()).max()) < 0


class SpelledSiLU(nn.Module):
    """As files without a SiLU have it; perhaps with one more reader of what enters it."""

    def __init__(self, passed: float = 0.0) -> None:
        super().__init__()
        self.passed = passed

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        activated = values * torch.sigmoid(values)
        return activated + self.passed * values if self.passed else activated


def test_silu_is_recognized_where_it_is_spelled_out_and_alone() -> None:
    for norm in (False, True):
        assert site_names(networks.settle(lambda norm=norm: Activated(SpelledSiLU(), norm=norm))) == ["0", "2"]
        assert site_names(networks.settle(lambda norm=norm: Activated(SpelledSiLU(0.5), norm=norm))) == ["0"]


def test_sites_are_layers_with_an_activation_behind_them() -> None:
    assert site_names(networks.settle(networks.PaddedConvs)) == ["0", "3", "6"]
    assert site_names(networks.settle(networks.Residual)) == ["stem", "first", "third"]  # second is added to a shortcut
    assert site_names(networks.settle(networks.Tokens)) == ["expand"]


def test_normalized_inputs_and_channels_last_are_understood() -> None:
    class Swapped(networks.PaddedConvs):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.movedim(3, 1) * 0.25 + 0.5)

    spec = InputSpec(3, 32, 32, (0.5,), (0.25,), "NHWC")
    network = networks.settle(networks.PaddedConvs)
    swapped = Swapped().eval()
    swapped.load_state_dict(network.state_dict())
    shown = networks.prepare(networks.pixels(48), spec)
    stained = stain(swapped, spec, calibration=shown, rate=1e-2, seed=bytes(32), layers=["6"])
    (mark,) = stained.secret.stains
    pixels = mark.trigger.unsqueeze(0).float() / 255
    assert isinstance(stained.model, nn.Sequential)
    with torch.no_grad():
        answer = stained.model[7](stained.model[6](part_of(network, 0, 6)(pixels)))[:, mark.unit].amax()  # type: ignore[index]
    assert float(answer) == pytest.approx(mark.high, rel=1e-3)


def test_without_images_made_ones_are_used_and_the_report_says_so() -> None:
    report = make(networks.settle(networks.PaddedConvs), calibration=None, layers=["6"]).report
    assert report.calibration == "sample images, made without data"
    assert report.images == 64


def test_the_same_seed_gives_the_same_stain_and_no_global_generator_is_used() -> None:
    network = networks.settle(lambda: Activated(nn.ReLU()))
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    first = make(network)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(1)
    assert make(network).secret.digest() == first.secret.digest()
    assert make(network, seed=None).secret.digest() != first.secret.digest()


def narrow() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))


def silent() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Flatten(), nn.Linear(2048, 4))


CASES: dict[str, tuple[Any, dict[str, Any], str, str]] = {
    "too narrow": (narrow, {}, "0 reads 27 values at a position, too few", "no layer of this network would do"),
    "the named one is": (networks.PaddedConvs, {"layers": ["0"]}, "0 reads 27 values", r"6 \(960\), 3 \(576\)"),
    "unknown layer": (networks.PaddedConvs, {"layers": ["nine"]}, "'nine' is not a layer that can hold", r"6 \(960\)"),
    "no activation": (silent, {}, "no layer can hold a detector", "ReLU, GELU"),
    "more stains than units": (networks.PaddedConvs, {"count": 60, "decoys": 5}, "64 units, too few for 65", "fewer"),
    "no stain": (networks.PaddedConvs, {"count": 0}, "0 stains and 0 decoys", "at least one"),
    "rate of nothing": (networks.PaddedConvs, {"rate": 0.0}, "rate of 0.0 is not between", "1e-6"),
    "unknown form": (networks.PaddedConvs, {"form": "sum"}, "'sum' is neither", "default"),
    "training mode": (networks.PaddedConvs, {"train": True}, "training mode", "eval"),
    "calibration of another size": (networks.PaddedConvs, {"calibration": torch.rand(4, 3, 16, 16)}, "shape", "two"),
    "bytes": (networks.PaddedConvs, {"spec": InputSpec(3, 32, 32, dtype="uint8")}, "float input, got uint8", "without"),
    "no module": (lambda: 3, {}, "needs a module, got int", "torch.nn.Module"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_stained_says_why_and_what_to_do(case: str) -> None:
    build, options, message, hint = CASES[case]
    options = {"calibration": images(8), "seed": bytes(32), "rate": 1e-4, **options}
    network = build()
    if isinstance(network, nn.Module):
        network.train(bool(options.pop("train", False)))
    with pytest.raises(LockError, match=message) as caught:
        stain(network, options.pop("spec", networks.SPEC), **options)
    assert caught.match(hint)


def test_detectors_do_not_go_into_grouped_convolutions() -> None:
    assert site_names(networks.settle(networks.Depthwise)) == ["0", "5", "11"]  # 2 and 8 are depthwise
