"""From a marked export to a leak that names its license, with the commands that an issuer types."""

from __future__ import annotations

import json
import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from cli_world import Command, must
from ledger_commands import VAULT, assert_refused, done

from keylatch.keys import (
    Claims,
    FileIssuerKey,
    Fingerprint,
    Trust,
    current_time,
    decrypt_license,
    open_device_key,
    read_license,
    read_vault,
    verify_license,
)


@pytest.fixture(scope="module")
def made(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A marked model with three licenses, one of them renewed, beside what every test has."""
    folder = tmp_path_factory.mktemp("marked") / "cli"
    shutil.copytree(made, folder)
    with chdir(folder):
        must("export", "net.pt2", *VAULT, "--out", "marked.latch", "--fingerprint")
        for customer in ("acme", "bolt", "corvid"):
            to = ("--to", "device.pub", "--customer", customer)
            must("license", "issue", "marked.latch", *VAULT, *to, "--out", f"{customer}.marked")
        must("license", "renew", verified(folder, "bolt.marked").license_id, *VAULT, "--out", "bolt.renewed")
    return folder


def verified(folder: Path, license: str) -> Claims:
    return verify_license(read_license(folder / license), Trust.load(folder / "issuer.pub"), now=current_time())


def gate_of(folder: Path, license: str) -> dict[str, np.ndarray]:
    """What a customer reads in his own memory."""
    claims, device = verified(folder, license), open_device_key(f"file:{folder / 'device.key'}")
    return dict(decrypt_license(read_license(folder / license), claims, device))


def test_a_leak_names_the_license_and_its_renewals(folder: Path, command: Command) -> None:
    for license in ("bolt.marked", "bolt.renewed"):
        values = gate_of(folder, license)
        np.savez(folder / f"{license}.npz", **{name: value for name, value in values.items() if value.ndim == 4})
        found = done(command("trace", "marked.latch", *VAULT, "--model", f"{license}.npz", "--json"))
        assert found["verdict"] == "named"
        (suspect,) = [one for one in found["suspects"] if one["named"]]
        ids = [
            done(command("license", "inspect", name, "--json"))["license_id"]
            for name in ("bolt.marked", "bolt.renewed")
        ]
        assert (suspect["customer"], suspect["licenses"]) == ("bolt", ids)
        assert suspect["log10_chance"] < -6 and found["candidates"] == 3
    text = command("trace", "marked.latch", *VAULT, "--model", "bolt.marked.npz").out
    assert "bolt" in text and "at most 10^-" in text and "1e-06" in text


def test_predictions_name_the_license(folder: Path, command: Command) -> None:
    images = np.random.default_rng(0).random((60, 3, 32, 32), dtype=np.float32)
    np.save(folder / "shown.npy", images)
    credentials = ("--license", "corvid.marked", "--key", "file:device.key", "--trust", "issuer.pub")
    assert command("run", "marked.latch", "shown.npy", *credentials, "--out", "answers.npz").status == 0
    np.savetxt(folder / "answers.csv", np.load(folder / "answers.npz")["output"], delimiter=",")
    arguments = ("--predictions", "answers.csv", "--images", "shown.npy", "--json")
    found = done(command("trace", "marked.latch", *VAULT, *arguments))
    assert [one["customer"] for one in found["suspects"] if one["named"]] == ["corvid"]


def test_a_model_of_others_names_nobody_and_that_is_no_failure(folder: Path, command: Command) -> None:
    values = gate_of(folder, "acme.marked")
    draws = np.random.default_rng(0)
    others = {name: draws.standard_normal(value.shape) for name, value in values.items() if value.ndim == 4}
    np.savez(folder / "others.npz", **others)
    outcome = command("trace", "marked.latch", *VAULT, "--model", "others.npz", "--json")
    assert outcome.status == 0 and json.loads(outcome.out)["verdict"] == "none"


def test_the_vault_marks_and_licenses_open(folder: Path, command: Command) -> None:
    manifest_id = done(command("inspect", "marked.latch", "--json"))["model_id"]
    vault = read_vault(folder / "net.secret", issuer=FileIssuerKey.load(folder / "issuer.key"))
    assert Fingerprint.from_arrays(vault.section(manifest_id)) is not None
    for license in ("acme.marked", "bolt.renewed"):
        credentials = ("--license", license, "--key", "file:device.key", "--trust", "issuer.pub")
        assert command("run", "marked.latch", "images.npy", *credentials).status == 0


def test_what_cannot_be_traced_is_refused(folder: Path, command: Command) -> None:
    np.savez(folder / "leak.npz", weight=np.zeros((3, 3)))
    outcome = command("trace", "net.latch", *VAULT, "--model", "leak.npz")
    assert_refused(outcome, "are not marked", "--fingerprint")
    assert_refused(command("trace", "missing.latch", *VAULT, "--model", "leak.npz"), "missing.latch")
    for arguments in ((), ("--model", "leak.npz", "--predictions", "p.csv"), ("--predictions", "p.csv")):
        assert command("trace", "net.latch", *VAULT, *arguments).status == 2
