"""`issuer rotate`, `export-trust` and `time-token`, and an issuer key in a token."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_world import Command
from ledger_commands import TO_ME, VAULT, assert_refused, done, issue, listed, opens, verified

from keylatch.errors import DeviceKeyError
from keylatch.keys import CosignerKey, FileDeviceKey, FileIssuerKey, IssuerPublicKey, Trust, read_vault
from keylatch.keys._time_token import TimeRequest, read_time_token, verify_time_token
from tools import require_module, require_programs, softhsm_module

ROTATE = ("issuer", "rotate", "--issuer", "issuer.key", "--out", "issuer-2.key", "--json")
NEW = ("--issuer", "issuer-2.key", *TO_ME)


def thumbprint(path: str) -> str:
    return IssuerPublicKey.load(path).thumbprint


def test_rotating_retires_the_old_key_in_the_same_ledger(folder: Path, command: Command) -> None:
    end = listed(command)[0]["expires_at"]
    facts = done(command(*ROTATE))
    assert facts["retired"] == thumbprint("issuer.pub") and facts["thumbprint"] == thumbprint("issuer-2.pub")
    assert facts["ledger"] == "issuer.ledger" and facts["until"] == end and facts["sealed"] == []
    hint = thumbprint("issuer-2.pub")
    for arguments in (
        ("license", "issue", "net.latch", *VAULT, *TO_ME, "--out", "n.license"),
        ("license", "renew", str(listed(command)[0]["seq"]), *VAULT, "--out", "n.license"),
        ("license", "revocations", "--issuer", "issuer.key", "--out", "n.license"),
        ("issuer", "rotate", "--issuer", "issuer.key", "--out", "n.license"),
    ):
        assert_refused(command(*arguments), "retired at", hint)
        assert not Path("n.license").exists()


def test_licenses_of_both_keys_open_with_the_exported_trust_file(folder: Path, command: Command) -> None:
    assert done(command(*ROTATE, "--secret", "net.secret"))["sealed"] == ["net.secret"]
    issued = ("license", "issue", "net.latch", "--secret", "net.secret", *NEW, "--days", "400", "--out", "new.license")
    assert command(*issued).status == 0
    facts = done(command("issuer", "export-trust", "--out", "acme.trust", "--json"))
    old, new = thumbprint("issuer.pub"), thumbprint("issuer-2.pub")
    assert facts["active"] == [new] and facts["retired"] == {old: listed(command)[0]["expires_at"]}
    for license in ("acme.license", "new.license"):
        assert opens(command, license, "acme.trust").status == 0
    assert_refused(opens(command, "new.license", "issuer.pub"), "signed by issuer")
    # The old key is not needed any more: for issuing, renewing, exporting.
    Path("issuer.key").unlink()
    renew = ("license", "renew", str(listed(command)[0]["seq"]), "--secret", "net.secret", "--issuer", "issuer-2.key")
    assert command(*renew, "--out", "renewed.license").status == 0
    assert opens(command, "renewed.license", "acme.trust").status == 0
    export = ("export", "net.pt2", "--secret", "net.secret", "--issuer", "issuer-2.key", "--out", "n2.latch", "--fp16")
    assert command(*export).status == 0


def test_a_vault_under_the_old_key_opens_with_it(folder: Path, command: Command) -> None:
    assert command(*ROTATE).status == 0
    issued = ("license", "issue", "net.latch", "--secret", "net.secret", *NEW, "--out", "new.license")
    assert_refused(command(*issued), "is sealed under issuer key", thumbprint("issuer.pub"))
    assert command(*issued, "--vault-key", "file:issuer.key").status == 0
    assert command("issuer", "export-trust", "--out", "acme.trust").status == 0
    assert opens(command, "new.license", "acme.trust").status == 0
    renew = ("license", "renew", str(listed(command)[0]["seq"]), "--secret", "net.secret", "--issuer", "issuer-2.key")
    assert command(*renew, "--vault-key", "issuer.key", "--out", "renewed.license").status == 0
    assert verified("renewed.license", "acme.trust").issuer == thumbprint("issuer-2.pub")


def test_rotating_seals_a_vault_so_that_only_the_new_key_opens_it(folder: Path, command: Command) -> None:
    before = read_vault("net.secret", issuer=FileIssuerKey.load("issuer.key"))
    assert command(*ROTATE, "--secret", "net.secret").status == 0
    after = read_vault("net.secret", issuer=FileIssuerKey.load("issuer-2.key"))
    assert after.sections.keys() == before.sections.keys()
    for name, tensors in before.sections.items():
        assert all((after.section(name)[key] == tensor).all() for key, tensor in tensors.items())
    with pytest.raises(DeviceKeyError, match="sealed under issuer key"):
        read_vault("net.secret", issuer=FileIssuerKey.load("issuer.key"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--secret", "absent.secret"), "does not exist"),
        (("--secret", "acme.license"), "is not a sealed vault"),
        (("--issuer", "foreign.key"), "is not in this ledger"),
        (("--issuer", "absent.key"), "does not exist"),
        (("--out", "issuer.key"), "exists already"),
        (("--out", "device.key"), "exists already"),
        (("--ledger", "absent.ledger"), "does not exist"),
    ],
)
def test_a_rotation_that_is_refused_changes_nothing(
    folder: Path, command: Command, arguments: tuple[str, ...], words: str
) -> None:
    assert command("issuer", "init", "--out", "foreign.key", "--ledger", "foreign.books").status == 0
    before = {path.name for path in folder.iterdir()}
    assert_refused(command(*ROTATE, *arguments), words)
    assert {path.name for path in folder.iterdir()} == before
    assert issue(command, "n.license")["issuer"] == thumbprint("issuer.pub")


def test_export_trust_names_cosigners_unless_told_otherwise(folder: Path, command: Command) -> None:
    cosigner = CosignerKey.generate()
    cosigner.save("issuer.mldsa.key")
    issue(command, "cosigned.license", "--cosign", "issuer.mldsa.key")
    text = command("issuer", "export-trust", "--out", "acme.trust")
    assert text.status == 0 and cosigner.public.thumbprint in text.out and thumbprint("issuer.pub") in text.out
    assert opens(command, "cosigned.license", "acme.trust").status == 0
    assert_refused(opens(command, "acme.license", "acme.trust"), "has no ML-DSA-65 signature")
    assert_refused(command("issuer", "export-trust", "--out", "acme.trust"), "exists already", "--replace")
    relaxed = ("issuer", "export-trust", "--out", "acme.trust", "--no-cosigner", "--replace", "--json")
    assert done(command(*relaxed))["cosigners"] == []
    assert opens(command, "acme.license", "acme.trust").status == 0


def test_a_retired_key_leaves_the_trust_file_with_its_last_license(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = done(command(*ROTATE))["until"]
    from keylatch.keys._ledger import _signers as signers

    for moment, count in ((end - 1, 2), (end, 1)):
        monkeypatch.setattr(signers, "current_time", lambda moment=moment: moment)
        assert command("issuer", "export-trust", "--out", "acme.trust", "--replace").status == 0
        assert len(Trust.load("acme.trust").issuers) == count


def test_a_time_token_answers_the_devices_request(folder: Path, command: Command) -> None:
    device = FileDeviceKey.load("device.key").public.thumbprint
    request = TimeRequest(device=device, nonce="A" * 43)
    request.save("time-request.json")
    sign = ("issuer", "time-token", "--request", "time-request.json", "--issuer")
    facts = done(command(*sign, "issuer.key", "--out", "time.token", "--json"))
    token = verify_time_token(read_time_token("time.token"), Trust.load("issuer.pub"), request)
    assert token.issued_at == facts["issued_at"]
    assert_refused(command(*sign, "issuer.key", "--out", "time.token"), "exists already")
    assert_refused(command(*sign[:3], "acme.license", "--issuer", "issuer.key", "--out", "b.token"), "time request")
    assert command(*ROTATE).status == 0
    assert_refused(command(*sign, "issuer.key", "--out", "b.token"), "retired at")
    assert command(*sign, "issuer-2.key", "--out", "b.token").status == 0


@pytest.fixture
def token(tmp_path: Path) -> Callable[..., Any]:
    """Runs the command in a process of its own, with a token: SoftHSM reads its configuration once in each."""
    module = softhsm_module()
    require_programs("softhsm2-util", package="softhsm2")
    require_module("pkcs11", extra="pkcs11")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    environment = {**os.environ, "SOFTHSM2_CONF": str(tmp_path / "softhsm2.conf"), "MODULE": str(module)}
    make = (
        "softhsm2-util",
        "--init-token",
        "--free",
        "--label",
        "acme",
        "--pin",
        "correct horse",
        "--so-pin",
        "12345678",
    )
    subprocess.run(make, env=environment, check=True, capture_output=True)
    Path("pin").write_text("correct horse\n")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "keylatch.cli", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_an_issuer_key_in_a_token_takes_over_a_ledger(
    folder: Path, token: Callable[..., Any], command: Command
) -> None:
    uri = f"pkcs11:token=acme;object=issuer?module-path={softhsm_module()}"
    pin = ("--passphrase-file", "pin")
    rotated = token(*ROTATE, "--key", uri, "--secret", "net.secret", *pin)
    assert rotated.returncode == 0, rotated.stderr
    assert not Path("issuer-2.key").exists() and Path("issuer-2.pub").exists()
    issued = token("license", "issue", "net.latch", "--secret", "net.secret", "--issuer", uri, *TO_ME, *pin, "--out",
                   "new.license")  # fmt: skip
    assert issued.returncode == 0, issued.stderr
    assert opens(command, "new.license", "issuer-2.pub").status == 0
    again = token("issuer", "rotate", "--issuer", uri, "--out", "issuer-3.key", "--key", uri, *pin)
    assert again.returncode == 1 and "exists" in again.stderr


def test_an_issuer_key_is_made_in_a_token_with_its_ledger_here(folder: Path, token: Callable[..., Any]) -> None:
    uri = f"pkcs11:token=acme;object=first?module-path={softhsm_module()}"
    for name in ("issuer.key", "issuer.pub", "issuer.ledger"):
        Path(name).unlink()
    made = token("issuer", "init", "--key", uri, "--passphrase-file", "pin", "--json")
    assert made.returncode == 0, made.stderr
    assert not Path("issuer.key").exists()
    assert "PRIVATE" not in Path("issuer.pub").read_text() and Path("issuer.ledger").exists()
    listed_by_it = token("license", "revocations", "--issuer", uri, "--passphrase-file", "pin", "--out", "a.list")
    assert listed_by_it.returncode == 0, listed_by_it.stderr
