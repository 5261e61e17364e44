"""Domains in PyTorch: each license brings back exactly what no unpaid domain's mask covers."""

from __future__ import annotations

from collections.abc import Collection

import pytest
import torch
from withheld_world import CHOICES, DOMAINS, Tokens, convolutional, left_of, masks_for

from keylatch.errors import LockError
from keylatch.locks import MAX_DOMAINS, LockSecret, domain_lock, load_locked, save_locked
from networks import SPEC, lock, outputs_of, pixels, prepare, relative_error, settle

IMAGES = prepare(pixels(4), SPEC)


@pytest.mark.parametrize(
    ("build", "share"), [(convolutional, 0.1), (convolutional, 0.6), (lambda: settle(Tokens), 0.1)]
)
def test_each_choice_of_domains_opens_the_network_without_the_others(build, share: float) -> None:
    network = build()
    masks = masks_for(network, share)
    locked = domain_lock(network, SPEC, masks)
    for paid in CHOICES:
        with locked.module.opened(locked.secret.for_domains(paid)):
            assert torch.equal(outputs_of(locked.module, IMAGES), outputs_of(left_of(network, masks, paid), IMAGES))
    assert torch.equal(outputs_of(locked.module, IMAGES), outputs_of(left_of(network, masks, ()), IMAGES))


def test_the_whole_secret_opens_the_original() -> None:
    network = convolutional()
    locked = domain_lock(network, SPEC, masks_for(network))
    with locked.module.opened(locked.secret):
        assert torch.equal(outputs_of(locked.module, IMAGES), outputs_of(network, IMAGES))


@pytest.mark.parametrize("paid", CHOICES)
def test_domains_stand_behind_a_code_lock(paid: Collection[str]) -> None:
    network = settle(Tokens)
    coded = lock(network, layers=["square"], sealed_share=0.5)
    masks = masks_for(network, without=("square.weight",))
    locked = domain_lock(coded, SPEC, masks)
    assert coded.report.sealed_names[0] == "stem.weight"
    expected = outputs_of(left_of(network, masks, paid), IMAGES)
    with locked.module.opened(locked.secret.for_domains(paid)):
        assert relative_error(outputs_of(locked.module, IMAGES), expected) < 1e-5
    assert relative_error(outputs_of(locked.module, IMAGES), outputs_of(network, IMAGES)) > 0.05
    with coded.module.opened(coded.secret):  # the code lock that was given is as it was
        assert relative_error(outputs_of(coded.module, IMAGES), outputs_of(network, IMAGES)) < 1e-5


def test_files_and_vaults_keep_the_domains(tmp_path) -> None:
    network = convolutional()
    masks = masks_for(network)
    locked = domain_lock(network, SPEC, masks)
    save_locked(tmp_path / "net.pt2", locked.module, locked.report)
    module, report = load_locked(tmp_path / "net.pt2")
    secret = LockSecret.from_arrays(locked.secret.to_arrays())
    assert report == locked.report
    assert module.describe()["domains"] == list(DOMAINS)
    with module.opened(secret.for_domains(["usps"])):
        assert torch.equal(outputs_of(module, IMAGES), outputs_of(left_of(network, masks, ["usps"]), IMAGES))


def test_the_report_says_how_far_masks_overlap() -> None:
    network = convolutional()
    masks = masks_for(network)
    one = domain_lock(network, SPEC, masks).report.domains
    same = domain_lock(network, SPEC, {"one": masks["usps"], "two": masks["usps"]}).report.domains
    assert one is not None and same is not None
    assert one.weights == tuple(sum(int(mask.sum()) for mask in masks[name].values()) for name in DOMAINS)
    assert one.overlaps[0][2] == pytest.approx(0.1 / (2 - 0.1), abs=0.02)
    assert same.overlaps == (("one", "two", 1.0),)


def _changed(**changes: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    masks = masks_for(convolutional())
    return {**masks, "usps": {**masks["usps"], **changes}}


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({}, "got masks of 0 domains"),
        ({f"d{i}": masks_for(convolutional())["usps"] for i in range(MAX_DOMAINS + 1)}, "expected 1 to 6"),
        ({"US PS": masks_for(convolutional())["usps"]}, "is no name for a domain"),
        ({"usps": {"0.weight": torch.zeros(16, 3, 3, 3, dtype=torch.bool)}}, "domain usps is empty"),
        ({"usps": {"0.weight": torch.ones(16, 3, 3, 3)}}, "that is not bool"),
        (_changed(**{"nothing.weight": torch.ones(4, dtype=torch.bool)}), "no parameter 'nothing.weight'"),
        (_changed(**{"0.weight": torch.ones(16, 3, dtype=torch.bool)}), "shape"),
    ],
)
def test_masks_that_do_not_fit_are_named(masks, message: str) -> None:
    with pytest.raises(LockError, match=message) as raised:
        domain_lock(convolutional(), SPEC, masks)
    assert raised.value.hint


def test_a_layer_behind_a_gate_cannot_be_masked() -> None:
    network = settle(Tokens)
    with pytest.raises(LockError, match=r"a code lock gates square\.weight"):
        domain_lock(lock(network, layers=["square"]), SPEC, masks_for(network))


def test_an_unknown_domain_is_refused_with_the_names_there_are() -> None:
    network = convolutional()
    locked = domain_lock(network, SPEC, masks_for(network))
    with pytest.raises(LockError, match="no domain 'svhn'") as raised:
        locked.secret.for_domains(["svhn"])
    assert "mnist_m, usps" in str(raised.value.hint)


def test_a_weight_that_is_zero_anyway_is_not_brought() -> None:
    network = convolutional()
    with torch.no_grad():
        network[0].weight[:, 0] = 0
    masks = {"usps": {"0.weight": torch.ones_like(network[0].weight, dtype=torch.bool)}}
    locked = domain_lock(network, SPEC, masks)
    assert [value.numel() for value in locked.secret.withheld] == [network[0].weight.numel()]  # two thirds: the whole
    only_zeros = torch.zeros_like(network[0].weight, dtype=torch.bool)
    only_zeros[:, 0] = True
    with pytest.raises(LockError, match="zero already"):
        domain_lock(network, SPEC, {"usps": {"0.weight": only_zeros}})
