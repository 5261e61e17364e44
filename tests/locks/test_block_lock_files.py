"""A block lock in a file: everything comes back, and nothing of the key is in it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from keylatch.errors import FormatError, LockError
from keylatch.locks import BlockTransform, InputSpec, LockedModule, block_lock, load_locked, save_locked
from networks import SIZE, Locked, PaddedConvs, Tokens, lock, outputs_of, pixels, prepare, program_of

SPEC = InputSpec(3, SIZE, SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FEW_BYTES = 24  # a run of so many bytes is no accident


def draw(*steps: str) -> BlockTransform:
    return BlockTransform.draw(steps, block_size=4, seed=bytes(range(32)))


LOCKS: dict[str, Callable[[], Locked]] = {
    "shf": lambda: block_lock(program_of(PaddedConvs), SPEC, draw("shf")),
    "np": lambda: block_lock(program_of(PaddedConvs), SPEC, draw("np")),
    "ffx": lambda: block_lock(program_of(PaddedConvs), SPEC, draw("ffx")),
    "shf+np+ffx": lambda: block_lock(program_of(PaddedConvs), SPEC, draw("shf", "np", "ffx")),
    "absorbed": lambda: block_lock(program_of(Tokens), SPEC, draw("shf", "np"), absorb=True),
    "absorbed, with a code": lambda: lock(program_of(Tokens), SPEC, blocks=draw("np", "shf"), absorb=True),
}


@pytest.fixture(scope="module", params=LOCKS)
def locked(request: pytest.FixtureRequest) -> Locked:
    return LOCKS[request.param]()


def opened_outputs(module: LockedModule, locked: Locked, images: torch.Tensor) -> torch.Tensor:
    with module.opened(locked.secret):
        return outputs_of(module, images)


def test_a_saved_lock_comes_back_bit_for_bit(tmp_path: Path, locked: Locked) -> None:
    save_locked(tmp_path / "locked.pt2", locked.module, locked.report)
    module, report = load_locked(tmp_path / "locked.pt2")
    images = prepare(pixels(3), SPEC)
    assert report == locked.report
    assert module.describe() == locked.module.describe()
    assert module.spec == locked.module.spec
    ours, theirs = module.state_dict(), locked.module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert torch.equal(outputs_of(module, images), outputs_of(locked.module, images))
    keyed = opened_outputs(module, locked, images)
    assert torch.equal(keyed, opened_outputs(locked.module, locked, images))
    assert not torch.allclose(keyed, outputs_of(module, images), atol=1e-3)


def key_bytes(key: BlockTransform) -> list[bytes]:
    """The key in the forms in which it might lie about; what other files hold too is left out."""
    inverse = torch.argsort(key.permutation)
    forms: list[Any] = [key.table.numpy().astype(kind) for kind in (np.int16, np.int32, np.int64, np.float32)]
    for mask in (key.negated, key.encrypted):
        signs = (1 - 2 * mask.int()).numpy()
        forms += [mask.numpy(), mask.numpy() * np.uint8(255), mask.numpy() * np.float32(1), signs.astype(np.float32)]
        forms += [signs.astype(np.int8)]
    for order in (key.permutation.numpy(), inverse.numpy()):
        forms += [order.astype(kind) for kind in (np.uint8, np.int16, np.int32, np.int64, np.float32)]
    common = {np.arange(size).astype(form.dtype).tobytes() for form in forms for size in (48, 256)}
    return [
        form.tobytes() for form in forms
        if form.any() and not (form == form.flat[0]).all() and form.tobytes() not in common
    ]  # fmt: skip


def secret_bytes(locked: Locked) -> list[bytes]:
    assert locked.secret.blocks is not None
    opening = locked.module.secret_values(locked.secret)
    defaults = locked.module.gate_tensors()
    changed = [v.numpy().tobytes() for name, v in opening.items() if not torch.equal(v, defaults[name])]
    forms = key_bytes(locked.secret.blocks) + [data for data in changed if len(set(data)) > 1]
    assert len(forms) >= 3 and all(len(form) >= FEW_BYTES for form in forms)
    return forms


def test_nothing_of_the_key_stands_in_the_locked_state(locked: Locked) -> None:
    forms = secret_bytes(locked)
    for module in (locked.module, locked.module.with_uint8_input()):
        stored = {name: value.numpy().tobytes() for name, value in module.state_dict().items()}
        stored |= {"description": json.dumps(module.describe()).encode()}
        stored |= {"report": json.dumps(locked.report.to_json()).encode()}
        assert not [name for name, data in stored.items() for form in forms if form in data]
    with locked.module.opened(locked.secret):  # the search does find what is there
        opened = b"".join(value.numpy().tobytes() for value in locked.module.state_dict().values())
    assert any(form in opened for form in forms)


def test_saving_writes_nothing_of_the_key(tmp_path: Path, locked: Locked) -> None:
    save_locked(tmp_path / "locked.pt2", locked.module, locked.report)
    with zipfile.ZipFile(tmp_path / "locked.pt2") as archive:
        data = b"\0".join(archive.read(name) for name in archive.namelist())
    assert b'"block_size": 4' in data
    assert not [form for form in secret_bytes(locked) if form in data]


def test_two_keys_leave_the_same_gate(locked: Locked) -> None:
    """The gate tensors of a file say nothing: they are the identity, whatever the key."""
    state = locked.module.blocks.state_dict()
    assert torch.equal(state["permutation"], torch.arange(48))
    rest = {"scale": 1.0, "offset": 0.0, "choice": 0}
    assert all(bool((value == rest[name]).all()) for name, value in state.items() if name in rest)
    if "tables" in state:
        assert torch.equal(state["tables"].view(4, 256), (torch.arange(256) / 255).expand(4, -1))


def test_saving_an_opened_lock_is_refused(tmp_path: Path, locked: Locked) -> None:
    with locked.module.opened(locked.secret), pytest.raises(LockError, match="opened") as caught:
        save_locked(tmp_path / "locked.pt2", locked.module, locked.report)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []
    save_locked(tmp_path / "locked.pt2", locked.module, locked.report)


def test_opening_ends_when_something_fails_inside(locked: Locked) -> None:
    with pytest.raises(ZeroDivisionError), locked.module.opened(locked.secret):
        raise ZeroDivisionError
    locked.module.require_locked("save")


def test_a_lock_that_holds_a_part_of_its_key_is_not_saved(tmp_path: Path, locked: Locked) -> None:
    values = locked.module.secret_values(locked.secret)
    defaults = {name: value.clone() for name, value in locked.module.gate_tensors().items()}
    changed = [n for n in values if n.startswith("blocks.") and not torch.equal(values[n], defaults[n])]
    assert changed
    for name in changed:
        buffer = locked.module.get_buffer(name)
        buffer.data.copy_(values[name])
        try:
            with pytest.raises(LockError, match="opened"):
                save_locked(tmp_path / "locked.pt2", locked.module, locked.report)
        finally:
            buffer.data.copy_(defaults[name])


def test_fine_tuning_reaches_the_network_and_not_the_key(tmp_path: Path, locked: Locked) -> None:
    save_locked(tmp_path / "locked.pt2", locked.module, locked.report)
    module, _ = load_locked(tmp_path / "locked.pt2")
    with module.opened(locked.secret):
        F.cross_entropy(module(prepare(pixels(4), SPEC)), torch.arange(4)).backward()
    parameters = dict(module.named_parameters())
    assert len(parameters) >= 6 and not [name for name in parameters if name.startswith("blocks.")]
    assert all(parameter.grad is not None for parameter in parameters.values())
    assert len(parameters) == len(list(locked.module.parameters()))


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Write the archive again with its lock entry changed."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            if name.endswith("keylatch.lock.json"):
                fields = json.loads(data)
                change(fields)
                data = json.dumps(fields).encode()
            archive.writestr(name, data)


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "no input": lambda fields: fields["lock"].pop("input"),
    "no method": lambda fields: fields["lock"].pop("method"),
    "no steps": lambda fields: fields["lock"]["blocks"].pop("steps"),
    "empty steps": lambda fields: fields["lock"]["blocks"].update(steps=[]),
    "unknown steps": lambda fields: fields["lock"]["blocks"].update(steps=["rot"]),
    "no block size": lambda fields: fields["lock"]["blocks"].pop("block_size"),
    "blocks of nothing": lambda fields: fields["lock"]["blocks"].update(block_size=0),
    "blocks of no number": lambda fields: fields["lock"]["blocks"].update(block_size="four"),
    "blocks that part the image": lambda fields: fields["lock"]["blocks"].update(block_size=5),
    "a list": lambda fields: fields["lock"].update(blocks=[4]),
    "a report of other fields": lambda fields: fields["report"]["blocks"].update(steps=None),
}


@pytest.fixture(scope="module")
def one_lock() -> Locked:
    return LOCKS["absorbed"]()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_description_is_a_format_error(tmp_path: Path, one_lock: Locked, damage: str) -> None:
    path = tmp_path / "locked.pt2"
    save_locked(path, one_lock.module, one_lock.report)
    rewritten(path, DAMAGE[damage])
    with pytest.raises(FormatError, match="is not a locked module") as caught:
        load_locked(path)
    assert caught.value.hint


def test_a_halved_lock_opens_with_the_same_key() -> None:
    locked = LOCKS["absorbed"]()
    images = prepare(pixels(2), SPEC)
    expected = opened_outputs(locked.module, locked, images)
    found = opened_outputs(locked.module.half(), locked, images)
    assert found.dtype == torch.float16
    assert float((found.float() - expected).abs().max() / (expected.max() - expected.min())) <= 1e-2
