"""What opens a model, in every form it can be given, and what that gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from runtime_world import LockedModel, same

from keylatch.errors import LicenseRequiredError
from keylatch.keys import write_license
from keylatch.runtime import MANIFEST_NAME, InferenceSession, read_manifest


def test_the_opened_model_is_the_torch_module_opened(made: LockedModel) -> None:
    assert same(made.open().run(None, made.feed())[0], made.keyed)


def test_without_a_key_it_runs_locked_and_answers_otherwise(made: LockedModel) -> None:
    output = InferenceSession.locked(made.path).run(None, made.feed())[0]
    assert same(output, made.locked)
    assert np.abs(output - made.keyed).max() > 0.1 * np.ptp(made.keyed)


def test_stock_onnxruntime_gets_the_locked_model(made: LockedModel) -> None:
    stock = onnxruntime.InferenceSession(made.path / "model.onnx")
    assert np.array_equal(stock.run(None, made.feed())[0], InferenceSession.locked(made.path).run(None, made.feed())[0])


@pytest.mark.parametrize("missing", ["license", "key", "trust"])
def test_whatever_is_missing_is_named(made: LockedModel, missing: str) -> None:
    with pytest.raises(LicenseRequiredError) as caught:
        made.open(**{missing: None})
    assert {"license": "no license", "key": "no device key", "trust": "no trusted issuer"}[missing] in str(caught.value)
    assert "InferenceSession.locked(path)" in str(caught.value.hint)


def test_a_path_alone_opens_nothing(made: LockedModel) -> None:
    with pytest.raises(LicenseRequiredError, match="no license"):
        InferenceSession(made.path)


def test_an_empty_list_of_issuers_trusts_nobody(made: LockedModel) -> None:
    with pytest.raises(LicenseRequiredError, match="no trusted issuer"):
        made.open(trust=[])


@pytest.mark.parametrize("form", ["path", "str", "bytes", "object"])
def test_a_license_is_a_path_its_bytes_or_parsed(made: LockedModel, tmp_path: Path, form: str) -> None:
    license, path = made.license(), tmp_path / "acme.license"
    write_license(path, license)
    forms: dict[str, Any] = {"path": path, "str": str(path), "bytes": license.serialize(), "object": license}
    assert same(made.open(license=forms[form]).run(None, made.feed())[0], made.keyed)


@pytest.mark.parametrize("form", ["uri", "path", "str", "object"])
def test_a_device_key_is_a_uri_a_path_or_an_object(made: LockedModel, form: str) -> None:
    path = made.path.parent / "device.key"
    forms: dict[str, Any] = {"uri": f"file:{path}", "path": path, "str": str(path), "object": made.device}
    assert same(made.open(key=forms[form]).run(None, made.feed())[0], made.keyed)


@pytest.mark.parametrize("form", ["path", "str", "object", "several"])
def test_trust_is_one_issuer_or_several(made: LockedModel, tmp_path: Path, form: str) -> None:
    path = tmp_path / "issuer.pub"
    made.issuer.public.save(path)
    several = [made.foreign_issuer.public, path]
    forms: dict[str, Any] = {"path": path, "str": str(path), "object": made.issuer.public, "several": several}
    assert same(made.open(trust=forms[form]).run(None, made.feed())[0], made.keyed)


def test_the_passphrase_of_a_key_is_asked_for(made: LockedModel, tmp_path: Path) -> None:
    from keylatch.keys import FileDeviceKey, SecretBytes

    device = FileDeviceKey.generate(tmp_path / "sealed.key", lambda _: SecretBytes(b"correct horse"))
    license = made.license(devices=[device.public])
    asked = []

    def passphrase(what: str) -> SecretBytes:
        asked.append(what)
        return SecretBytes(b"correct horse")

    session = made.open(license=license, key=f"file:{tmp_path}/sealed.key", passphrase=passphrase)
    assert same(session.run(None, made.feed())[0], made.keyed)
    assert len(asked) == 1


def test_a_session_says_what_it_runs_and_for_whom(made: LockedModel) -> None:
    session, locked = made.open(), InferenceSession.locked(made.path)
    assert session.model_id == locked.model_id == made.model_id
    assert session.manifest == locked.manifest == read_manifest(made.path)[0]
    assert session.manifest.serialize() == (made.path / MANIFEST_NAME).read_bytes()
    assert session.claims is not None
    assert session.claims.customer == "ACME Vision"
    assert locked.claims is None


def test_two_licenses_of_one_model_open_it_at_the_same_time(made: LockedModel) -> None:
    first, second = made.open(), made.open(license=made.license(customer="other"))
    locked = InferenceSession.locked(made.path)
    for session, expected in ((first, made.keyed), (second, made.keyed), (locked, made.locked)):
        assert same(session.run(None, made.feed())[0], expected)
