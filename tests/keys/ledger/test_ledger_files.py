"""The file: how it is made, who may read it, what is refused, and how an older one is brought up."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ledger_world import LedgerWorld, change, rows

from keylatch.errors import FormatError, KeylatchError, LedgerEntryError, LedgerError, LedgerMissingError, OutputError
from keylatch.keys import FileIssuerKey, read_claims_unverified
from keylatch.keys._ledger import Ledger, list_entries, read_recorded_license
from keylatch.keys._ledger import _ledger as ledger_file
from keylatch.keys._ledger import _schema as schema

VERSION_1 = Path(__file__).with_name("version_1.sql")


def test_the_file_and_its_log_are_the_owners_alone(book: LedgerWorld) -> None:
    old = os.umask(0)
    try:
        with Ledger.create(book.folder / "open.ledger", book.issuer.public) as ledger:
            book.issue(ledger=ledger)
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in book.folder.glob("open.ledger*")}
    finally:
        os.umask(old)
    assert modes == {"open.ledger": 0o600, "open.ledger-wal": 0o600, "open.ledger-shm": 0o600}


def test_a_closed_ledger_is_one_file(book: LedgerWorld) -> None:
    book.issue()
    book.ledger.close()
    assert [file.name for file in book.folder.iterdir()] == ["issuer.ledger"]


def test_it_is_set_up_to_lose_nothing(book: LedgerWorld) -> None:
    with book.ledger.reading() as db:
        found = {name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
        found |= {name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("foreign_keys", "busy_timeout")}
        found["strict"] = {row["strict"] for row in db.execute("PRAGMA table_list") if row["type"] == "table"
                           and not row["name"].startswith("sqlite_")}  # fmt: skip
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000, "strict": {1}}


def test_making_one_never_replaces_a_file(book: LedgerWorld) -> None:
    book.issue()
    with pytest.raises(OutputError, match="exists already"):
        Ledger.create(book.path, FileIssuerKey.generate().public)
    assert len(list_entries(book.ledger)) == 1


def test_opening_never_makes_one(tmp_path: Path) -> None:
    with pytest.raises(LedgerMissingError, match=r"issuer\.ledger does not exist") as caught:
        Ledger.open(tmp_path / "issuer.ledger")
    assert "keylatch issuer ledger" in str(caught.value.hint)
    assert not list(tmp_path.iterdir())


def test_one_that_vanishes_while_it_is_opened_is_not_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_file, "_check_file", lambda path: None)
    with pytest.raises(LedgerError):
        Ledger.open(tmp_path / "issuer.ledger")
    assert not list(tmp_path.iterdir())


def test_a_path_that_is_none_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, "nul\0byte", tmp_path / ("x" * 300)):
        with pytest.raises(LedgerError):
            Ledger.open(path)


@pytest.mark.parametrize("name", ["a?b#c%20d.ledger", "ünïcode ledger", "-x"])
def test_any_file_name_will_do(book: LedgerWorld, name: str) -> None:
    Ledger.create(book.folder / name, book.issuer.public).close()
    with Ledger.open(book.folder / name) as ledger:
        assert list_entries(ledger) == []
    assert sorted(file.name for file in book.folder.glob("*")) == sorted(
        [name, "issuer.ledger", "issuer.ledger-shm", "issuer.ledger-wal"]
    )


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_one_that_others_can_read_is_refused(book: LedgerWorld, mode: int) -> None:
    book.ledger.close()
    book.path.chmod(mode)
    with pytest.raises(LedgerError, match="open to other users") as caught:
        Ledger.open(book.path)
    assert caught.value.hint == f"chmod 600 {book.path}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_users_is_refused(book: LedgerWorld) -> None:
    book.ledger.close()
    os.chown(book.path, 12_345, -1)
    with pytest.raises(LedgerError, match="belongs to user 12345"):
        Ledger.open(book.path)


def test_a_link_is_refused(book: LedgerWorld) -> None:
    (book.folder / "link.ledger").symlink_to(book.path)
    with pytest.raises(LedgerError, match="not a regular file"):
        Ledger.open(book.folder / "link.ledger")


@pytest.mark.parametrize("content", [b"", b"not a database at all", b"SQLite format 3\0" + bytes(200), bytes(8192)])
def test_another_kind_of_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.ledger"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(FormatError, match="is not a ledger"):
        Ledger.open(path)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["other.ledger"]


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.ledger"
    change(path, "CREATE TABLE licenses (id)")
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(FormatError, match="is not a ledger"):
        Ledger.open(path)
    assert path.read_bytes() == before


def test_a_later_version_is_refused_and_left_alone(book: LedgerWorld) -> None:
    book.ledger.close()
    change(book.path, f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    before = book.path.read_bytes()
    with pytest.raises(LedgerError, match=f"version {schema.SCHEMA_VERSION + 1}, expected at most") as caught:
        Ledger.open(book.path)
    assert caught.value.hint == "upgrade keylatch"
    assert book.path.read_bytes() == before


def test_a_damaged_ledger_says_so(book: LedgerWorld) -> None:
    for _ in range(5):
        book.issue()
    book.ledger.close()
    data = bytearray(book.path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    book.path.write_bytes(data)
    with Ledger.open(book.path) as ledger, pytest.raises(FormatError, match="is damaged") as caught:
        list_entries(ledger)
    assert "backup" in str(caught.value.hint)


def test_a_truncated_ledger_says_so(book: LedgerWorld) -> None:
    for _ in range(5):
        book.issue()
    book.ledger.close()
    os.truncate(book.path, 8192)
    with pytest.raises(FormatError, match="is damaged"), Ledger.open(book.path) as ledger:
        list_entries(ledger)


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """A ledger as the first version wrote it: its tables and rows are text in this folder, not made by today's code."""
    path = tmp_path / "old.ledger"
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1.read_text())
    connection.close()
    path.chmod(0o600)
    return path


