"""`license revoke` and `revocations`, down to the device that refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_world import Command
from ledger_commands import assert_refused, done, issue, listed, opens

from keylatch.keys import FileDeviceKey, Trust
from keylatch.keys._revocations import verify_revocation_list

LIST = ("license", "revocations", "--issuer", "issuer.key", "--out")


def published(path: str) -> set[str]:
    return set(verify_revocation_list(Path(path).read_bytes(), Trust.load("issuer.pub")).license_ids)


def test_a_revoked_license_stops_opening_where_the_list_is(folder: Path, command: Command) -> None:
    kept, gone = issue(command, "kept.license"), issue(command, "gone.license")
    assert done(command(*LIST, "before.list", "--json"))["licenses"] == 0
    assert opens(command, "gone.license", "issuer.pub", "--revocations", "before.list").status == 0
    outcome = command("license", "revoke", gone["license_id"][:20], "--reason", "stolen [sic]", "--json")
    (row,) = done(outcome)["revoked"]
    assert (row["license_id"], row["state"], row["reason"]) == (gone["license_id"], "revoked", "stolen [sic]")
    assert "devices learn of it from the next list" in outcome.err
    facts = done(command(*LIST, "after.list", "--max-age", "7", "--json"))
    assert facts["licenses"] == 1 and published("after.list") == {gone["license_id"]}
    assert verify_revocation_list(Path("after.list").read_bytes(), Trust.load("issuer.pub")).max_age == 7 * 86_400
    assert_refused(opens(command, "gone.license", "issuer.pub", "--revocations", "after.list"), "was revoked")
    assert opens(command, "kept.license", "issuer.pub", "--revocations", "after.list").status == 0
    assert kept["license_id"] not in published("after.list")


def test_revoking_prints_what_it_revoked(folder: Path, command: Command) -> None:
    row = listed(command)[0]
    text = command("license", "revoke", row["seq"])
    assert text.status == 0 and row["license_id"] in text.out and "net for acme" in text.out
    assert_refused(command("license", "revoke", row["license_id"]), "was revoked already")


def test_revoking_one_license_says_which_others_stay(folder: Path, command: Command) -> None:
    first, second = listed(command)[0], issue(command, "second.license")
    note = f"still in force for the same model and device: {second['license_id'][:8]}"
    assert note in command("license", "revoke", first["license_id"]).err
    assert "still in force" not in command("license", "revoke", second["license_id"]).err


def test_revoking_a_device_ends_all_its_licenses(folder: Path, command: Command) -> None:
    assert command("device", "init", "--key", "file:b.key", "--request", "b.json").status == 0
    shared = issue(command, "shared.license", "--to", "b.json")
    alone = done(command("license", "issue", "net.latch", "--secret", "net.secret", "--issuer", "issuer.key", "--to",
                         "b.pub", "--customer", "b", "--out", "alone.license", "--json"))  # fmt: skip
    thumbprint = FileDeviceKey.load("b.key").public.thumbprint
    text = command("license", "revoke", "--device", thumbprint[:10], "--reason", "sold")
    assert text.status == 0 and "2 devices" in text.out
    revoked = {row["license_id"]: row["reason"] for row in listed(command, "--revoked")}
    assert revoked == {shared["license_id"]: "sold", alone["license_id"]: "sold"}
    assert_refused(command("license", "revoke", "--device", thumbprint), "no license that is neither")


def test_an_expired_license_leaves_the_list(folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    short = issue(command, "short.license", "--days", "1")
    long = issue(command, "long.license", "--days", "100")
    for row in (short, long):
        assert command("license", "revoke", row["license_id"]).status == 0
    from keylatch.keys._ledger import _revoking as revoking

    monkeypatch.setattr(revoking, "current_time", lambda: short["expires_at"])
    assert command(*LIST, "a.list").status == 0
    assert published("a.list") == {long["license_id"]}


def test_lists_are_numbered_upwards_and_replaced_on_request_only(folder: Path, command: Command) -> None:
    first = done(command(*LIST, "a.list", "--json"))
    before = Path("a.list").read_bytes()
    assert_refused(command(*LIST, "a.list"), "exists already", "--replace")
    assert Path("a.list").read_bytes() == before
    second = done(command(*LIST, "a.list", "--replace", "--json"))
    assert second["seq"] > first["seq"] and Path("a.list").read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("license", "revoke", "absent"), "ledger has no license absent"),
        (("license", "revoke", "--device", "absent"), "ledger has no device absent"),
        (("license", "revoke", "SEQ", "--reason", "two\nlines"), "the reason is"),
        (("license", "revoke", "SEQ", "--ledger", "absent"), "does not exist"),
        ((*LIST, "nowhere/a.list"), "there is no folder nowhere"),
        ((*LIST, "a.list", "--issuer", "foreign.key"), "is not in this ledger"),
        ((*LIST, "a.list", "--max-age", "99999"), "max_age"),
    ],
)
def test_refused(folder: Path, command: Command, arguments: tuple[str, ...], words: str) -> None:
    assert command("issuer", "init", "--out", "foreign.key", "--ledger", "foreign.books").status == 0
    seq = str(listed(command)[0]["seq"])
    assert_refused(command(*(seq if word == "SEQ" else word for word in arguments)), words)
    assert not Path("a.list").exists() and listed(command, "--revoked") == []


@pytest.mark.parametrize("arguments", [(), ("SEQ", "--device", "x"), ("--max-age",)])
def test_wrong_usage_exits_2(folder: Path, command: Command, arguments: tuple[str, ...]) -> None:
    outcome = command("license", "revoke", *arguments)
    assert outcome.status == 2 and outcome.out == ""
