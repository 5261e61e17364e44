"""The secret of stains: kept in a vault, named by a digest, shown to nobody."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from stain_world import stained_convs

from keylatch.errors import FormatError
from keylatch.locks import StainSecret


def test_a_secret_comes_back_from_its_arrays() -> None:
    secret = stained_convs()[1].secret
    back = StainSecret.from_arrays(secret.to_arrays())
    assert back.digest() == secret.digest()
    assert (back.weight, back.form, back.spec, back.threshold) == (
        secret.weight, secret.form, secret.spec, secret.threshold,
    )  # fmt: skip
    assert (len(back.stains), len(back.decoys), back.nonce) == (2, 6, secret.nonce)
    assert torch.equal(back.probes(), secret.probes())
    assert torch.equal(back.stains[1].direction, secret.stains[1].direction)
    assert back.stains[1].unit == secret.stains[1].unit


def test_any_changed_array_changes_the_digest() -> None:
    arrays = stained_convs()[1].secret.to_arrays()
    digest = StainSecret.from_arrays(arrays).digest()
    for name in arrays:
        if name == "stain.facts":
            continue
        changed = {**arrays, name: arrays[name].copy()}
        flat = changed[name].reshape(-1)
        flat[0] = flat[0] + np.ones(1, flat.dtype)[0]
        assert StainSecret.from_arrays(changed).digest() != digest, name
    secret = stained_convs()[1].secret
    assert replace(secret, weight="7.weight").digest() != digest


def test_the_digest_of_a_known_stain_cannot_be_guessed_without_the_nonce() -> None:
    secret = stained_convs()[1].secret
    assert len(secret.nonce) == 32
    assert replace(secret, nonce=bytes(32)).digest() != secret.digest()


def test_a_secret_is_neither_printed_nor_pickled() -> None:
    secret = stained_convs()[1].secret
    assert repr(secret) == "StainSecret(6.weight, 2 stains, 6 decoys)"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)
    with pytest.raises(TypeError, match="not pickled"):
        copy.deepcopy(secret)


def test_other_or_damaged_arrays_are_refused() -> None:
    arrays = stained_convs()[1].secret.to_arrays()
    with pytest.raises(FormatError, match="holds no stain secret") as caught:
        StainSecret.from_arrays({"code": np.zeros(3)})
    assert caught.value.hint
    with pytest.raises(FormatError, match="damaged"):
        StainSecret.from_arrays({**arrays, "stain.facts": np.frombuffer(b"{", np.uint8)})


def test_stains_and_decoys_are_shown_in_a_random_order() -> None:
    secret = stained_convs()[1].secret
    assert sorted(secret.order.tolist()) == list(range(8))
    assert secret.order.tolist() != list(range(8))
