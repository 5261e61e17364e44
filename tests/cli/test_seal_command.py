"""`keylatch lock --method seal`, and `license issue --domain`: sealed, exported, licensed, renewed, run."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import chdir
from pathlib import Path

import pytest
import torch
from cli_world import CREDENTIALS, Command, must

from keylatch.keys import FileIssuerKey, Vault, write_vault
from keylatch.locks import InputSpec, domain_lock, save_locked

SEALED = ("--issuer", "issuer.key")
LOCK = (
    "lock", "nets_for_cli:small", "--input", "3x32x32", *SEALED, "--out", "sealed.pt2", "--secret", "sealed.secret",
)  # fmt: skip


def _must(command: Command, *arguments: str) -> str:
    done = command(*arguments)
    assert done.status == 0, done
    return done.out


@pytest.mark.usefixtures("folder")
def test_a_sealed_network_goes_all_the_way(command: Command) -> None:
    report = json.loads(_must(command, *LOCK, "--method", "seal", "--share", "0.05", "--json"))["report"]
    assert report["seal"]["by"] == "influence"
    assert 0 < report["seal"]["share"] <= 0.05
    export = ("export", "sealed.pt2", "--secret", "sealed.secret", *SEALED, "--side-file", "--out", "sealed.latch")
    _must(command, *export)
    assert Path("sealed.latch/values.sealed").exists()
    _must(command, "license", "issue", "sealed.latch", "--secret", "sealed.secret", *SEALED, "--to", "device.pub",
          "--customer", "acme", "--out", "sealed.license")  # fmt: skip
    _must(command, "run", "sealed.latch", "images.npy", "--license", "sealed.license", *CREDENTIALS[2:], "--json")
    shown = _must(command, "inspect", "sealed.latch")
    assert "sealed weights" in shown
    assert "encrypted; a license brings their key" in shown


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "seal"), "--share goes with --method seal"),
        (("--share", "0.1"), "--share goes with --method seal"),
        (("--method", "seal", "--share", "2"), "a share of 2.0"),
        (("--method", "seal", "--share", "0.1", "--by", "luck"), "cannot be chosen by 'luck'"),
        (("--method", "seal", "--share", "0.1", "--granularity", "grains"), "cannot be withheld by 'grains'"),
    ],
)
def test_what_cannot_be_asked_for_is_named(command: Command, options: tuple[str, ...], message: str) -> None:
    refused = command(*LOCK, *options)
    assert refused.status != 0
    assert message in refused.err
    assert not Path("sealed.secret").exists()


@pytest.fixture(scope="module")
def made(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with two domains, locked in Python and exported by the command, beside what every test has."""
    folder = tmp_path_factory.mktemp("domains") / "cli"
    shutil.copytree(made, folder)
    sys.path.insert(0, str(folder))
    try:
        import nets_for_cli

        network = nets_for_cli.small().eval()
    finally:
        sys.path.pop(0)
        sys.modules.pop("nets_for_cli", None)
    spec = InputSpec(3, 32, 32)
    masks = {name: {"body.0.weight": torch.rand(64, 64, 1, 1) < 0.2} for name in ("usps", "mnist_m")}
    locked = domain_lock(network, spec, masks)
    save_locked(folder / "domains.pt2", locked.module, locked.report)
    vault = Vault({"lock": locked.secret.to_arrays()})
    write_vault(folder / "domains.secret", vault, issuer=FileIssuerKey.load(folder / "issuer.key"))
    with chdir(folder):
        must("export", "domains.pt2", "--secret", "domains.secret", *SEALED, "--out", "domains.latch")
    return folder


def _issue(command: Command, out: str, *domains: str) -> dict[str, object]:
    named = [word for name in domains for word in ("--domain", name)]
    arguments = ("license", "issue", "domains.latch", "--secret", "domains.secret", *SEALED, "--to", "device.pub",
                 "--customer", "acme", "--out", out, *named, "--json")  # fmt: skip
    facts: dict[str, object] = json.loads(_must(command, *arguments))
    return facts


@pytest.mark.usefixtures("folder")
def test_licenses_for_domains_are_issued_shown_and_renewed(command: Command) -> None:
    assert _issue(command, "none.license")["domains"] == []
    issued = _issue(command, "usps.license", "usps")
    assert issued["domains"] == ["usps"]
    assert "source domain" in command("license", "inspect", "none.license").out
    assert "usps" in command("license", "inspect", "usps.license").out
    renewal = ("license", "renew", str(issued["license_id"]), "--secret", "domains.secret", *SEALED, "--days", "700",
               "--out", "renewed.license", "--json")  # fmt: skip
    renewed = json.loads(_must(command, *renewal))
    assert renewed["domains"] == ["usps"]
    assert "mnist_m, usps" in _must(command, "inspect", "domains.latch")


@pytest.mark.usefixtures("folder")
def test_a_license_without_domains_says_what_it_serves_and_unknown_ones_are_refused(command: Command) -> None:
    arguments = ("license", "issue", "domains.latch", "--secret", "domains.secret", *SEALED, "--to", "device.pub",
                 "--customer", "acme", "--out", "x.license")  # fmt: skip
    refused = command(*arguments, "--domain", "svhn")
    assert refused.status == 1
    assert "no domain 'svhn'" in refused.err
    assert "mnist_m, usps" in refused.err
    assert not Path("x.license").exists()
    done = command(*arguments)
    assert done.status == 0, done
    assert "serves the source domain only" in done.err
