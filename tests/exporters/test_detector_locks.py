"""Artifacts of detector locks: with a license, the original on images with the patch; without, nothing."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts import Artifact, make_artifact

import networks
from keylatch.audit._owner import owner_from_vault
from keylatch.audit._scene import require_locked
from keylatch.audit._target import load_target
from keylatch.errors import InputError, LockError
from keylatch.exporters import export
from keylatch.keys import Vault
from keylatch.locks import Locked, detector_lock
from keylatch.runtime import InferenceSession, read_manifest

FORMS = {
    "A": ("A", {}),
    "B": ("B", {}),
    "B, bytes": ("B", {"uint8_input": True}),
    "A, half": ("A", {"precision": "float16"}),
    "B, half": ("B", {"precision": "float16"}),
}
TOLERANCE = {"float32": 1e-4, "float16": 2e-2}


@functools.cache
def locked_by(kind: str) -> Locked:
    digits = networks.trained_digits()
    return detector_lock(
        digits.network, networks.SPEC, kind=kind, patch_size=networks.PATCH, calibration=digits.images[:32],
        rate=1e-2, seed=bytes(range(32)), corner="top-right",
    )  # fmt: skip


@pytest.fixture(scope="module", params=FORMS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    kind, options = FORMS[request.param]
    return make_artifact(locked_by(kind), tmp_path_factory.mktemp("detector") / "net.latch", **options)


def fed(artifact: Artifact, images: torch.Tensor) -> np.ndarray:
    if artifact.stock().get_inputs()[0].type != "tensor(uint8)":
        return images.numpy()
    return np.ascontiguousarray((images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


def rounded(digits: networks.Digits, count: int) -> torch.Tensor:
    return (digits.images[:count] * 255).round() / 255


def test_a_license_makes_the_runtime_give_the_original_on_patched_images(
    made: Artifact, tmp_path: Path, digits: networks.Digits
) -> None:
    session = InferenceSession(made.path, **made.new_credentials(tmp_path))
    images = rounded(digits, 5)
    pixels = networks.paste((images * 255).round().to(torch.uint8), made.locked.secret.patch, "top-right")
    expected = networks.outputs_of(digits.network, pixels.float() / 255).numpy()
    tolerance = TOLERANCE[read_manifest(made.path)[0].model["precision"]]
    for count in (5, 1):
        (keyed,) = session.run(None, {"image": fed(made, images[:count])})
        assert np.abs(keyed - expected[:count]).max() <= tolerance * np.ptp(expected)


def test_without_one_it_is_at_chance(made: Artifact, digits: networks.Digits) -> None:
    classes = torch.from_numpy(made.run(fed(made, digits.images))).argmax(1)
    assert digits.agreement(classes) <= 0.25


def test_licenses_carry_the_patch_and_a_mask_and_nothing_else(made: Artifact) -> None:
    assert set(made.gate_values) == {"gate.patch", "gate.mask"}
    patch = made.gate_values["gate.patch"].tobytes()
    assert not [file.name for file in made.path.iterdir() if patch in file.read_bytes()]


def test_the_audit_takes_it(made: Artifact) -> None:
    target = load_target(made.path)
    assert target.manifest.lock["method"] == "detector"
    assert require_locked(target) == 10
    vault = Vault({"lock": made.locked.secret.to_arrays(), made.exported.model_id: dict(made.exported.secret_values)})
    owner = owner_from_vault(vault, target)
    assert owner.secret is not None and owner.signs(target) == ()
    with pytest.raises(InputError, match="near keys"):
        owner.near_values(target, 1, torch.Generator())


def test_exporting_an_opened_lock_is_refused(tmp_path: Path) -> None:
    locked = locked_by("B")
    with locked.module.opened(locked.secret), pytest.raises(LockError, match="opened"):
        export(locked.module, locked.secret, tmp_path / "net.latch")
    assert list(tmp_path.iterdir()) == []
