"""Each attack on a model that it must be able to repair, and on the code lock."""

from __future__ import annotations

import attack_targets
import pytest
import torch
import weak_locks
from attack_targets import attacked, measured
from weak_locks import WeakLock

import networks
from keylatch.audit._attack import Given
from keylatch.audit.attacks._free_gates import remove_gates
from keylatch.audit.attacks.branch_removal import BranchRemoval, gated_branches
from keylatch.audit.attacks.channel_ablation import ChannelAblation, _likeliest, _masked_channels
from keylatch.audit.attacks.fine_tuning import FineTuning
from keylatch.audit.attacks.gate_fitting import GateFitting
from keylatch.audit.attacks.gate_removal import GateRemoval
from keylatch.audit.attacks.linear_probe import LinearProbe
from keylatch.audit.attacks.logit_recentering import LogitRecentering
from keylatch.audit.attacks.normalization_reestimation import NormalizationReestimation
from keylatch.audit.attacks.pruning import Pruning
from keylatch.audit.attacks.sign_recovery import SignRecovery
from keylatch.audit.attacks.zero_refill import ZeroRefill

FEW, MANY = Given(labeled=30), Given(labeled=150)
ALL = (
    LogitRecentering(), NormalizationReestimation(), SignRecovery(), GateRemoval(), GateFitting(), FineTuning("last"),
    FineTuning("gates"), FineTuning("all"), LinearProbe(), ChannelAblation(), Pruning(), ZeroRefill(), BranchRemoval(),
)  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> networks.Digits:
    return networks.trained_digits()


@pytest.fixture(scope="module")
def head_lock(digits, tmp_path_factory) -> WeakLock:
    """The code lock on the classifier alone."""
    folder = tmp_path_factory.mktemp("head") / "locked.latch"
    return weak_locks.sign_lock(digits, folder, centered=True, layers=("14",))


@pytest.fixture(scope="module")
def detector(digits, tmp_path_factory) -> WeakLock:
    return weak_locks.scalar_detector(digits, tmp_path_factory.mktemp("detector") / "locked.latch")


@pytest.fixture(scope="module")
def skipping(digits, tmp_path_factory) -> WeakLock:
    """The code lock on a residual branch alone."""
    network, folder = attack_targets.trained_skipping(digits), tmp_path_factory.mktemp("skipping") / "locked.latch"
    return weak_locks.sign_lock(digits, folder, centered=True, layers=("first", "second"), network=network)


def shipped(digits, tmp_path, module: torch.nn.Module) -> WeakLock:
    brightness = torch.ones(1, 3, 1, 1).numpy()
    return weak_locks.ship(attack_targets.Dimmed(module), "none", tmp_path / "weak.latch", {"brightness": brightness})


def unrepaired(lock: WeakLock, digits) -> float:
    return measured(lock.target.network(), digits)


def test_reestimation_restores_withheld_statistics(digits, tmp_path):
    lock = attack_targets.withheld_statistics(digits, tmp_path / "weak.latch")
    right = measured(lock.owner.unlocked(lock.target), digits)
    assert unrepaired(lock, digits) < right - 20
    assert measured(attacked(lock, digits, NormalizationReestimation()).predict, digits) > right - 5


def test_the_signs_of_a_gated_classifier_are_fitted(head_lock, digits):
    assert unrepaired(head_lock, digits) < 40
    outcome = attacked(head_lock, digits, GateFitting(), MANY)
    assert measured(outcome.predict, digits) > 70


def test_free_gates_open_a_detector_lock(detector, digits):
    assert unrepaired(detector, digits) < 40
    assert measured(attacked(detector, digits, FineTuning("gates"), FEW).predict, digits) > 75
    assert measured(attacked(detector, digits, GateFitting(), Given(unlabeled=300)).predict, digits) > 75


def test_a_new_classifier_repairs_a_gated_one(head_lock, digits):
    assert measured(attacked(head_lock, digits, FineTuning("last"), MANY).predict, digits) > 70
    assert measured(attacked(head_lock, digits, LinearProbe(), MANY).predict, digits) > 85


def test_fine_tuning_all_weights_repairs_a_detector_lock(detector, digits):
    assert measured(attacked(detector, digits, FineTuning("all"), FEW).predict, digits) > 90


def test_the_ablation_scan_finds_loud_channels(digits, tmp_path):
    assert isinstance(digits.network, torch.nn.Sequential)
    lock = shipped(digits, tmp_path, attack_targets.LoudChannels(digits.network))
    before = unrepaired(lock, digits)
    outcome = attacked(lock, digits, ChannelAblation(), FEW, mean=0)
    assert measured(outcome.predict, digits) > max(70, before + 30)


