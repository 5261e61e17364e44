"""Stains found in a suspect's weights, after what thieves do to them; and not found where there are none."""

from __future__ import annotations

import copy

import pytest
import torch
from stain_world import make, stained_convs, stained_tokens
from torch import nn

import networks
from keylatch.errors import LockError
from keylatch.locks import verify_stain


def rounded_to_int8(network: nn.Module) -> nn.Module:
    """One scale for each tensor, as the coarsest quantizers have."""
    changed = copy.deepcopy(network)
    for parameter in changed.parameters():
        scale = parameter.detach().abs().max() / 127
        parameter.data = (parameter.detach() / scale).round() * scale
    return changed


def pruned(network: nn.Module, share: float) -> nn.Module:
    changed = copy.deepcopy(network)
    for parameter in changed.parameters():
        if parameter.dim() > 1:
            limit = parameter.detach().abs().flatten().quantile(share)
            parameter.data = parameter.detach() * (parameter.detach().abs() > limit)
    return changed


def tuned(network: nn.Module) -> nn.Module:
    """Trained on for some steps, in training mode, on noise and random labels."""
    changed = copy.deepcopy(network).train()
    optimizer = torch.optim.SGD(changed.parameters(), 0.01, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        optimizer.zero_grad()
        shown = torch.rand(16, 3, 32, 32, generator=generator)
        labels = torch.randint(10, (16,), generator=generator)
        nn.functional.cross_entropy(changed(shown), labels).backward()
        optimizer.step()
    return changed.eval()


CHANGES = {
    "as it is": lambda network: network,
    "half precision": lambda network: copy.deepcopy(network).half().float(),
    "int8": rounded_to_int8,
    "30 % pruned": lambda network: pruned(network, 0.3),
    "trained on": tuned,
}


@pytest.mark.parametrize("change", CHANGES)
def test_stains_are_found_in_weights(change: str) -> None:
    _, stained = stained_convs()
    with torch.random.fork_rng():
        verdict = verify_stain(CHANGES[change](stained.model), stained.secret)
    assert verdict.stained
    assert verdict.p_value < 1e-30
    for match, mark in zip(verdict.matches, stained.secret.stains, strict=True):
        assert match.unit == mark.unit
        assert match.cosine > 0.6
        assert match.response is not None
        assert match.answer is not None
        assert match.response > 1
        assert match.answer > 0


def test_an_untouched_stain_answers_as_it_was_made() -> None:
    for _, stained in (stained_convs(), stained_tokens()):
        verdict = verify_stain(stained.model, stained.secret)
        for match, mark, facts in zip(verdict.matches, stained.secret.stains, stained.report.stains, strict=True):
            assert match.cosine == pytest.approx(1, abs=1e-4)
            assert match.response == pytest.approx(facts.margins["8-bit pixels"], rel=1e-3)
            assert match.answer == pytest.approx(mark.high, rel=1e-3)


def test_weights_alone_are_enough_even_with_units_reordered_and_scaled() -> None:
    _, stained = stained_convs()
    state = stained.model.state_dict()
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    verdict = verify_stain({"6.weight": state["6.weight"][order] * 3.7}, stained.secret)
    assert verdict.stained
    assert [int(order[match.unit]) for match in verdict.matches] == [mark.unit for mark in stained.secret.stains]
    assert all(match.response is None and match.answer is None for match in verdict.matches)
    assert verdict.to_json()["stained"] is True


def test_the_unstained_network_and_one_with_other_stains_are_not_accused() -> None:
    network, stained = stained_convs()
    other = make(networks.settle(networks.PaddedConvs), layers=["6"], seed=bytes(31) + b"\1")
    for suspect in (network, other.model):
        verdict = verify_stain(suspect, stained.secret)
        assert not verdict.stained
        assert verdict.p_value > 1e-4


def test_p_values_of_innocent_weights_are_spread_as_chance_has_them() -> None:
    """The p-value is what it says: among innocent networks at most a tenth have one of a tenth."""
    _, stained = stained_convs()
    generator = torch.Generator().manual_seed(1)
    values = torch.tensor([
        verify_stain({"6.weight": torch.randn(64, 64, 3, 5, generator=generator)}, stained.secret).p_value
        for _ in range(150)
    ])  # fmt: skip
    for level in (0.1, 0.3):
        assert level / 3 < float((values <= level).float().mean()) <= 1.8 * level


def test_another_architecture_is_refused_by_name_and_by_shape() -> None:
    _, stained = stained_convs()
    with pytest.raises(LockError, match=r"no weights 6\.weight: it is of another architecture") as caught:
        verify_stain(networks.settle(networks.Residual), stained.secret)
    assert caught.value.hint
    with pytest.raises(LockError, match="expected 960 values a unit: the suspect is of another architecture"):
        verify_stain(networks.settle(lambda: networks.PaddedConvs(width=32)), stained.secret)
