"""Every vector in `vectors`, in every way that its kind can be read; and that the generator still makes the same."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from keylatch import errors
from keylatch.errors import IntegrityError, KeylatchError
from vectors.generate import differences, make_all
from vectors.readers import WAYS, ways_of
from vectors.vector_file import FOLDER, SUFFIX, Vector, read_vectors

VECTORS = read_vectors()

# What reading can end in. The others are of making, locking, exporting, ledgers, hardware, artifacts and sessions.
ERRORS = {
    "ClockError", "ClockSetBackError", "CosignatureError", "DeviceKeyError", "DeviceStateError", "EnrollmentError",
    "FormatError", "IntegrityError", "LicenseExpiredError", "LicenseNotYetValidError", "LicensePartsError",
    "LicenseRequiredError", "LicenseRevokedError", "OlderLicenseError", "OlderRevocationListError", "PassphraseError",
    "RevocationListRequiredError", "SignatureError", "StaleRevocationListError", "StateEditedError",
    "StateRolledBackError", "WrongDeviceError", "WrongModelError",
}  # fmt: skip


@pytest.mark.parametrize("vector", [pytest.param(vector, id=vector.name) for vector in VECTORS])
def test_vector(vector: Vector, tmp_path: Path) -> None:
    for way, read in ways_of(vector).items():
        folder = tmp_path / way
        folder.mkdir()
        try:
            outcome = read(vector, folder)
        except KeylatchError as error:
            assert type(error).__name__ == vector.expect, f"{way}: {error}"
            assert error.hint and error.message, way
            assert not isinstance(error, IntegrityError) or str(error) == str(IntegrityError()), way
            assert error.__cause__ is None, f"{way}: an error from inside shows"
        else:
            assert vector.expect == "success", way
            for header, values in outcome.items():
                assert sorted(values) == sorted(vector.all(header)), f"{way}: {header}"


def test_the_generator_makes_these_vectors() -> None:
    checked = subprocess.run(
        [sys.executable, FOLDER / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_check_names_every_file_that_is_not_as_it_should_be() -> None:
    vectors = make_all()
    assert differences(vectors) == []
    first, second, *_ = vectors
    del vectors[first]
    vectors[second] = replace(vectors[second], comment="another one")
    vectors["license/new"] = replace(vectors[second], name="license/new")
    expected = [f"differs: {second}", f"left over: {first}{SUFFIX}", "missing: license/new"]
    assert differences(vectors) == expected


def test_every_error_that_reading_can_raise_has_a_vector() -> None:
    assert set(errors.__all__) >= ERRORS
    assert {vector.expect for vector in VECTORS} == ERRORS | {"success"}


def test_every_kind_has_vectors_of_both_outcomes() -> None:
    counts = Counter((vector.kind, vector.expect == "success") for vector in VECTORS)
    assert counts.keys() == {(kind, outcome) for kind in WAYS for outcome in (True, False)}


def test_no_two_vectors_of_a_kind_have_the_same_body() -> None:
    names: dict[tuple[str, bytes], list[str]] = {}
    for vector in VECTORS:
        names.setdefault((vector.kind, vector.body), []).append(vector.name)
    assert [found for found in names.values() if len(found) > 1] == []


def test_every_vector_says_what_it_is_about() -> None:
    assert all(vector.comment and vector.comment == vector.comment.strip() for vector in VECTORS)
    sentences = Counter((vector.kind, vector.comment) for vector in VECTORS)
    assert [sentence for sentence, count in sentences.items() if count > 1] == []


def test_vectors_are_small() -> None:
    large = [path.name for path in FOLDER.rglob(f"*{SUFFIX}") if path.stat().st_size > 12 * 1024]
    assert large == []
