"""Which layers are gated."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from keylatch.errors import LockError
from keylatch.locks._capture import capture
from keylatch.locks._gate_sites import MINIMUM_GATES, GateSite, choose_sites, find_sites
from networks import SPEC, Depthwise, PaddedConvs, Residual, Tokens, lock, program_of, settle

TOTAL = 10**9


def sites_of(network: nn.Module, **options: int) -> list[GateSite]:
    graph, _ = capture(network.eval(), SPEC)
    return find_sites(graph, **options)[0]


def names_of(network: nn.Module, **options: int) -> list[str]:
    return [site.name.removesuffix(".weight") for site in sites_of(network, **options)]


def site(index: int, depth: float, parameters: int = 100, multiply_adds: int = 1000) -> Any:
    return GateSite(SimpleNamespace(index=index), f"layer{index}.weight", 64, parameters, multiply_adds, depth)


def even_sites(count: int, parameters: list[int]) -> list[Any]:
    return [site(i, i / count, size) for i, size in zip(range(count), itertools.cycle(parameters), strict=False)]


def test_layers_need_at_least_64_input_channels() -> None:
    class Widths(nn.Sequential):
        def __init__(self) -> None:
            widths = [3, 63, 64, 65, 32]
            convs = [nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(widths)]
            super().__init__(*convs, nn.Flatten(), nn.Linear(32 * 4, 10))

    assert names_of(Widths()) == ["2", "3", "5"]
    assert names_of(Widths(), minimum_channels=65) == ["3", "5"]
    assert names_of(Widths(), minimum_channels=1) == ["0", "1", "2", "3", "5"]


class Grouped(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 64, 4, 4), nn.Conv2d(64, 64, 3, groups=64), nn.Conv2d(64, 128, 1),
            nn.Conv2d(128, 64, 1, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
        )  # fmt: skip


class Windows(nn.Module):
    """Window attention merges windows into the batch, as Swin does."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inside, self.after = nn.Conv2d(3, 64, 4, 4), nn.Linear(64, 64), nn.Linear(64, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        batch, channels, side, _ = x.shape
        windows = x.view(batch, channels, 2, side // 2, 2, side // 2).permute(0, 2, 4, 3, 5, 1)
        windows = F.gelu(self.inside(windows.reshape(batch * 4, (side // 2) ** 2, channels)))
        return self.head(self.after(windows.reshape(batch, side**2, channels)).mean(1))


class Transposed(nn.Module):
    """Tokens before images: (T, N, C), as older attention modules want it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inside, self.head = nn.Conv2d(3, 64, 4, 4), nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x).flatten(2).permute(2, 0, 1)
        return self.head(F.relu(self.inside(tokens)).mean(0))


class Shared(nn.Module):
    """One layer used twice, and one weight used by two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice, self.own = nn.Conv2d(3, 64, 4, 4), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 64, 1)
        self.first, self.second, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.own(F.relu(self.twice(F.relu(self.twice(self.stem(x))))))
        return self.head(self.second(F.relu(self.first(x.mean((2, 3))))))


class Computed(nn.Module):
    """A weight that is computed on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.raw, self.head = nn.Conv2d(3, 64, 4, 4), nn.Parameter(torch.randn(64, 64)), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.linear(self.stem(x).mean((2, 3)), F.normalize(self.raw)))


@pytest.mark.parametrize(
    ("build", "gated"),
    [(Grouped, ["2", "6"]), (Windows, ["after", "head"]), (Transposed, ["head"]), (Shared, ["own", "head"]),
     (Computed, ["head"]), (Tokens, ["qkv", "project", "expand", "contract", "head"]),
     (Depthwise, ["5", "11", "16"])],
)  # fmt: skip
def test_only_layers_that_a_gate_fits_are_candidates(build: type[nn.Module], gated: list[str]) -> None:
    assert names_of(build()) == gated


@pytest.mark.parametrize(
    ("build", "layer"),
    [(Grouped, "1"), (Grouped, "3"), (Windows, "inside"), (Transposed, "inside"), (Shared, "twice"), (Shared, "first")],
)
def test_a_layer_that_a_gate_does_not_fit_is_refused_by_name(build: type[nn.Module], layer: str) -> None:
    with pytest.raises(LockError, match=f"'{layer}' is not a layer that can be gated"):
        lock(settle(build), layers=[layer])


@pytest.mark.parametrize("build", [Grouped, Windows, Transposed, Shared, Computed])
def test_networks_with_such_layers_are_locked_at_the_others(build: type[nn.Module]) -> None:
    report = lock(settle(build)).report
    assert {layer.name.removesuffix(".weight") for layer in report.layers} == set(names_of(build()))


def test_a_site_costs_its_weights_whatever_the_size_of_its_input() -> None:
    costs = {site.name: (site.parameters, site.channels) for site in sites_of(PaddedConvs())}
    assert costs == {"3.weight": (64 * 64 * 9, 64), "6.weight": (64 * 64 * 15, 64), "11.weight": (64 * 10, 64)}
    tokens = {site.name.removesuffix(".weight"): site.parameters for site in sites_of(Tokens())}
    assert tokens == {
        "qkv": 64 * 192, "project": 64 * 64, "expand": 64 * 128, "contract": 128 * 64, "head": 64 * 10
    }  # fmt: skip


def test_depth_grows_from_zero_to_one_along_the_network() -> None:
    depths = [site.depth for site in sites_of(Residual())]
    assert depths == sorted(depths)
    assert 0 < depths[0] < depths[-1] < 1


def test_gates_are_spread_over_the_depth() -> None:
    chosen = choose_sites(even_sites(20, [100]), TOTAL, gates=5, cost_share=1.0)
    assert [int(s.depth * 5) for s in chosen] == [0, 1, 2, 3, 4]


def test_of_each_part_the_cheapest_layer_is_taken() -> None:
    chosen = choose_sites(even_sites(20, [400, 300, 100, 200]), TOTAL, gates=5, cost_share=1.0)
    assert [s.parameters for s in chosen] == [100] * 5
    equal = [site(0, 0.1, multiply_adds=1), site(1, 0.15, multiply_adds=9)]
    assert choose_sites(equal, TOTAL, gates=1, cost_share=1.0) == [equal[1]]


def test_a_part_without_layers_gives_its_gate_to_the_cheapest_of_the_rest() -> None:
    crowded = [site(0, 0.0, 500), site(1, 0.9, 300), site(2, 0.91, 100), site(3, 0.92, 200)]
    chosen = choose_sites(crowded, TOTAL, gates=3, cost_share=1.0)
    assert [s.name for s in chosen] == ["layer0.weight", "layer2.weight", "layer3.weight"]


@pytest.mark.parametrize("share", [0.0, 1e-7, 5e-7, 6e-7, 7e-7, 1e-6, 1.0])
def test_gates_cost_at_most_their_share_down_to_the_fewest(share: float) -> None:
    sites = even_sites(8, [50, 100, 150])
    chosen = choose_sites(sites, TOTAL, gates=8, cost_share=share)
    cost = sum(s.parameters for s in chosen)
    assert len(chosen) == MINIMUM_GATES or (cost <= share * TOTAL and len(chosen) > MINIMUM_GATES)
    left_out = [s for s in sites if s not in chosen]
    if left_out:
        assert cost + min(s.parameters for s in left_out) > share * TOTAL  # no gate given up without need
        assert max(s.parameters for s in chosen) <= min(s.parameters for s in left_out)  # the dearest are given up


def test_the_chosen_gates_stay_in_the_network_s_order() -> None:
    chosen = choose_sites(even_sites(10, [300, 100, 200]), TOTAL, gates=10, cost_share=1.0)
    assert [s.depth for s in chosen] == sorted(s.depth for s in chosen)


def test_by_default_gated_layers_have_a_fiftieth_of_the_weights() -> None:
    budget = TOTAL // 50
    sites = even_sites(8, [budget // 8])
    assert len(choose_sites(sites, TOTAL)) == 8
    assert len(choose_sites(even_sites(8, [budget // 6]), TOTAL)) == 6


def test_layers_that_are_withheld_are_not_gated() -> None:
    network = settle(Residual)
    names = lambda share: [layer.name for layer in lock(network, sealed_share=share).report.layers]  # noqa: E731
    assert names(0.0) == ["first.weight", "second.weight", "third.weight", "head.weight"]
    assert names(0.5) == ["second.weight", "third.weight", "head.weight"]


def test_layers_are_gated_though_withheld_if_there_are_no_others() -> None:
    network = settle(Residual)
    everything = lock(network, sealed_share=1.0).report
    assert [layer.name for layer in everything.layers] == [site.name for site in sites_of(network)]
    assert everything.unlocked_error <= 1e-5
    named = lock(network, sealed_share=1.0, layers=["third"]).report
    assert [layer.name for layer in named.layers] == ["third.weight"]


def test_options_reach_the_choice() -> None:
    network = settle(Tokens)
    assert len(lock(network, gates=5, cost_share=1.0).report.layers) == 5
    assert len(lock(network, gates=3, cost_share=1.0).report.layers) == 3
    assert [layer.name for layer in lock(network, minimum_channels=128).report.layers] == ["contract.weight"]


@pytest.mark.parametrize("names", [["head", "third"], ["third.weight", "head.weight"], ["third", "head", "third"]])
def test_named_layers_are_gated_and_no_others(names: list[str]) -> None:
    locked = lock(program_of(Residual), layers=names)
    assert [layer.name for layer in locked.report.layers] == ["third.weight", "head.weight"]
    assert locked.module.description.layers == (("third.weight", 64), ("head.weight", 96))


def test_an_unknown_name_is_refused_with_examples() -> None:
    with pytest.raises(LockError, match="'thrid' is not a layer that can be gated") as caught:
        lock(program_of(Residual), layers=["head", "thrid"])
    assert caught.value.hint == "layers that can be gated are, e.g., second, third, head"


@pytest.mark.parametrize("options", [{"layers": []}, {"gates": 0}, {"gates": -1}])
def test_a_lock_without_a_gate_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(LockError) as caught:
        lock(program_of(Residual), **options)
    assert caught.value.hint


@pytest.mark.parametrize("padding", [{"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}])
def test_other_paddings_are_left_to_torch(padding: dict[str, Any]) -> None:
    class Network(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(
                nn.Conv2d(3, 64, 4, 4),
                nn.Conv2d(64, 64, 3, **padding),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(64, 10),
            )

    assert lock(settle(Network)).report.unlocked_error <= 1e-5