def test_a_version_1_ledger_migrates_and_keeps_its_rows(version_1: Path) -> None:
    tables = [name for (name,) in rows(version_1, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
    before = {table: rows(version_1, f"SELECT * FROM {table}") for table in tables}
    assert rows(version_1, "PRAGMA user_version") == [(1,)] and len(before["licenses"]) == 2
    with Ledger.open(version_1) as ledger:
        first, second = list_entries(ledger)
        assert (
            second.renews == first.license_id and first.reason == "lost" and second.state(second.not_before) == "valid"
        )
        license = read_recorded_license(ledger, first.license_id)
        assert read_claims_unverified(license).seq == first.seq
    assert rows(version_1, "PRAGMA user_version") == [(schema.SCHEMA_VERSION,)]
    assert {table: rows(version_1, f"SELECT * FROM {table}") for table in tables} == before
    assert rows(version_1, "SELECT count(*) FROM cosigners") == [(0,)]


def test_a_migrated_ledger_is_like_a_new_one(version_1: Path, book: LedgerWorld) -> None:
    Ledger.open(version_1).close()
    statement = "SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
    old, new = (
        [(name, " ".join(sql.split())) for name, sql in rows(path, statement)] for path in (version_1, book.path)
    )
    assert old == new


def test_several_that_open_an_old_one_at_once_migrate_it_once(version_1: Path) -> None:
    errors: list[Exception] = []
    start = threading.Barrier(6)

    def open_it() -> None:
        start.wait()
        try:
            Ledger.open(version_1).close()
        except (KeylatchError, sqlite3.Error) as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert rows(version_1, "PRAGMA user_version") == [(schema.SCHEMA_VERSION,)]


def test_a_migration_that_fails_leaves_the_version_before(version_1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (schema.MIGRATIONS[0], "CREATE TABLE half (id TEXT) STRICT; CREATE TABLE half (id TEXT) STRICT")
    monkeypatch.setattr(schema, "MIGRATIONS", broken)
    with pytest.raises(LedgerError):
        Ledger.open(version_1)
    monkeypatch.undo()
    assert rows(version_1, "PRAGMA user_version") == [(1,)]
    assert rows(version_1, "SELECT count(*) FROM sqlite_schema WHERE name = 'half'") == [(0,)]
    Ledger.open(version_1).close()


def test_an_old_sqlite_is_named(book: LedgerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(LedgerError, match=r"expected 3\.37 or newer"):
        Ledger.open(book.path)


def test_keys_are_used_without_sqlite() -> None:
    """A device that only runs models may have a Python without it."""
    code = "import sys; sys.modules['sqlite3'] = None; import keylatch.keys, keylatch.keys._ledger"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_copy_of_a_closed_ledger_is_a_backup(book: LedgerWorld) -> None:
    license_id = book.issue_id()
    book.ledger.close()
    shutil.copy(book.path, book.folder / "copy.ledger")
    with Ledger.open(book.folder / "copy.ledger") as ledger:
        assert list_entries(ledger)[0].license_id == license_id
        with pytest.raises(LedgerEntryError):
            list_entries(ledger, customer="nobody")
