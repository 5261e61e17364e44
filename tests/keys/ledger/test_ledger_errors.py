"""A ledger that another process holds, that cannot be written, or whose disk is full: each brought about for real."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from ledger_world import LedgerWorld, mounted, read_only, rows

from keylatch.errors import LedgerBusyError, LedgerError, LedgerFullError, LedgerReadOnlyError
from keylatch.keys._ledger import (
    KnownDevice,
    Ledger,
    LicensedModel,
    LicenseTerms,
    issue_and_record,
    list_entries,
    revoke_license,
)

HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_another_process(path: Path) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        yield


def test_a_ledger_that_is_held_for_too_long_is_busy(book: LedgerWorld) -> None:
    with Ledger.open(book.path, timeout_seconds=0.05) as impatient:
        with held_by_another_process(book.path):
            with pytest.raises(LedgerBusyError, match="held by another process"):
                book.issue(ledger=impatient)
            assert list_entries(impatient) == []  # reading needs no lock
        assert book.issue(ledger=impatient)


def test_one_that_is_given_back_in_time_is_waited_for(book: LedgerWorld) -> None:
    release = "import time; print('held', flush=True); time.sleep(0.3); db.execute('COMMIT')"
    code = HOLD.replace('print("held", flush=True)\nsys.stdin.read()', release)
    with subprocess.Popen([sys.executable, "-c", code, str(book.path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert book.issue()


def test_a_read_only_place_is_named(book: LedgerWorld) -> None:
    license_id = book.issue_id()
    book.ledger.close()
    with read_only(book.folder):
        with pytest.raises(LedgerReadOnlyError, match="cannot be written"), Ledger.open(book.path) as ledger:
            revoke_license(ledger, license_id)
        with pytest.raises(LedgerReadOnlyError), Ledger.open(book.path) as ledger:
            book.issue(ledger=ledger)
    with Ledger.open(book.path) as ledger:
        assert [entry.state(book.now) for entry in list_entries(ledger)] == ["valid"]


def test_a_place_that_turns_read_only_while_it_is_open_is_named(book: LedgerWorld) -> None:
    book.issue()
    book.ledger._db.execute("PRAGMA query_only = ON")
    with pytest.raises(LedgerReadOnlyError, match="cannot be written"):
        book.issue()
    book.ledger._db.execute("PRAGMA query_only = OFF")
    assert book.issue() and len(list_entries(book.ledger)) == 2


def issue_large(book: LedgerWorld, ledger: Ledger, size_bytes: int) -> None:
    values = {"weights": np.zeros(size_bytes, np.uint8)}
    issue_and_record(
        ledger,
        issuer=book.issuer,
        model=LicensedModel(model_id="ab" * 32, name="large", secret_values=values),
        devices=[KnownDevice(book.other_device.public)],
        terms=LicenseTerms(customer="large", not_before=book.now, expires_at=book.now + 10),
    )


def assert_only_the_small_one_is_there(path: Path) -> None:
    assert rows(path, "SELECT count(*) FROM licenses") == [(1,)]
    assert rows(path, "SELECT name FROM customers") == [("ACME Vision",)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_full_disk_records_nothing_and_the_ledger_goes_on(book: LedgerWorld, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", at=disk):
        with Ledger.create(disk / "issuer.ledger", book.issuer.public) as ledger:
            book.issue(ledger=ledger)
            for _ in range(2):
                with pytest.raises(LedgerFullError, match="nothing was recorded"):
                    issue_large(book, ledger, 2_000_000)
                assert_only_the_small_one_is_there(ledger.path)
            book.issue(ledger=ledger)
            assert len(list_entries(ledger)) == 2
        with Ledger.open(disk / "issuer.ledger") as ledger:
            assert len(list_entries(ledger)) == 2


def test_a_disk_without_a_single_page_left_is_full(book: LedgerWorld, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", at=disk):
        Ledger.create(disk / "issuer.ledger", book.issuer.public).close()
        with (disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
            while True:
                filler.write(bytes(4096))
        with pytest.raises(LedgerFullError), Ledger.open(disk / "issuer.ledger") as ledger:
            book.issue(ledger=ledger)
        (disk / "filler").unlink()
        with Ledger.open(disk / "issuer.ledger") as ledger:
            assert list_entries(ledger) == []
            assert book.issue(ledger=ledger)


def test_a_ledger_at_its_size_limit_is_full(book: LedgerWorld) -> None:
    """SQLite's own limit gives the same error, where no disk can be mounted."""
    book.issue()
    (pages,) = book.ledger._db.execute("PRAGMA page_count").fetchone()
    book.ledger._db.execute(f"PRAGMA max_page_count = {pages + 4}").fetchone()
    with pytest.raises(LedgerFullError):
        issue_large(book, book.ledger, 100_000)
    assert_only_the_small_one_is_there(book.path)
    assert book.issue()


def test_any_other_failure_names_sqlites_code(book: LedgerWorld) -> None:
    with pytest.raises(LedgerError, match="SQLITE_CONSTRAINT"), book.ledger.writing() as db:
        db.execute("INSERT INTO customers VALUES (NULL)")


def test_a_mistake_of_ours_is_no_ledger_error(book: LedgerWorld) -> None:
    import sqlite3

    book.ledger.close()
    with pytest.raises(sqlite3.ProgrammingError):
        list_entries(book.ledger)