def test_pruning_repairs_noise_in_small_weights(digits, tmp_path):
    def disturb(weight: torch.Tensor) -> torch.Tensor:
        threshold = weight.abs().flatten().kthvalue(weight.numel() // 2).values
        return torch.where(weight.abs() <= threshold, 0.9 * threshold, weight)

    lock = shipped(digits, tmp_path, attack_targets.with_weights(digits.network, disturb, ("6", "9")))
    found = [
        measured(attacked(lock, digits, Pruning(), percent=percent).predict, digits) for percent in (10, 30, 50, 70, 90)
    ]
    assert max(found) > unrepaired(lock, digits) + 20


def test_zeros_are_refilled_and_nothing_else_is_touched(digits, tmp_path):
    def withhold(weight: torch.Tensor) -> torch.Tensor:
        return torch.where((torch.arange(len(weight)) % 4 > 0)[:, None, None, None], 0.0, weight)

    lock = shipped(digits, tmp_path, attack_targets.with_weights(digits.network, withhold, ("6",)))
    outcome = attacked(lock, digits, ZeroRefill(), MANY)
    assert measured(outcome.predict, digits) > unrepaired(lock, digits) + 10
    before, after = lock.target.network().state_dict(), outcome.predict.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_branches_are_found_where_they_are(skipping, head_lock):
    branches = gated_branches(skipping.target.network(), skipping.target.gates)
    assert len(branches) == len(skipping.target.gates) == 2
    assert len(set(branches.values())) == 1
    assert not gated_branches(head_lock.target.network(), head_lock.target.gates)


def test_cutting_a_gated_branch_gives_the_network_without_it(skipping, digits):
    """It was trained to do without the branch nearly as well."""
    right = measured(skipping.owner.unlocked(skipping.target), digits)
    assert unrepaired(skipping, digits) < right - 40
    found = measured(attacked(skipping, digits, BranchRemoval(), Given(unlabeled=100), way="cut").predict, digits)
    assert found > right - 20


def test_a_held_branch_gives_its_mean(skipping, digits):
    """Held at 0, a gate leaves the stored bias, which is the gated layer's mean output, whatever the signs."""
    outcome = attacked(skipping, digits, BranchRemoval(), Given(unlabeled=300), way="mean")
    (total, shortcut), *_ = gated_branches(skipping.target.network(), skipping.target.gates).values()
    branch = [name for name in skipping.target.network().producer(total).inputs if name != shortcut]
    opened = skipping.owner.unlocked(skipping.target)
    with torch.no_grad():
        held, mean = (network.values(digits.images[:300], branch)[branch[0]] for network in (outcome.predict, opened))
    assert float(held.std((0, 2, 3)).max()) < 1e-5
    assert torch.corrcoef(torch.stack([held.mean((0, 2, 3)), mean.mean((0, 2, 3))]))[0, 1] > 0.9


def test_branch_removal_then_fine_tuning_is_no_worse_than_cutting(skipping, digits):
    right = measured(skipping.owner.unlocked(skipping.target), digits)
    outcome = attacked(skipping, digits, BranchRemoval(), Given(unlabeled=300, labeled=150))
    assert measured(outcome.predict, digits) > right - 20


@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)
def test_on_the_code_lock_every_variant_gives_scores_and_heeds_the_clock(attack, world):
    for variant in attack.variants(world.target, world.resources):
        outcome = attack.run(world.case(variant, seconds=0))
        scores = outcome.predict(world.images[:3])
        assert scores.shape == (3, 10)
        assert not outcome.signs or len(outcome.signs) == len(world.target.gates)
        assert outcome.truncated == (attack.name not in ("logit-recentering", "pruning"))


def test_a_gate_that_is_cut_out_passes_its_data_as_it_is(world):
    network, names = world.target.network(), [gate.source for gate in world.target.gates]
    outputs = [gate.output for gate in world.target.gates]
    remove_gates(network, world.target.gates, world.images[:1])
    values = network.values(world.images[:2], [*names, *outputs])
    assert all(torch.equal(values[name], values[output]) for name, output in zip(names, outputs, strict=True))


def test_attacks_that_do_not_apply_have_no_variants(world):
    gateless = world.target.__class__(
        world.target.path, "", world.target.manifest, world.target.spec, (), world.target.network()
    )
    for attack in (SignRecovery(), GateFitting(), FineTuning("gates"), BranchRemoval()):
        assert not attack.variants(gateless, world.resources)
    assert not ZeroRefill().variants(world.target, world.resources)


def test_the_same_seed_gives_the_same_model(head_lock, digits):
    attack = FineTuning("gates")
    variant = attack_targets.variant_of(head_lock, attack, FEW)
    first, second = (attack.run(attack_targets.case_of(head_lock, digits, variant)) for _ in range(2))
    assert torch.equal(first.predict(digits.images[:4]), second.predict(digits.images[:4]))


def test_the_steepest_channels_of_an_ablation_are_the_loud_ones(digits, tmp_path):
    assert isinstance(digits.network, torch.nn.Sequential)
    lock = shipped(digits, tmp_path, attack_targets.LoudChannels(digits.network))
    variant = attack_targets.variant_of(lock, ChannelAblation(), MANY, mean=0)
    case = attack_targets.case_of(lock, digits, variant)
    network = lock.target.network().float()
    channels = _likeliest(network, _masked_channels(network, case), case)
    assert len(channels) == len(set(channels)) == 96
    assert {channel for mask, channel in channels[:6] if len(mask.kept) == 64} >= {5, 41}
    assert not any(mask.kept.requires_grad for mask, _ in channels)
