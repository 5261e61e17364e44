"""Batch normalizations are folded away: outputs stay, and no running statistic remains anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from keylatch.errors import LockError
from keylatch.locks import LockedModule, save_locked
from keylatch.locks._capture import capture
from keylatch.locks._fold_batch_norm import BATCH_NORM, CONV2D, LINEAR, fold_batch_norms
from keylatch.locks._moments import Moments, propagate
from networks import SIZE, SPEC, Depthwise, PaddedConvs, PreActivation, Residual, lock, pixels, prepare, settle


class LinearThenNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Linear(3 * SIZE**2, 64, bias=False), nn.BatchNorm1d(64), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.norm(self.embed(x.flatten(1)))))


class TokensThenNorm(nn.Module):
    """As many tokens as channels: a normalization over tokens must not be taken for one over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.norm = nn.Conv2d(3, 64, 4, 4), nn.Linear(64, 64), nn.BatchNorm1d(64)
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.mix(self.embed(x).flatten(2).transpose(1, 2))).mean(1))


class NormBesideUse(nn.Module):
    """A convolution whose output is normalized and used as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(3, 64, 4, 4), nn.BatchNorm2d(64), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head((x + F.relu(self.norm(x))).mean((2, 3)))


class SharedConvolution(nn.Module):
    """One convolution used twice, with a normalization of its own each time."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.head = nn.Conv2d(3, 64, 4, 4), nn.Conv2d(64, 64, 1), nn.Linear(64, 10)
        self.first, self.second = nn.BatchNorm2d(64), nn.BatchNorm2d(64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(self.shared(self.stem(x))))
        return self.head(F.relu(self.second(self.shared(x))).mean((2, 3)))


class NormWithoutScale(PaddedConvs):
    def __init__(self) -> None:
        super().__init__()
        self[1] = nn.BatchNorm2d(64, affine=False, eps=1e-2)


FOLDABLE: dict[type[nn.Module], int] = {  # and how many normalizations go into a layer's weights
    PaddedConvs: 3, Residual: 2, Depthwise: 4, PreActivation: 0, LinearThenNorm: 1, TokensThenNorm: 0,
    NormBesideUse: 0, SharedConvolution: 0,
}  # fmt: skip


def settled(build: Callable[[], nn.Module]) -> nn.Module:
    if build is NormWithoutScale:
        network = build()
        network[1].running_mean.uniform_(-1, 1)
        network[1].running_var.uniform_(0.5, 2)
        return network.eval()
    return settle(build)


@pytest.mark.parametrize("build", [*FOLDABLE, NormWithoutScale])
def test_folding_changes_no_output(build: Callable[[], nn.Module]) -> None:
    network = settled(build)
    graph, _ = capture(network, SPEC)
    fold_batch_norms(graph)
    images = prepare(pixels(5), SPEC)
    with torch.no_grad():
        expected, (folded,) = network(images), graph(images)
    assert float((folded - expected).abs().max()) <= 1e-5 * float(expected.max() - expected.min())
    assert not graph.graph.find_nodes(op="call_function", target=BATCH_NORM)


@pytest.mark.parametrize("build", FOLDABLE)
def test_a_normalization_goes_into_the_weights_only_where_it_fits(build: type[nn.Module]) -> None:
    graph, _ = capture(settle(build), SPEC)
    normalized = fold_batch_norms(graph)
    assert sum(node.target in (CONV2D, LINEAR) for node in normalized) == FOLDABLE[build]


def reachable_tensors(module: LockedModule) -> dict[str, torch.Tensor]:
    return dict(module.state_dict()) | dict(module.named_parameters()) | dict(module.named_buffers())


@pytest.mark.parametrize("build", FOLDABLE)
def test_no_running_statistic_remains_in_a_locked_network(build: type[nn.Module]) -> None:
    network = settle(build)
    tensors = reachable_tensors(lock(network, layers=["head"] if hasattr(network, "head") else None).module)
    assert not [name for name in tensors if "running" in name or "num_batches" in name]
    statistics = [value for name, value in network.state_dict().items() if "running" in name]
    assert statistics
    for value in statistics:
        derived = [value, -value, value.sqrt(), value.rsqrt(), (value + 1e-5).rsqrt()]
        for name, tensor in tensors.items():
            flat = tensor.double().flatten()
            close = [d for d in derived if len(flat) == len(d) and torch.allclose(flat, d.double(), rtol=1e-3)]
            assert not close, name


@pytest.mark.parametrize("layer", ["third", "head"])
def test_a_gated_layer_s_original_bias_is_not_kept(layer: str) -> None:
    # The original beside bias + W mu would give W mu, and with it the signs.
    network = settle(Residual)
    bias = network.get_parameter(f"{layer}.bias")
    tensors = reachable_tensors(lock(network, layers=[layer]).module)
    assert not [name for name, tensor in tensors.items() if torch.equal(tensor, bias)]


