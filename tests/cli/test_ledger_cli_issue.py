"""`issuer init`, `issuer ledger`, `license issue` and `renew`: every license is in the ledger."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cli_world import Command
from ledger_commands import TO_ME, VAULT, assert_refused, done, issue, listed, opens, verified

from keylatch.keys import CosignerKey, FileDeviceKey, FileIssuerKey, read_claims_unverified, read_license

ISSUE = ("license", "issue", "net.latch", *VAULT, *TO_ME, "--out", "new.license")
DAY = 86_400


def rows(statement: str, path: str = "issuer.ledger") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(statement).fetchall()


def test_init_makes_the_key_and_its_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    monkeypatch.chdir(tmp_path)
    facts = done(command("issuer", "init", "--json"))
    thumbprint = FileIssuerKey.load("issuer.key").public.thumbprint
    assert facts == {"private_key": "issuer.key", "public_key": "issuer.pub", "ledger": "issuer.ledger",
                     "thumbprint": thumbprint}  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"issuer.key", "issuer.pub", "issuer.ledger"}
    assert stat.S_IMODE(Path("issuer.ledger").stat().st_mode) == 0o600
    assert rows("SELECT thumbprint FROM issuers") == [(thumbprint,)]
    text = command("issuer", "init", "--out", "b.key", "--ledger", "book")
    assert text.status == 0 and "book" in text.out and Path("book").exists() and not Path("b.ledger").exists()


def test_init_makes_a_cosigner_that_devices_will_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pass").write_text("correct horse\n")
    facts = done(command("issuer", "init", "--cosigner", "--passphrase-file", "pass", "--json"))
    key = CosignerKey.load("issuer.mldsa.key", passphrase=lambda _: b"correct horse")
    assert facts["cosigner_key"] == "issuer.mldsa.key" and facts["cosigner"] == key.public.thumbprint
    assert Path("issuer.mldsa.pub").read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----")
    assert rows("SELECT thumbprint FROM cosigners") == [(key.public.thumbprint,)]


@pytest.mark.parametrize("taken", ["a.key", "a.pub", "a.ledger", "a.mldsa.key", "a.mldsa.pub"])
def test_init_replaces_nothing(folder: Path, command: Command, taken: str) -> None:
    Path(taken).write_text("mine")
    before = sorted(path.name for path in folder.iterdir())
    assert_refused(command("issuer", "init", "--out", "a.key", "--cosigner"), f"{taken} exists already")
    assert sorted(path.name for path in folder.iterdir()) == before and Path(taken).read_text() == "mine"


@pytest.mark.parametrize("out", ["x.pub", "x.ledger", "nowhere/x.key"])
def test_init_needs_a_name_of_its_own_for_each_file(folder: Path, command: Command, out: str) -> None:
    before = sorted(path.name for path in folder.iterdir())
    assert_refused(command("issuer", "init", "--out", out), out)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_issuing_records_the_license_and_its_bytes(folder: Path, command: Command) -> None:
    facts = issue(command, "new.license", "--days", "10")
    claims = read_claims_unverified(read_license("new.license"))
    digest = hashlib.sha256(Path("new.license").read_bytes()).hexdigest()
    row = listed(command)[-1]
    assert row["license_id"] == facts["license_id"] == claims.license_id
    assert row["seq"] == facts["seq"] == claims.seq and row["sha256"] == digest
    assert row["model"] == "net" and row["customer"] == "Bolt" and row["state"] == "valid"
    assert opens(command, "new.license").status == 0


def test_issuing_without_a_ledger_is_refused_and_makes_none(folder: Path, command: Command) -> None:
    Path("issuer.ledger").unlink()
    outcome = command(*ISSUE)
    assert_refused(outcome, "ledger issuer.ledger does not exist", "keylatch issuer ledger")
    assert not Path("issuer.ledger").exists() and not Path("new.license").exists()


def test_a_ledger_is_made_for_a_key_that_has_none(folder: Path, command: Command) -> None:
    before = read_claims_unverified(read_license("acme.license")).seq
    Path("issuer.ledger").unlink()
    made = done(command("issuer", "ledger", "--issuer", "issuer.key", "--json"))
    assert made == {"ledger": "issuer.ledger", "issuer": FileIssuerKey.load("issuer.key").public.thumbprint}
    assert issue(command, "new.license")["seq"] > before
    assert_refused(command("issuer", "ledger", "--issuer", "issuer.key"), "exists already")
    assert_refused(command("issuer", "ledger", "--issuer", "absent.key"), "does not exist")


def test_the_ledger_may_have_another_name(folder: Path, command: Command) -> None:
    Path("issuer.ledger").rename("books")
    assert_refused(command(*ISSUE), "does not exist")
    assert command(*ISSUE, "--ledger", "books").status == 0
    assert len(listed(command, "--ledger", "books")) == 2
    # The only one beside the key will do; between two there is no guessing.
    Path("books").rename("acme.ledger")
    issue(command, "second.license")
    shutil.copy("acme.ledger", "copy.ledger")
    assert_refused(
        command(*ISSUE[:-1], "third.license"), "not clear which is meant: acme.ledger, copy.ledger", "--ledger"
    )


def test_another_issuers_ledger_is_refused(folder: Path, command: Command) -> None:
    assert command("issuer", "init", "--out", "foreign.key").status == 0
    assert_refused(command(*ISSUE, "--ledger", "foreign.ledger"), "is not in this ledger")
    assert not Path("new.license").exists() and listed(command, "--ledger", "foreign.ledger") == []


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda path: path.write_bytes(b"something else"), "is not a ledger"),
        (lambda path: path.chmod(0o644), "open to other users"),
        (lambda path: rows("PRAGMA user_version = 99"), "version 99, expected at most"),
    ],
)
def test_a_ledger_that_will_not_do_is_refused(folder: Path, command: Command, break_it: Any, words: str) -> None:
    break_it(Path("issuer.ledger"))
    assert_refused(command(*ISSUE), words)
    assert_refused(command("license", "list"), words)
    assert not Path("new.license").exists()


def test_keys_are_named_by_uri(folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISSUER", "file:issuer.key")
    for count, uri in enumerate(("file:issuer.key", "env:ISSUER", folder / "issuer.key")):
        arguments = ("--secret", "net.secret", "--issuer", uri, *TO_ME, "--out", f"{count}.license")
        assert command("license", "issue", "net.latch", *arguments).status == 0
    lock = ("lock", "nets_for_cli:small", "--input", "3x32x32", "--patch-size", "8", "--out", "u.pt2")
    assert command(*lock, "--secret", "u.secret", "--issuer", "env:ISSUER").status == 0
    export = ("export", "u.pt2", "--secret", "u.secret", "--issuer", "file:issuer.key", "--out", "u.latch")
    assert command(*export).status == 0
    assert_refused(command(*export[:-1], "v.latch", "--issuer", "tpm:x"), "issuer keys cannot live at tpm:")


def test_an_enrollment_request_is_enough_and_its_facts_are_kept(folder: Path, command: Command) -> None:
    assert (
        command("device", "init", "--key", "file:b.key", "--fact", "hostname=edge-7", "--request", "b.json").status == 0
    )
    facts = issue(command, "b.license", "--to", "b.json")
    devices = sorted(FileDeviceKey.load(name).public.thumbprint for name in ("device.key", "b.key"))
    assert facts["devices"] == devices
    kept = dict(rows("SELECT thumbprint, facts FROM devices"))
    assert json.loads(kept[FileDeviceKey.load("b.key").public.thumbprint]) == {"hostname": "edge-7"}
    edited = json.loads(Path("b.json").read_text())
    edited["facts"]["hostname"] = "edge-8"
    Path("b.json").write_text(json.dumps(edited))
    assert_refused(command(*ISSUE, "--to", "b.json"), "proof does not verify")
    assert not Path("new.license").exists() and len(listed(command)) == 2


def test_conditions_and_cosignature_are_shown_and_kept(folder: Path, command: Command) -> None:
    CosignerKey.generate().save("issuer.mldsa.key")
    facts = issue(command, "new.license", "--max-list-age", "7", "--cosign", "issuer.mldsa.key")
    assert facts["max_list_age"] == 7 * DAY and facts["cosigned"] is True
    text = command("license", "inspect", "new.license").out
    assert "7 days: opens only with a revocation list" in text and "cosigned" in text and "yes" in text
    plain = command("license", "inspect", "acme.license").out
    assert "max_list_age" not in plain and "no" in plain.split("cosigned")[1]
    assert listed(command)[-1]["max_list_age"] == 7 * DAY


def test_a_missing_cosignature_is_noted_where_devices_will_ask_for_it(folder: Path, command: Command) -> None:
    assert command(*ISSUE).err == ""
    CosignerKey.generate().save("issuer.mldsa.key")
    issue(command, "cosigned.license", "--cosign", "issuer.mldsa.key")
    outcome = command(*ISSUE[:-1], "plain.license")
    assert outcome.status == 0 and "no --cosign" in outcome.err
    assert_refused(command(*ISSUE[:-1], "other.license", "--cosign", "issuer.key"), "another kind of key")


def test_a_file_that_cannot_be_written_is_written_later_from_the_ledger(folder: Path, command: Command) -> None:
    too_long = "x" * 250  # the name is allowed; that of the temporary file beside it is not
    outcome = command(*ISSUE[:-1], too_long)
    assert_refused(outcome, "cannot be written", "keylatch license show")
    row = listed(command)[-1]
    assert f"keylatch license show {row['license_id']} --out FILE" in outcome.err
    assert (
        done(command("license", "show", row["license_id"], "--out", "late.license", "--json"))["sha256"]
        == row["sha256"]
    )
    assert hashlib.sha256(Path("late.license").read_bytes()).hexdigest() == row["sha256"]
    assert opens(command, "late.license").status == 0


def test_no_folder_for_the_license_leaves_the_ledger_alone(folder: Path, command: Command) -> None:
    assert_refused(command(*ISSUE[:-1], "nowhere/new.license"), "there is no folder nowhere")
    assert len(listed(command)) == 1


@pytest.mark.parametrize("days", ["nan", "inf", "-1", "soon"])
def test_days_are_a_number(folder: Path, command: Command, days: str) -> None:
    for option in ("--days", "--max-list-age"):
        outcome = command(*ISSUE, option, days)
        assert outcome.status == 2 and outcome.out == "", outcome
    assert len(listed(command)) == 1


def test_renewing_takes_over_everything_but_the_time(folder: Path, command: Command) -> None:
    old = issue(command, "old.license", "--days", "5", "--max-list-age", "7")
    renew = ("license", "renew", old["license_id"][:13], *VAULT, "--days", "90", "--json")
    new = done(command(*renew, "--out", "renewed.license"))
    same = ("customer", "model_id", "issuer", "devices", "max_list_age")
    assert [new[name] for name in same] == [old[name] for name in same]
    assert new["renews"] == old["license_id"] != new["license_id"]
    assert new["seq"] > old["seq"] and new["expires_at"] - new["not_before"] == 90 * DAY
    assert [(row["state"], row["renews"]) for row in listed(command)[1:]] == [
        ("valid", None),
        ("valid", old["license_id"]),
    ]
    assert verified("renewed.license", "issuer.pub").license_id == new["license_id"]
    again = done(command(*renew, "--revoke", "--out", "again.license"))
    assert [row["state"] for row in listed(command)] == ["valid", "revoked", "valid", "valid"]
    assert again["seq"] > new["seq"]
    assert_refused(command(*renew, "--out", "third.license"), "was revoked")
    assert not Path("third.license").exists()


def test_a_renewed_license_opens_the_model(folder: Path, command: Command) -> None:
    name = listed(command)[0]["seq"]
    assert command("license", "renew", name, *VAULT, "--out", "renewed.license").status == 0
    assert opens(command, "renewed.license").status == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("absent", *VAULT, "--out", "r.license"), "ledger has no license absent"),
        (("", *VAULT, "--out", "r.license"), "ledger has no license"),
        (("1", *VAULT, "--out", "acme.license"), "exists already"),
        (("SEQ", "--secret", "absent.secret", "--issuer", "issuer.key", "--out", "r.license"), "does not exist"),
        (("SEQ", *VAULT, "--out", "r.license", "--days", "0"), "expires before it becomes valid"),
    ],
)
def test_renewing_is_refused(folder: Path, command: Command, arguments: tuple[str, ...], words: str) -> None:
    seq = str(listed(command)[0]["seq"])
    outcome = command("license", "renew", *(seq if word == "SEQ" else word for word in arguments))
    assert_refused(outcome, words)
    assert not Path("r.license").exists() and len(listed(command)) == 1


def test_a_passphrase_is_never_an_argument(command: Command) -> None:
    verbs = (["license", "renew"], ["license", "revocations"], ["issuer", "ledger"], ["issuer", "rotate"],
             ["issuer", "time-token"])  # fmt: skip
    for verb in verbs:
        text = command(*verb, "--help").out
        assert "--passphrase-file" in text and "--passphrase " not in text
