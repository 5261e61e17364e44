"""A key for images and withheld weights in one lock: neither opens it alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from edit_world import SEED, SPEC, key_for, locked_network, pixel_editor

import networks
from keylatch.errors import LockError
from keylatch.locks import Locked, LockSecret, load_locked, model_lock, save_locked

IMAGES = networks.prepare(networks.pixels(4), SPEC)
NETWORK = networks.settle(networks.PaddedConvs)
SHARE = 0.3


@pytest.fixture(scope="module")
def sealed() -> Locked:
    editor = pixel_editor()
    return model_lock(NETWORK, SPEC, editor, key_for(editor), sealed_share=SHARE, seed=SEED)


def test_opened_it_computes_what_the_edit_alone_does(sealed: Locked) -> None:
    plain, _, _ = locked_network()
    with plain.module.opened(plain.secret):
        wanted = networks.outputs_of(plain.module, IMAGES)
    with sealed.module.opened(sealed.secret):
        assert torch.equal(networks.outputs_of(sealed.module, IMAGES), wanted)
    missing = tuple(torch.zeros_like(value) for value in sealed.secret.withheld)
    for wrong in (
        replace(sealed.secret, withheld=missing),
        replace(sealed.secret, edit=key_for(pixel_editor(), "fog")),
    ):
        with sealed.module.opened(wrong):
            assert float((networks.outputs_of(sealed.module, IMAGES) - wanted).abs().max()) > 0.02 * float(wanted.std())


def test_only_weights_of_the_network_are_withheld(sealed: Locked) -> None:
    names = [part.parameter for part in sealed.module.withheld.parts]
    assert names
    assert all(name.startswith("network.") for name in names)
    assert sealed.report.seal is not None
    assert sealed.report.seal.share == pytest.approx(SHARE, abs=0.01)
    assert sealed.report.sealed_parameters == sum(value.numel() for value in sealed.secret.withheld)
    editor = pixel_editor().network.state_dict()
    kept = sealed.module.body.state_dict()
    assert all(torch.equal(kept[f"edit.edit.network.{name}"], value) for name, value in editor.items())


def test_a_key_without_the_weights_does_not_fit(sealed: Locked) -> None:
    with pytest.raises(LockError, match="does not fit"):
        sealed.module.secret_values(LockSecret.of_edit(key_for(pixel_editor())))


def test_it_comes_back_from_a_file_and_its_secret_from_a_vault(tmp_path: Path, sealed: Locked) -> None:
    save_locked(tmp_path / "net.pt2", sealed.module, sealed.report)
    module, report = load_locked(tmp_path / "net.pt2")
    assert report == sealed.report
    assert module.describe() == sealed.module.describe()
    with sealed.module.opened(sealed.secret):
        wanted = networks.outputs_of(sealed.module, IMAGES)
    with module.opened(LockSecret.from_arrays(sealed.secret.to_arrays())):
        assert torch.equal(networks.outputs_of(module, IMAGES), wanted)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    editor = pixel_editor()
    with pytest.raises(LockError, match="sealed share"):
        model_lock(NETWORK, SPEC, editor, key_for(editor), sealed_share=share)
