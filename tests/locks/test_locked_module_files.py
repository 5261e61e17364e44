"""Fine-tuning a locked network, and keeping it in a file."""

from __future__ import annotations

import copy
import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from keylatch.errors import FormatError, OutputError
from keylatch.locks import load_locked, save_locked
from networks import (
    SPEC,
    Digits,
    Locked,
    PaddedConvs,
    PreActivation,
    Residual,
    Returning,
    Tokens,
    lock,
    outputs_of,
    pixels,
    prepare,
    program_of,
    settle,
)


@pytest.fixture(scope="module")
def locked() -> Locked:
    return lock(program_of(PaddedConvs))


@pytest.mark.parametrize("build", [PaddedConvs, Residual, PreActivation, Tokens])
def test_gradients_reach_every_parameter(build: type[nn.Module]) -> None:
    locked = lock(settle(build))
    with locked.module.opened(locked.secret):
        F.cross_entropy(locked.module(prepare(pixels(8), SPEC)), torch.arange(8)).backward()
    parameters = dict(locked.module.named_parameters())
    assert len(parameters) >= 6
    assert [name for name, p in parameters.items() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_the_gate_is_not_trained(locked: Locked) -> None:
    assert not [name for name, _ in locked.module.named_parameters() if name.startswith("gate.") or "gate_mean" in name]


def test_fine_tuning_an_opened_network_lowers_the_loss_and_keeps_it_locked(digits: Digits) -> None:
    locked = lock(digits.network, gates=3, cost_share=1.0)
    module, secret = locked.module, locked.secret
    images, labels = digits.images[:200], (digits.labels[:200] + 1) % 10  # a new task: the next digit
    before = {name: value.clone() for name, value in module.gate_tensors().items()}
    optimizer = torch.optim.Adam(module.parameters(), 2e-3)
    losses = []
    module.train()
    with module.opened(secret):
        for _ in range(25):
            optimizer.zero_grad()
            loss = F.cross_entropy(module(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    module.eval()
    assert losses[-1] < 0.3 * losses[0]
    with module.opened(secret):
        assert float((outputs_of(module, images).argmax(1) == labels).float().mean()) >= 0.9
    assert float((outputs_of(module, images).argmax(1) == labels).float().mean()) <= 0.3
    assert all(torch.equal(value, before[name]) for name, value in module.gate_tensors().items())


def test_training_mode_changes_no_output(locked: Locked) -> None:
    module = copy.deepcopy(locked.module)
    images = prepare(pixels(3), SPEC)
    evaluated = outputs_of(module.eval(), images)
    assert torch.equal(outputs_of(module.train(), images), evaluated)
    assert module.training
    assert not module.eval().training


def test_a_state_dict_round_trips_into_another_lock_of_the_same_public_seed(locked: Locked) -> None:
    other = lock(settle(PaddedConvs, seed=9), seed=bytes(32)).module
    images = prepare(pixels(3), SPEC)
    assert not torch.equal(outputs_of(other, images), outputs_of(locked.module, images))
    other.load_state_dict(locked.module.state_dict())
    assert torch.equal(outputs_of(other, images), outputs_of(locked.module, images))
    with other.opened(locked.secret), locked.module.opened(locked.secret):
        assert torch.equal(outputs_of(other, images), outputs_of(locked.module, images))


@pytest.mark.parametrize("build", [PaddedConvs, PreActivation, Tokens])
def test_a_saved_network_comes_back_bit_for_bit(build: type[nn.Module], tmp_path: Path) -> None:
    locked = lock(settle(build))
    save_locked(tmp_path / "locked.pt2", locked.module, locked.report)
    module, report = load_locked(tmp_path / "locked.pt2")
    images = prepare(pixels(3), SPEC)
    assert report == locked.report
    assert module.description == locked.module.description
    ours, theirs = module.state_dict(), locked.module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert torch.equal(outputs_of(module, images), outputs_of(locked.module, images))
    with module.opened(locked.secret), locked.module.opened(locked.secret):
        assert torch.equal(outputs_of(module, images), outputs_of(locked.module, images))


def test_a_saved_network_keeps_names_and_kind_of_its_outputs(tmp_path: Path) -> None:
    images = prepare(pixels(2), SPEC)
    for kind, names in {"dict": ("boxes", "scores"), "tuple": ("output_0", "output_1"), "tensor": ("output",)}.items():
        locked = lock(settle(lambda kind=kind: Returning(kind)))
        save_locked(tmp_path / kind, locked.module, locked.report)
        module, _ = load_locked(tmp_path / kind)
        assert module.outputs.names == names
        assert type(outputs_of(module, images)) is type(outputs_of(locked.module, images))


def test_a_saved_network_is_fine_tuned_like_the_first(tmp_path: Path, locked: Locked) -> None:
    save_locked(tmp_path / "locked.pt2", locked.module, locked.report)
    module, _ = load_locked(tmp_path / "locked.pt2")
    with module.opened(locked.secret):
        F.cross_entropy(module(prepare(pixels(4), SPEC)), torch.arange(4)).backward()
    assert all(p.grad is not None for p in module.parameters())
    assert len(list(module.parameters())) == len(list(locked.module.parameters()))


def test_an_existing_file_is_not_replaced(tmp_path: Path, locked: Locked) -> None:
    path = tmp_path / "locked.pt2"
    path.write_bytes(b"dear")
    with pytest.raises(OutputError, match="exists already") as caught:
        save_locked(path, locked.module, locked.report)
    assert caught.value.hint
    assert path.read_bytes() == b"dear"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, locked: Locked, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "locked.pt2"
    link = os.link

    def late(source: Path, target: Path) -> None:
        path.write_bytes(b"dear")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(OutputError):
        save_locked(path, locked.module, locked.report)
    assert path.read_bytes() == b"dear"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_reported(tmp_path: Path, locked: Locked) -> None:
    with pytest.raises(OutputError, match="cannot be written") as caught:
        save_locked(tmp_path / "missing" / "locked.pt2", locked.module, locked.report)
    assert caught.value.hint


def test_saving_leaves_one_file(tmp_path: Path, locked: Locked) -> None:
    save_locked(tmp_path / "locked.pt2", locked.module, locked.report)
    assert [path.name for path in tmp_path.iterdir()] == ["locked.pt2"]


def rewritten(path: Path, change: object) -> None:
    """Write the archive again with its lock entry changed."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, change(data) if name.endswith("keylatch.lock.json") else data)


def without(*keys: str) -> object:
    def change(data: bytes) -> bytes:
        fields = json.loads(data)
        inner = fields
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        return json.dumps(fields).encode()

    return change


DAMAGE = {
    "no lock": without("lock"), "no seed": without("lock", "public_seed"), "no patch": without("lock", "patch"),
    "no margin": without("report", "margin"), "no outputs": without("outputs"), "list": lambda data: b"[]",
    "not JSON": lambda data: data[:-5],
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_lock_entry_is_a_format_error(tmp_path: Path, locked: Locked, damage: str) -> None:
    path = tmp_path / "locked.pt2"
    save_locked(path, locked.module, locked.report)
    rewritten(path, DAMAGE[damage])
    with pytest.raises(FormatError, match="is not a locked module") as caught:
        load_locked(path)
    assert caught.value.hint


def test_what_is_no_locked_module_is_a_format_error(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive")
    (tmp_path / "empty").write_bytes(b"")
    network = settle(PaddedConvs)
    torch.export.save(torch.export.export(network, (torch.zeros(2, 3, 32, 32),)), tmp_path / "plain.pt2")
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("hello", "world")
    for name in ("text", "empty", "plain.pt2", "weights.pt", "other.zip", "missing", "."):
        with pytest.raises(FormatError) as caught:
            load_locked(tmp_path / name)
        assert caught.value.hint