def test_every_tensor_of_a_locked_network_is_used() -> None:
    module = lock(settle(PreActivation)).module
    read = {str(node.target) for node in module.body.graph.find_nodes(op="get_attr")}
    assert set(module.body.state_dict()) == read


def test_the_saved_file_has_no_running_statistic(tmp_path) -> None:
    locked = lock(settle(PaddedConvs))
    save_locked(tmp_path / "locked.pt2", locked.module, locked.report)
    assert b"running_" not in (tmp_path / "locked.pt2").read_bytes()


@pytest.mark.parametrize("build", [PaddedConvs, PreActivation, LinearThenNorm])
def test_the_moments_of_normalized_outputs_are_the_measured_ones(build: type[nn.Module]) -> None:
    network = settle(build)
    graph, _ = capture(network, SPEC)
    known = fold_batch_norms(graph)
    images = prepare(pixels(32), SPEC)  # those that the statistics are of
    measured: dict[fx.Node, torch.Tensor] = {}

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            if n in known:
                measured[n] = value.detach().clone()
            return value

    with torch.no_grad():
        Watch(graph).run(images)
    assert measured.keys() == known.keys()
    assert known
    for node, moments in known.items():
        values = measured[node].transpose(0, 1).flatten(1)
        assert torch.allclose(values.mean(1), moments.mean, atol=0.02)
        right = (values.var(1) - moments.variance).abs() <= 0.05 * moments.variance
        assert float(right.float().mean()) >= 0.8  # not so for channels that are nearly constant: epsilon counts there


def test_a_normalization_by_batch_statistics_is_refused() -> None:
    network = PaddedConvs()
    network[1] = nn.BatchNorm2d(64, track_running_stats=False)
    with pytest.raises(LockError, match="statistics of its batch") as caught:
        lock(network.eval())
    assert caught.value.hint


FUNCTIONS = {
    "relu": F.relu, "relu6": F.relu6, "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.8), "silu": F.silu, "gelu": F.gelu,
    "tanh gelu": lambda x: F.gelu(x, approximate="tanh"), "hardswish": F.hardswish, "sigmoid": torch.sigmoid,
    "leaky relu": lambda x: F.leaky_relu(x, 0.2), "elu": F.elu, "clamp": lambda x: x.clamp(-0.3, 1.1),
    "dropout": lambda x: F.dropout(x, training=False), "average": lambda x: F.adaptive_avg_pool2d(x, 1),
    "sum": lambda x: x + F.relu(x),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_moments_follow_gaussians_through_functions(name: str) -> None:
    class Network(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return FUNCTIONS[name](x)

    graph, _ = capture(Network().eval(), SPEC)
    image, output = graph.graph.find_nodes(op="placeholder")[0], graph.graph.output_node().args[0][0]
    mean, deviation = torch.tensor([-0.7, 0.0, 1.5]), torch.tensor([0.5, 1.0, 2.0])
    draws = torch.randn((200_000, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moments = propagate(output, {image: Moments(mean, deviation**2)})
    assert moments is not None
    values = FUNCTIONS[name]((draws * deviation + mean)[:, :, None, None]).flatten(1)
    assert torch.allclose(moments.mean.double(), values.mean(0), atol=0.02)
    if name not in ("average", "sum"):  # of averages and of dependent terms only the mean is exact
        assert torch.allclose(moments.variance.double(), values.var(0), rtol=0.03)


def test_the_mean_of_a_rectified_gaussian_is_the_closed_form() -> None:
    class Network(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(x)

    graph, _ = capture(Network().eval(), SPEC)
    image, output = graph.graph.find_nodes(op="placeholder")[0], graph.graph.output_node().args[0][0]
    moments = propagate(output, {image: Moments(torch.tensor([0.4]), torch.tensor([0.25]))})
    density = math.exp(-0.5 * 0.8**2) / math.sqrt(2 * math.pi)
    below = 0.5 * (1 + math.erf(0.8 / math.sqrt(2)))
    assert moments is not None
    assert float(moments.mean) == pytest.approx(0.4 * below + 0.5 * density, abs=1e-3)


def test_moments_are_unknown_past_what_they_do_not_follow() -> None:
    class Network(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(x * x)

    graph, _ = capture(Network().eval(), SPEC)
    image, output = graph.graph.find_nodes(op="placeholder")[0], graph.graph.output_node().args[0][0]
    assert propagate(output, {image: Moments(torch.zeros(3), torch.ones(3))}) is None
