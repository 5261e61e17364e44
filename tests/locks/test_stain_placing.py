"""Where stains go: a layer with units that the outputs do not miss, by exact silencing, and hear when they are loud."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stain_world import images, make, part_of
from torch import fx, nn

import networks
from keylatch.errors import LockError
from keylatch.locks import _stain
from keylatch.locks._capture import capture
from keylatch.locks._detector import _silencing
from keylatch.locks._detector._placing import Placement, least_missed_units, placements
from keylatch.locks._detector._silencing import ResumableRun, quiet_units
from keylatch.locks._detector._sites import DetectorSite, find_detector_sites
from keylatch.locks._detector._units import rank_units
from keylatch.locks._randomness import SeededDraws

SILENT, DEAF = [2, 5], 1


def misleading() -> nn.Sequential:
    """Units of layer 0 drive channels of layer 2 far into the ceiling of ReLU6, where the gradient is zero.

    In layer 2 two units are silent on all images, and nobody listens to a third one.
    """
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip
    with torch.no_grad():
        network[0].bias.fill_(2)
        network[2].weight.copy_(1e3 * torch.eye(8)[:, :, None, None])
        network[2].bias.zero_()
        network[2].bias[SILENT] = -1e5
        network[6].weight[:, DEAF] = 0
    return network.eval()


def captured(network: nn.Module) -> tuple[fx.GraphModule, list[DetectorSite]]:
    graph, _ = capture(network, networks.SPEC)
    return graph.requires_grad_(False), find_detector_sites(graph)


def placed(network: nn.Module, count: int) -> list[Placement]:
    graph, sites = captured(network)
    return list(placements(graph, sites, images(24), count, SeededDraws(bytes(32), "test")))


def moved_without(network: nn.Sequential, activation: int, unit: int, shown: torch.Tensor) -> float:
    """The mean over images of the largest change as a share of the range, from the module itself."""
    with torch.no_grad():
        rest = part_of(network, activation + 1, len(network))
        inner = part_of(network, 0, activation + 1)(shown)
        expected = rest(inner)
        inner = inner.clone()
        inner[:, unit] = 0
        change = (rest(inner) - expected).abs().amax(1)
    return float((change / (expected.amax(1) - expected.amin(1))).mean())


def test_units_that_only_seem_dispensable_to_first_order_are_passed_over() -> None:
    network = misleading()
    inner = part_of(network, 0, 2)(images(24)).detach().requires_grad_()
    part_of(network, 2, 7)(inner).sum().backward()
    assert inner.grad is not None
    assert float(inner.grad.abs().max()) == 0
    assert min(moved_without(network, 1, unit, images(24)) for unit in (0, 3, 4, 6, 7)) > 0.01
    found = placed(network, 2)
    assert [placement.site.name for placement in found] == ["2", "0"]
    assert sorted(found[0].units) == SILENT
    assert found[0].silenced_change == 0
    assert found[1].silenced_change is None


def test_a_unit_that_nobody_hears_is_not_taken() -> None:
    network = misleading()
    graph, (_, site) = captured(network)
    assert moved_without(network, 3, DEAF, images(24)) == 0
    assert sorted(quiet_units(graph, site, images(24), range(8))) == SILENT
    # three stains: the layer has two units for them, and the first layer is taken as it is
    assert [placement.site.name for placement in placed(network, 3)] == ["0"]


def test_what_silencing_measures_is_what_the_module_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_silencing, "QUIET", 1.0)
    network = networks.settle(networks.PaddedConvs)
    assert isinstance(network, nn.Sequential)
    graph, sites = captured(network)
    changes = quiet_units(graph, sites[1], images(20), range(10))
    assert list(changes) == list(range(10))
    for unit, change in changes.items():
        assert change == pytest.approx(moved_without(network, 5, unit, images(20)), rel=1e-4)


def test_where_no_unit_is_quiet_those_are_taken_that_outputs_miss_least() -> None:
    network = networks.settle(networks.PaddedConvs)
    assert isinstance(network, nn.Sequential)
    graph, sites = captured(network)
    draws = (SeededDraws(bytes(32), "test") for _ in range(2))
    pool = rank_units(graph, sites[1], images(24), 2, next(draws), power=2).tolist()[:6]
    moved = {unit: moved_without(network, 5, unit, images(16)) for unit in pool}
    found = least_missed_units(graph, sites[1], images(24), 2, next(draws))
    assert found == sorted(pool, key=moved.__getitem__)[:2]
    assert found != pool[:2]


def test_a_resumed_run_gives_the_outputs_behind_layers_that_write_in_place() -> None:
    graph, sites = captured(networks.settle(networks.Residual))
    for site in sites:
        with torch.no_grad():
            run = ResumableRun(graph, site.activation, images(4))
            for _ in range(2):
                torch.testing.assert_close(run.again()[0], graph(images(4))[0])


def test_where_triggers_do_not_reach_their_margin_the_next_layer_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_silencing, "QUIET", 1.0)
    network = networks.settle(networks.PaddedConvs)
    draw, refused = _stain.draw_detectors, []

    def draw_elsewhere(reader: Any, *given: Any) -> Any:
        if not refused:
            refused.append(reader.site.name)
            raise LockError("no trigger reaches its margin")
        return draw(reader, *given)

    monkeypatch.setattr(_stain, "draw_detectors", draw_elsewhere)
    report = make(network).report
    assert (refused, report.layer) == (["6"], "3")
    assert report.silenced_change is not None
    stained = report.stains[0].unit
    assert isinstance(network, nn.Sequential)
    assert report.silenced_change == pytest.approx(moved_without(network, 5, stained, images()), rel=1e-4)
