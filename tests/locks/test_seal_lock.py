"""Sealed weights in PyTorch: what is withheld, what stands in for it, and what opening gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from withheld_world import Tokens, convolutional

from keylatch.errors import LockError
from keylatch.locks import load_locked, save_locked, seal_lock
from networks import SPEC, outputs_of, pixels, prepare, settle

IMAGES = prepare(pixels(4), SPEC)
SEED = bytes(32)


@pytest.mark.parametrize(
    ("build", "by", "granularity"),
    [
        (convolutional, "influence", "weights"),
        (convolutional, "first", "tensors"),
        (lambda: settle(Tokens), "random", "rows"),
        (lambda: settle(Tokens), "influence", "tensors"),
    ],
)
def test_opened_it_is_the_original_bit_for_bit(build, by, granularity) -> None:
    network = build()
    locked = seal_lock(network, SPEC, share=0.2, by=by, granularity=granularity, seed=SEED)
    with locked.module.opened(locked.secret):
        assert torch.equal(outputs_of(locked.module, IMAGES), outputs_of(network, IMAGES))
    assert not torch.equal(outputs_of(locked.module, IMAGES), outputs_of(network, IMAGES))


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_no_more_than_the_share_is_withheld(share: float) -> None:
    network = convolutional()
    locked = seal_lock(network, SPEC, share=share, seed=SEED)
    weights = sum(layer.weight.numel() for layer in network if isinstance(layer, nn.Conv2d | nn.Linear))
    withheld = sum(value.numel() for value in locked.secret.withheld)
    assert share * weights - 1 < withheld <= share * (weights + 100)  # biases count, and are not taken
    assert locked.report.seal is not None
    assert locked.report.seal.withheld_bytes == 4 * withheld


def test_a_share_of_one_leaves_nothing_of_any_layer() -> None:
    network = convolutional()
    locked = seal_lock(network, SPEC, share=1.0, seed=SEED)
    left = dict(locked.module.body.named_parameters())
    layers = [(f"{i}", m) for i, m in enumerate(network) if isinstance(m, nn.Conv2d | nn.Linear)]
    for place, layer in layers:
        for kind in ("weight", "bias") if layer.bias is not None else ("weight",):
            assert not (left[f"{place}.{kind}"] == getattr(layer, kind)).any()


def test_stand_ins_have_the_mean_and_spread_of_what_they_replace() -> None:
    network = settle(Tokens)
    with torch.no_grad():
        network.square.weight.mul_(3).add_(0.7)
    locked = seal_lock(network, SPEC, share=0.3, seed=SEED)
    for part, original in zip(locked.module.withheld.parts, locked.secret.withheld, strict=True):
        stand_in = part.read(locked.module.body.get_parameter(part.parameter))
        if part.weights > 1000:
            assert float(stand_in.mean()) == pytest.approx(float(original.mean()), abs=0.2 * float(original.std()))
            assert float(stand_in.std()) == pytest.approx(float(original.std()), rel=0.1)


def test_stand_ins_for_few_weights_do_not_depend_on_them() -> None:
    network, other = (settle(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 4))) for _ in range(2))
    shown = []
    for each, value in ((network, 5.0), (other, -7.0)):
        with torch.no_grad():
            each[1].weight[2, 100] = value
        locked = seal_lock(each, SPEC, share=1e-6, calibration=prepare(pixels(8), SPEC), seed=SEED)
        (part,) = locked.module.withheld.parts
        assert part.places.tolist() == [2 * 3072 + 100]
        shown.append(part.read(locked.module.body.get_parameter(part.parameter)))
    assert torch.equal(*shown)


@pytest.mark.parametrize("granularity", ["weights", "rows"])
def test_influence_finds_the_weights_that_matter(granularity) -> None:
    network = convolutional()
    with torch.no_grad():
        network[4].weight[::2] = network[4].bias[::2] = 0  # half of a layer's rows do not reach the output
    locked = seal_lock(network, SPEC, share=0.2, granularity=granularity, seed=SEED)
    rows = next(part for part in locked.module.withheld.parts if part.parameter == "3.weight").mask().flatten(1).any(1)
    assert rows[1::2].any()
    assert not rows[::2].any()


def test_first_takes_layers_in_order() -> None:
    locked = seal_lock(convolutional(), SPEC, share=0.45, by="first", granularity="tensors", seed=SEED)
    assert [part.parameter for part in locked.module.withheld.parts] == ["0.weight", "3.weight"]


def test_the_same_seed_withholds_and_shows_the_same() -> None:
    one, two = (seal_lock(convolutional(), SPEC, share=0.1, by="random", seed=SEED) for _ in range(2))
    other = seal_lock(convolutional(), SPEC, share=0.1, by="random", seed=bytes([1]) * 32)
    assert torch.equal(outputs_of(one.module, IMAGES), outputs_of(two.module, IMAGES))
    assert not torch.equal(outputs_of(one.module, IMAGES), outputs_of(other.module, IMAGES))


def test_a_file_keeps_the_parts(tmp_path) -> None:
    network = settle(Tokens)
    locked = seal_lock(network, SPEC, share=0.1, seed=SEED)
    save_locked(tmp_path / "net.pt2", locked.module, locked.report)
    module, report = load_locked(tmp_path / "net.pt2")
    assert report == locked.report
    assert torch.equal(outputs_of(module, IMAGES), outputs_of(locked.module, IMAGES))
    with module.opened(locked.secret):
        assert torch.equal(outputs_of(module, IMAGES), outputs_of(network, IMAGES))


def test_a_file_of_a_locked_network_has_no_withheld_weight(tmp_path) -> None:
    network = settle(Tokens)
    locked = seal_lock(network, SPEC, share=1.0, seed=SEED)
    save_locked(tmp_path / "net.pt2", locked.module, locked.report)
    written = (tmp_path / "net.pt2").read_bytes()
    for value in network.parameters():
        if value.dim() > 1:
            row = value[0].detach().contiguous().numpy().tobytes()[:32]
            assert row not in written


def test_an_opened_module_is_not_written(tmp_path) -> None:
    locked = seal_lock(convolutional(), SPEC, share=0.1, seed=SEED)
    with locked.module.opened(locked.secret), pytest.raises(LockError, match="the module is opened"):
        save_locked(tmp_path / "net.pt2", locked.module, locked.report)
    assert not list(tmp_path.iterdir())


def test_another_locks_secret_does_not_fit() -> None:
    one, other = (seal_lock(convolutional(), SPEC, share=share, seed=SEED) for share in (0.1, 0.3))
    with pytest.raises(LockError, match="does not fit"), one.module.opened(other.secret):
        pass


class Tied(nn.Module):
    """One weight, read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.one(self.one(image.mean((2, 3))))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, "a share of 0.0 is not above 0"),
        ({"share": float("nan")}, "a share of nan"),
        ({"share": 1.5}, "at most 1"),
        ({"share": 0.1, "by": "luck"}, "cannot be chosen by 'luck'"),
        ({"share": 0.1, "granularity": "bits"}, "cannot be withheld by 'bits'"),
        ({"share": 0.5, "limit_bytes": 100}, "expected at most 100"),
    ],
)
def test_what_cannot_be_asked_for_is_named(options, message: str) -> None:
    with pytest.raises(LockError, match=message) as raised:
        seal_lock(convolutional(), SPEC, **options)
    assert raised.value.hint


def test_the_limit_names_the_side_file() -> None:
    with pytest.raises(LockError) as raised:
        seal_lock(convolutional(), SPEC, share=0.5, limit_bytes=100)
    assert "side file" in str(raised.value.hint)


def test_a_weight_that_is_used_twice_is_not_withheld() -> None:
    with pytest.raises(LockError, match="no convolution or linear layer of its own"):
        seal_lock(settle(Tied), SPEC, share=0.5)
