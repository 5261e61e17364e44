from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts import Artifact, make_artifact

import networks
from keylatch.errors import ExportError
from keylatch.exporters import _fingerprinting, _proof, export
from keylatch.exporters._sensitivity import channel_sensitivities
from keylatch.keys import (
    FileDeviceKey,
    FileIssuerKey,
    Fingerprint,
    Trust,
    current_time,
    issue_license,
    write_license,
)
from keylatch.locks._withheld import _influence
from keylatch.runtime import InferenceSession, values_to_license


@pytest.fixture(scope="module")
def withholding(digits: networks.Digits) -> networks.Locked:
    return networks.lock(digits.network, layers=["14"], sealed_share=0.4)


@pytest.fixture(scope="module", params=["float32", "float16"])
def marked(
    withholding: networks.Locked, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Artifact:
    path = tmp_path_factory.mktemp("marked") / "digits.latch"
    return make_artifact(withholding, path, fingerprint=True, precision=request.param)


def session_of(artifact: Artifact, tmp_path: Path, *, fingerprint: Fingerprint | None) -> InferenceSession:
    issuer, device = FileIssuerKey.generate(), FileDeviceKey.generate(tmp_path / "device.key")
    now = current_time()
    license = issue_license(
        issuer=issuer, devices=[device.public], model_id=artifact.exported.model_id, customer="acme",
        secret_values=values_to_license(artifact.exported.secret_values), fingerprint=fingerprint,
        not_before=now, expires_at=now + 60,
    )  # fmt: skip
    write_license(tmp_path / "acme.license", license)
    return InferenceSession(
        artifact.path, license=tmp_path / "acme.license", key=tmp_path / "device.key", trust=Trust([issuer.public])
    )


def test_a_marked_license_opens_the_model_and_answers_hardly_move(
    marked: Artifact, digits: networks.Digits, tmp_path: Path
) -> None:
    fingerprint = Fingerprint.from_arrays(marked.exported.secret_values)
    images = digits.images.numpy()
    for folder in ("marked", "plain"):
        (tmp_path / folder).mkdir()
    (output,) = session_of(marked, tmp_path / "marked", fingerprint=fingerprint).run(None, {"image": images})
    (plain,) = session_of(marked, tmp_path / "plain", fingerprint=None).run(None, {"image": images})
    assert 0 < np.abs(output - plain).max() < 0.03 * np.ptp(plain)
    assert np.mean(output.argmax(1) == plain.argmax(1)) > 0.99
    assert 0 < marked.exported.proof.fingerprint_change <= _fingerprinting.LARGEST_CHANGE


def test_only_weights_of_the_network_are_marked_and_the_file_tells_nothing(marked: Artifact) -> None:
    fingerprint = Fingerprint.from_arrays(marked.exported.secret_values)
    assert fingerprint is not None
    assert all(name.startswith("body.sealed_") for name in fingerprint.steps)
    assert not any(name.startswith("fingerprint.") for name in values_to_license(marked.exported.secret_values))
    assert b"fingerprint" not in b"".join(path.read_bytes() for path in marked.path.iterdir())


def test_channels_of_very_different_spreads_have_steps_of_their_own(digits: networks.Digits, tmp_path: Path) -> None:
    """Folded normalizations leave such channels; the network computes what it did."""
    network, scales = copy.deepcopy(digits.network), torch.logspace(-1, 1, 64)
    with torch.no_grad():
        network[4].weight *= scales
        network[4].bias *= scales
        network[6].weight /= scales.reshape(1, -1, 1, 1)
    artifact = make_artifact(networks.lock(network, layers=["14"], sealed_share=0.4), tmp_path / "a", fingerprint=True)
    values, fingerprint = artifact.exported.secret_values, Fingerprint.from_arrays(artifact.exported.secret_values)
    assert fingerprint is not None
    for name, steps in fingerprint.steps.items():
        spreads = values[name].astype(np.float64).reshape(len(values[name]), -1).std(1)
        assert steps.shape == spreads.shape
        assert np.all(steps > 0) and np.all(steps <= spreads * (2**-6 + 1e-9))
    assert np.corrcoef(np.log(fingerprint.steps["body.sealed_2"]), np.log(scales.numpy()))[0, 1] > 0.9
    assert 0 < artifact.exported.proof.fingerprint_change <= _fingerprinting.LARGEST_CHANGE


def test_sensitivities_are_mean_squared_derivatives(
    withholding: networks.Locked, marked: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_influence, "PROBES", 300)
    module, secret, name = withholding.module, withholding.secret, "body.sealed_0"
    values = {name: marked.exported.secret_values[name]}
    found = channel_sensitivities(module, secret, values)[name]
    images = torch.from_numpy(_proof.test_images(module.spec))
    with module.opened(secret):
        weight = module.get_buffer(name).requires_grad_(True)
        (output,) = module.flat(images)
        rows = [torch.autograd.grad(value, weight, retain_graph=True)[0] for value in output.flatten()]
        weight.requires_grad_(False)
    exact = (torch.stack(rows) / output.detach().std()).square().mean(0).flatten(1).mean(1)
    np.testing.assert_allclose(found, exact, rtol=0.5)
    assert np.corrcoef(found, exact)[0, 1] > 0.97


def test_a_lock_that_withholds_too_little_cannot_be_marked(digits: networks.Digits, tmp_path: Path) -> None:
    locked = networks.lock(digits.network, layers=["14"], sealed_share=0.0)
    with pytest.raises(ExportError, match=r"needs 4096 weights .* and here are 0") as error:
        export(locked.module, locked.secret, tmp_path / "digits.latch", fingerprint=True)
    assert "sealed_share" in str(error.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_every_step_upsets_is_not_marked(
    withholding: networks.Locked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fingerprinting, "LARGEST_CHANGE", 1e-9)
    with pytest.raises(ExportError, match="that can still be read after rounding to bytes changes outputs by"):
        export(withholding.module, withholding.secret, tmp_path / "digits.latch", fingerprint=True)
    assert list(tmp_path.iterdir()) == []
