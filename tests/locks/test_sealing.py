"""Withheld layers: what is in the license is not in the file, and the opened network is the original."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch

import networks
from keylatch.errors import LockError
from keylatch.exporters import export
from keylatch.locks import LockSecret, load_locked, save_locked
from keylatch.locks._sealing import SEALED_PARAMETERS
from networks import SPEC, Depthwise, PaddedConvs, Tokens, lock, outputs_of, pixels, program_of, relative_error, settle


def sealed_names(locked: networks.Locked) -> list[str]:
    return [name for name in locked.module.gate_names() if name.startswith("body.sealed_")]


def test_a_small_network_is_withheld_whole_by_default() -> None:
    report = lock(program_of(PaddedConvs), sealed_share=None).report
    assert report.sealed_parameters == report.parameters <= SEALED_PARAMETERS


def test_a_large_network_withholds_a_share_by_default() -> None:
    with mock.patch("keylatch.locks._sealing.SEALED_PARAMETERS", 0):
        report = lock(program_of(PaddedConvs), sealed_share=None).report
    assert 0 < report.sealed_parameters <= 0.02 * report.parameters


def test_the_first_layer_is_withheld_however_small_the_share() -> None:
    network = settle(PaddedConvs)
    locked = lock(network, sealed_share=1e-9)
    first = next(network.parameters())
    assert sealed_names(locked)[0] == "body.sealed_0"
    assert locked.secret.sealed[0].shape == first.shape
    assert locked.report.sealed_parameters == sum(value.numel() for value in locked.secret.sealed)
    assert not any(torch.equal(first, tensor) for tensor in locked.module.state_dict().values())


@pytest.mark.parametrize("build", [PaddedConvs, Depthwise, Tokens])
@pytest.mark.parametrize("share", [0.02, 0.4, 1.0])
def test_the_opened_network_is_the_original(build: type, share: float) -> None:
    network = settle(build)
    locked = lock(program_of(build), sealed_share=share)
    images = networks.prepare(pixels(2), SPEC)
    expected = outputs_of(network, images)
    with locked.module.opened(locked.secret):
        opened = outputs_of(locked.module, images)
    assert relative_error(opened, expected) < 1e-5
    assert relative_error(outputs_of(locked.module, images), expected) > 0.05


def test_a_share_of_zero_withholds_nothing_and_a_share_of_one_everything() -> None:
    network = program_of(PaddedConvs)
    assert sealed_names(lock(network, sealed_share=0.0)) == []
    everything = lock(network, sealed_share=1.0)
    assert everything.report.sealed_parameters == everything.report.parameters


def test_layers_are_taken_in_order_until_the_share_is_used_up() -> None:
    network = program_of(PaddedConvs)
    shares = [lock(network, sealed_share=share).report for share in (0.1, 0.5, 0.9)]
    sealed = [report.sealed_parameters / report.parameters for report in shares]
    assert sealed == sorted(sealed)
    assert sealed[1] <= 0.5
    assert sealed[2] <= 0.9


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(LockError, match="not between 0 and 1"):
        lock(program_of(PaddedConvs), sealed_share=share)


@pytest.mark.parametrize("build", [PaddedConvs, Tokens])
def test_no_file_of_the_artifact_holds_a_withheld_weight(build: type, tmp_path: Path) -> None:
    locked = lock(program_of(build), sealed_share=0.4)
    exported = export(locked.module, locked.secret, tmp_path / "net.latch")
    files = b"".join(file.read_bytes() for file in exported.path.iterdir())
    for name in sealed_names(locked):
        value = exported.secret_values[name]
        assert value.tobytes()[:64] not in files
        assert locked.module.get_buffer(name).numpy().tobytes()[:64] in files  # the plausible one is there


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("build", [PaddedConvs, Tokens])
def test_withheld_tensors_are_in_c_order_however_the_network_keeps_them(
    build: type, memory_format: torch.memory_format
) -> None:
    locked = lock(settle(build).to(memory_format=memory_format), sealed_share=1.0)  # type: ignore[call-overload]
    assert all(value.is_contiguous() for value in locked.secret.sealed)


def test_what_stands_there_instead_has_the_same_mean_and_spread() -> None:
    locked = lock(program_of(Tokens), sealed_share=1.0)
    for name, right in zip(sealed_names(locked), locked.secret.sealed, strict=True):
        default = locked.module.get_buffer(name)
        if right.numel() > 1000:
            assert torch.allclose(default.std(), right.std(), rtol=0.1)
            assert abs(float(torch.corrcoef(torch.stack([default.flatten(), right.flatten()]))[0, 1])) < 0.2


def test_a_saved_lock_and_its_vault_keep_what_is_withheld(tmp_path: Path) -> None:
    locked = lock(program_of(Tokens), sealed_share=0.4)
    save_locked(tmp_path / "net.pt2", locked.module, locked.report)
    module, report = load_locked(tmp_path / "net.pt2")
    secret = LockSecret.from_arrays(locked.secret.to_arrays())
    images = networks.prepare(pixels(2), SPEC)
    with module.opened(secret), locked.module.opened(locked.secret):
        assert torch.allclose(module(images), locked.module(images), atol=1e-5)
    assert report.sealed_parameters == locked.report.sealed_parameters


def test_the_secret_of_a_lock_that_withholds_others_is_refused() -> None:
    network = program_of(PaddedConvs)
    locked, other = lock(network), lock(network, sealed_share=0.5)
    with pytest.raises(LockError, match="does not fit"):
        locked.module.secret_values(other.secret)
