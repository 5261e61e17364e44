"""What the secret is drawn from, and that a locked network gives nothing of it away."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from dataclasses import replace

import numpy as np
import pytest
import torch

from keylatch.errors import FormatError, LockError
from keylatch.locks import CodeLockDescription, InputSpec, LockSecret, code_lock, save_locked
from networks import PUBLIC_SEED, Locked, PaddedConvs, Residual, Tokens, lock, program_of, settle


@pytest.fixture(scope="module")
def locked() -> Locked:
    return lock(program_of(PaddedConvs), layers=["6", "11"])


@pytest.fixture(scope="module")
def with_another_secret() -> Locked:
    return lock(program_of(PaddedConvs), layers=["6", "11"], seed=bytes(32))


def test_one_seed_gives_one_code_for_every_network_and_public_seed(locked: Locked) -> None:
    others = [lock(program_of(Tokens)), lock(settle(PaddedConvs, seed=4), public_seed=bytes(32))]
    others += [lock(program_of(PaddedConvs), calibration=torch.rand(3, 3, 32, 32))]
    assert all(torch.equal(other.secret.code, locked.secret.code) for other in others)


def test_another_seed_gives_another_code(locked: Locked, with_another_secret: Locked) -> None:
    same = float((locked.secret.code == with_another_secret.secret.code).float().mean())
    assert 0.2 < same < 0.8
    assert not torch.equal(locked.secret.patch, with_another_secret.secret.patch)


def test_without_a_seed_every_lock_is_its_own() -> None:
    network = settle(PaddedConvs)
    spec = InputSpec(3, 32, 32)
    first, second = (code_lock(network, spec, patch_size=8) for _ in range(2))
    assert not torch.equal(first.secret.code, second.secret.code)
    assert first.module.description.public_seed != second.module.description.public_seed


def test_the_public_seed_does_not_tell_the_code() -> None:
    # Drawn after each other from the system, never one from the other.
    first = lock(program_of(PaddedConvs), seed=PUBLIC_SEED)
    second = lock(program_of(PaddedConvs), seed=PUBLIC_SEED, public_seed=bytes(32))
    assert torch.equal(first.secret.code, second.secret.code)


def test_locked_defaults_do_not_depend_on_the_secret(locked: Locked, with_another_secret: Locked) -> None:
    ours, theirs = locked.module.gate_tensors(), with_another_secret.module.gate_tensors()
    assert list(ours) == list(theirs)
    assert list(ours)[:4] == ["gate.patch", "gate.mask", "body.gate_mean_0", "body.gate_mean_1"]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not ours["gate.mask"].any()
    gates = (locked.module.gate.state_dict(), with_another_secret.module.gate.state_dict())
    assert all(torch.equal(value, gates[1][name]) for name, value in gates[0].items())


def test_the_secret_changes_nothing_but_signs_of_gated_weights(locked: Locked, with_another_secret: Locked) -> None:
    ours, theirs = locked.module.state_dict(), with_another_secret.module.state_dict()
    gated = {f"body.{name}" for name, _ in locked.module.description.layers}
    assert {name for name in ours if not torch.equal(ours[name], theirs[name])} == gated
    for name in gated:
        assert torch.equal(ours[name].abs(), theirs[name].abs())
        differing = (ours[name] != theirs[name]).flatten(2 if ours[name].dim() == 4 else 1)
        assert 0.25 < float(differing.float().mean()) < 0.75


def test_half_of_the_gated_channels_are_flipped() -> None:
    network = settle(Residual)
    locked = lock(network, layers=["third", "head"])
    right = locked.module.gate.code_map.signs(locked.secret.code).split([64, 96])
    for layer, signs in zip(("third", "head"), right, strict=True):
        weight = network.get_parameter(f"{layer}.weight")
        stored = locked.module.body.get_parameter(f"{layer}.weight")
        assert torch.equal(stored, weight * signs.view(1, -1, *[1] * (weight.dim() - 2)))
        assert 0.25 < float((signs > 0).float().mean()) < 0.75


def secret_bytes(locked: Locked) -> list[bytes]:
    code = locked.secret.code
    bits = (code.numpy() > 0).astype(np.uint8)
    forms = [code.numpy(), code.numpy().astype(np.float32), np.packbits(bits), np.packbits(bits, bitorder="little")]
    forms += [locked.secret.patch.numpy(), bits]
    forms += [value.numpy() for value in locked.module.secret_values(locked.secret).values()]
    forms += [locked.module.gate.code_map.signs(code).numpy()]
    return [form.tobytes() for form in forms if form.any()]


@pytest.mark.parametrize("build", [PaddedConvs, Tokens])
def test_no_byte_string_of_the_secret_stands_in_the_locked_state(build: type) -> None:
    locked = lock(settle(build))
    stored = {name: value.numpy().tobytes() for name, value in locked.module.state_dict().items()}
    stored |= {"description": json.dumps(locked.module.description.to_json()).encode()}
    stored |= {"report": json.dumps(locked.report.to_json()).encode()}
    for form in secret_bytes(locked):
        if form == np.ones(64, dtype=bool).tobytes():
            continue  # the mask: any run of 64 ones would do
        assert not [name for name, data in stored.items() if form in data or form.hex().encode() in data]


def test_saving_writes_nothing_of_the_secret(tmp_path, locked: Locked) -> None:
    save_locked(tmp_path / "locked.pt2", locked.module, locked.report)
    data = (tmp_path / "locked.pt2").read_bytes()
    assert b"gate_mean_0" in data
    forms = [form for form in secret_bytes(locked) if form != np.ones(64, dtype=bool).tobytes()]
    assert not [form for form in forms if form in data]


def test_saving_an_opened_network_is_refused(tmp_path, locked: Locked) -> None:
    with locked.module.opened(locked.secret), pytest.raises(LockError, match="opened") as caught:
        save_locked(tmp_path / "locked.pt2", locked.module, locked.report)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{0!r}".format])
def test_showing_a_secret_or_a_lock_shows_nothing_of_it(locked: Locked, show: object) -> None:
    assert show(locked.secret) == "LockSecret(64 bits, 2 gates)"
    shown = show(locked)
    assert "LockSecret(64 bits, 2 gates)" in shown
    assert "tensor(" not in shown


def test_a_traceback_with_locals_shows_nothing_of_a_secret(locked: Locked) -> None:
    secret = locked.secret
    try:
        raise ValueError(f"failed with {secret}")
    except ValueError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "LockSecret(64 bits" in shown
    assert "tensor(" not in shown


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_not_pickled_or_copied(locked: Locked, protocol: int) -> None:
    for take in (lambda s: pickle.dumps(s, protocol), copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="vault"):
            take(locked.secret)


def test_a_secret_round_trips_through_the_arrays_of_a_vault(locked: Locked) -> None:
    arrays = locked.secret.to_arrays()
    again = LockSecret.from_arrays(arrays)
    assert sorted(arrays) == ["code", "mean_0", "mean_1", "patch", "sealed_0", "sealed_1"]
    assert torch.equal(again.code, locked.secret.code)
    assert torch.equal(again.patch, locked.secret.patch)
    assert all(torch.equal(a, b) for a, b in zip(again.means, locked.secret.means, strict=True))


def test_many_means_keep_their_order_through_a_vault(locked: Locked) -> None:
    many = replace(locked.secret, means=tuple(torch.full((2,), float(index)) for index in range(12)))
    again = LockSecret.from_arrays(dict(sorted(many.to_arrays().items())))
    assert [float(mean[0]) for mean in again.means] == list(range(12))


@pytest.mark.parametrize("missing", ["code", "patch", "mean_0"])
def test_a_vault_that_lacks_an_array_is_refused(locked: Locked, missing: str) -> None:
    arrays = {name: value for name, value in locked.secret.to_arrays().items() if name != missing}
    with pytest.raises(FormatError) as caught:
        LockSecret.from_arrays(arrays)
    assert caught.value.hint


def test_a_secret_of_another_shape_is_refused(locked: Locked) -> None:
    others = [lock(program_of(Residual)).secret, lock(program_of(PaddedConvs), code_bits=65).secret]
    others += [replace(locked.secret, means=locked.secret.means[:1])]
    for secret in others:
        with pytest.raises(LockError, match="does not fit") as caught, locked.module.opened(secret):
            pass
        assert caught.value.hint
    assert not locked.module.gate.mask.any()


def test_the_public_description_round_trips_and_makes_the_same_gate(locked: Locked) -> None:
    description = locked.module.description
    again = CodeLockDescription.from_json(json.loads(json.dumps(description.to_json())))
    assert again == description
    gate = again.gate(again.spec)
    assert all(torch.equal(value, locked.module.gate.get_buffer(name)) for name, value in gate.named_buffers())
