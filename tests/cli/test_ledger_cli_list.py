"""`license list` and `show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli_world import Command
from ledger_commands import assert_refused, done, issue, listed


@pytest.fixture
def three(folder: Path, command: Command) -> dict[str, dict[str, Any]]:
    """Beside the one for acme, 30 days: one that ends soon, on two devices; one that has not begun."""
    assert command("device", "init", "--key", "file:b.key", "--request", "b.json").status == 0
    soon = issue(command, "soon.license", "--days", "2", "--to", "b.pub")
    later = issue(command, "later.license", "--not-before", "2199-01-01", "--customer", "[red]Rot[/]")
    acme = listed(command, "--customer", "acme")[0]
    return {"acme": acme, "soon": soon, "later": later}


def test_the_table_shows_each_license_on_a_line(three: dict[str, Any], command: Command) -> None:
    outcome = command("license", "list")
    assert outcome.status == 0 and outcome.err == ""
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["license", "seq", "state", "model", "customer", "device", "ends"]
    assert len(lines) == 4
    for line, name, state in zip(lines[1:], ("acme", "soon", "later"), ("valid", "valid", "not yet"), strict=True):
        row = three[name]
        assert line.startswith(f"{row['license_id'][:8]}  {row['seq']}  {state}"), line
        assert row["customer"] in line and row["devices"][0][:8] in line
    assert "+1" in lines[2] and "2200-01-01" in lines[3]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ((), ["acme", "soon", "later"]),
        (("--customer", "Bolt"), ["soon"]),
        (("--customer", "[red]Rot[/]"), ["later"]),
        (("--model", "net"), ["acme", "soon", "later"]),
        (("--model", "net.latch"), ["acme", "soon", "later"]),
        (("--model", "net", "--customer", "acme"), ["acme"]),
        (("--expiring", "3"), ["soon"]),
        (("--expiring", "31"), ["acme", "soon"]),
        (("--expiring", "0"), []),
        (("--revoked",), []),
    ],
)
def test_filters(three: dict[str, Any], command: Command, filters: tuple[str, ...], expected: list[str]) -> None:
    found = [row["license_id"] for row in listed(command, *filters)]
    assert found == [three[name]["license_id"] for name in expected]


def test_the_issuer_key_names_its_ledger_among_several(three: dict[str, Any], command: Command) -> None:
    assert command("issuer", "init", "--out", "other.key").status == 0
    rows = {name: listed(command, "--issuer", f"{name}.key") for name in ("issuer", "other")}
    assert (len(rows["issuer"]), rows["other"]) == (3, [])
    for name in rows:
        assert command("issuer", "export-trust", "--issuer", f"{name}.key", "--out", f"{name}.trust").status == 0
    assert Path("issuer.trust").read_bytes() != Path("other.trust").read_bytes()


def test_the_devices_of_a_license_find_it(three: dict[str, Any], command: Command) -> None:
    mine = three["acme"]["devices"][0]
    other = next(device for device in three["soon"]["devices"] if device != mine)
    assert [row["license_id"] for row in listed(command, "--device", other[:10])] == [three["soon"]["license_id"]]
    assert len(listed(command, "--device", mine)) == 3


def test_a_revoked_license_is_listed_as_one_and_not_as_expiring(three: dict[str, Any], command: Command) -> None:
    name = three["soon"]["license_id"]
    assert command("license", "revoke", name, "--reason", "lost").status == 0
    assert [row["license_id"] for row in listed(command, "--revoked")] == [name]
    assert listed(command, "--expiring", "3") == []
    assert [row["state"] for row in listed(command)] == ["valid", "revoked", "not yet"]


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        (("--customer", "nobody"), "ledger has no customer nobody"),
        (("--model", "absent"), "ledger has no model absent"),
        (("--model", "."), "manifest.json is missing"),
        (("--device", "absent"), "ledger has no device absent"),
        (("--ledger", "absent.ledger"), "ledger absent.ledger does not exist"),
    ],
)
def test_listing_is_refused(folder: Path, command: Command, filters: tuple[str, ...], words: str) -> None:
    assert_refused(command("license", "list", *filters), words)


def test_show_tells_everything_of_one(three: dict[str, Any], command: Command) -> None:
    row = three["soon"]
    by_id = done(command("license", "show", row["license_id"], "--json"))
    assert by_id == {**listed(command)[1], "cosigned": False}
    assert done(command("license", "show", row["seq"], "--json")) == by_id
    text = command("license", "show", row["license_id"][:18])
    assert text.status == 0 and text.err == ""
    for word in (row["license_id"], str(row["seq"]), row["model_id"], *row["devices"], by_id["sha256"], "valid"):
        assert word in text.out
    assert "revoked_at" not in text.out


def test_show_writes_the_file_again_and_replaces_none(three: dict[str, Any], command: Command) -> None:
    show = ("license", "show", three["soon"]["license_id"], "--out")
    text = command(*show, "again.license")
    assert text.status == 0 and "again.license" in text.out
    assert Path("again.license").read_bytes() == Path("soon.license").read_bytes()
    Path("mine").write_text("mine")
    assert_refused(command(*show, "mine"), "exists already")
    assert Path("mine").read_text() == "mine"


def test_an_unknown_or_ambiguous_id_is_refused(folder: Path, command: Command) -> None:
    assert_refused(command("license", "show", "xyz"), "ledger has no license xyz")
    for count in range(16):  # seventeen with acme's: two begin with the same hex digit
        issue(command, f"{count}.license")
    starts = [row["license_id"][0] for row in listed(command)]
    shared = next(start for start in starts if starts.count(start) > 1)
    assert_refused(command("license", "show", shared), f"{shared} could be license", "more of the license's id")
