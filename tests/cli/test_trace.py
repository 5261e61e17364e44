"""From a marked export to a leak that names its license, with the commands that an issuer types."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_world import Command
from ledger_commands import VAULT, assert_refused, done

from keylatch.keys import FileIssuerKey, Fingerprint, read_vault


@pytest.fixture
def marked(folder: Path, command: Command) -> Path:
    """A marked model with three licenses, one of them renewed."""
    done(command("export", "net.pt2", *VAULT, "--out", "marked.latch", "--fingerprint", "--json"))
    for customer in ("acme", "bolt", "corvid"):
        to = ("--to", "device.pub", "--customer", customer)
        command("license", "issue", "marked.latch", *VAULT, *to, "--out", f"{customer}.marked")
    bolt = done(command("license", "inspect", "bolt.marked", "--json"))["license_id"]
    assert command("license", "renew", bolt, *VAULT, "--out", "bolt.renewed").status == 0
    return folder


def gate_of(folder: Path, license: str) -> dict[str, np.ndarray]:
    """What a customer reads in his own memory."""
    from keylatch.keys import Trust, current_time, decrypt_license, open_device_key, read_license, verify_license

    parsed = read_license(folder / license)
    claims = verify_license(parsed, Trust.load(folder / "issuer.pub"), now=current_time())
    return dict(decrypt_license(parsed, claims, open_device_key(f"file:{folder / 'device.key'}")))


def test_a_leak_names_the_license_and_its_renewals(marked: Path, command: Command) -> None:
    for license in ("bolt.marked", "bolt.renewed"):
        values = gate_of(marked, license)
        np.savez(marked / f"{license}.npz", **{name: value for name, value in values.items() if value.ndim == 4})
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


def test_predictions_name_the_license(marked: Path, command: Command) -> None:
    images = np.random.default_rng(0).random((60, 3, 32, 32), dtype=np.float32)
    np.save(marked / "shown.npy", images)
    credentials = ("--license", "corvid.marked", "--key", "file:device.key", "--trust", "issuer.pub")
    assert command("run", "marked.latch", "shown.npy", *credentials, "--out", "answers.npz").status == 0
    np.savetxt(marked / "answers.csv", np.load(marked / "answers.npz")["output"], delimiter=",")
    arguments = ("--predictions", "answers.csv", "--images", "shown.npy", "--json")
    found = done(command("trace", "marked.latch", *VAULT, *arguments))
    assert [one["customer"] for one in found["suspects"] if one["named"]] == ["corvid"]


def test_a_model_of_others_names_nobody_and_that_is_no_failure(marked: Path, command: Command) -> None:
    values = gate_of(marked, "acme.marked")
    draws = np.random.default_rng(0)
    others = {name: draws.standard_normal(value.shape) for name, value in values.items() if value.ndim == 4}
    np.savez(marked / "others.npz", **others)
    outcome = command("trace", "marked.latch", *VAULT, "--model", "others.npz", "--json")
    assert outcome.status == 0 and json.loads(outcome.out)["verdict"] == "none"


def test_the_vault_marks_and_licenses_open(marked: Path, command: Command) -> None:
    manifest_id = done(command("inspect", "marked.latch", "--json"))["model_id"]
    vault = read_vault(marked / "net.secret", issuer=FileIssuerKey.load(marked / "issuer.key"))
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
