"""A detector lock in a file: everything comes back, and the patch is not in it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from detector_lock_world import locked_digits, opened_outputs
from test_block_lock_files import rewritten

import networks
from keylatch.errors import FormatError, LockError
from keylatch.locks import Locked, LockSecret, load_locked, save_locked

KINDS = ["A", "B"]


@pytest.fixture(params=KINDS)
def locked(request: pytest.FixtureRequest) -> Locked:
    return locked_digits(request.param)


def test_a_saved_lock_comes_back_bit_for_bit(locked: Locked, tmp_path: Path, digits: networks.Digits) -> None:
    save_locked(tmp_path / "locked.pt2", locked.module, locked.report)
    module, report = load_locked(tmp_path / "locked.pt2")
    assert report == locked.report
    assert module.describe() == locked.module.describe()
    ours, theirs = module.state_dict(), locked.module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    few = digits.images[:4]
    assert torch.equal(opened_outputs(locked, few, module), opened_outputs(locked, few))
    assert torch.equal(networks.outputs_of(module, few), networks.outputs_of(locked.module, few))


def test_the_description_says_what_it_is(locked: Locked) -> None:
    facts = locked.module.describe()
    assert facts["method"] == "detector"
    assert facts["kind"] == locked.report.detector.kind  # type: ignore[union-attr]
    assert facts["patch"] == {"size": networks.PATCH, "corner": "bottom-right"}
    assert json.loads(json.dumps(facts)) == facts
    assert locked.module.gate_names() == ("gate.patch", "gate.mask")


def test_nothing_of_the_patch_is_written(locked: Locked, tmp_path: Path) -> None:
    save_locked(tmp_path / "locked.pt2", locked.module, locked.report)
    with zipfile.ZipFile(tmp_path / "locked.pt2") as archive:
        data = b"\0".join(archive.read(name) for name in archive.namelist())
    assert locked.secret.patch.numpy().tobytes() not in data
    assert locked.module.secret_values(locked.secret)["gate.patch"].numpy().tobytes() not in data
    assert not locked.module.gate.mask.any() and not locked.module.gate.patch.any()  # type: ignore[union-attr]


def test_the_secret_survives_its_arrays_and_nothing_else(locked: Locked, digits: networks.Digits) -> None:
    again = LockSecret.from_arrays(locked.secret.to_arrays())
    assert torch.equal(again.patch, locked.secret.patch) and not len(again.code)
    with locked.module.opened(again):
        output = networks.outputs_of(locked.module, digits.images[:4])
    assert torch.equal(output, opened_outputs(locked, digits.images[:4]))
    short = LockSecret.from_arrays({**locked.secret.to_arrays(), "patch": np.zeros(3, np.uint8)})
    with pytest.raises(LockError, match="does not fit"), locked.module.opened(short):
        pass


def test_an_opened_lock_is_not_saved(locked: Locked, tmp_path: Path) -> None:
    with locked.module.opened(locked.secret), pytest.raises(LockError, match="opened"):
        save_locked(tmp_path / "locked.pt2", locked.module, locked.report)
    assert list(tmp_path.iterdir()) == []


DAMAGE = {
    "unknown kind": lambda fields: fields["lock"].update(kind="C"),
    "no kind": lambda fields: fields["lock"].pop("kind"),
    "no patch": lambda fields: fields["lock"].pop("patch"),
    "a patch larger than the image": lambda fields: fields["lock"]["patch"].update(size=64),
    "no input": lambda fields: fields["lock"].pop("input"),
    "a report of other fields": lambda fields: fields["report"]["detector"].pop("bound"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_description_is_a_format_error(damage: str, tmp_path: Path) -> None:
    locked = locked_digits("A")
    save_locked(tmp_path / "locked.pt2", locked.module, locked.report)
    rewritten(tmp_path / "locked.pt2", DAMAGE[damage])
    with pytest.raises(FormatError, match="is not a locked module") as caught:
        load_locked(tmp_path / "locked.pt2")
    assert caught.value.hint
