"""Issue from several processes, kill them at random moments and start others, then compare everything that is left.

    python crash_run.py FOLDER LICENSES PROCESSES KILLS

Prints JSON. SIGKILL loses what a process had in hand, not what the system had in its caches: this tests that nothing is
half done and nobody's number is taken twice, not a power cut. A fresh process runs it, because it forks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from crash_worker import issue_for_ever

from keylatch.keys import FileDeviceKey, FileIssuerKey, parse_license, read_claims_unverified, write_license
from keylatch.keys._ledger import Ledger, list_entries, read_recorded_license

# Between two kills, in seconds: from the middle of a first license to some dozens.
_SHORTEST, _LONGEST = 0.005, 0.15


def prepare(folder: Path) -> None:
    (folder / "licenses").mkdir()
    (folder / "logs").mkdir()
    issuer = FileIssuerKey.generate()
    issuer.save(folder / "issuer.key")
    FileDeviceKey.generate(folder / "device.key").public.save(folder / "device.pub")
    Ledger.create(folder / "issuer.ledger", issuer.public).close()


def issue_and_kill(folder: Path, licenses: int, processes: int, kills: int) -> dict[str, Any]:
    """Until there are so many licenses and kills; then kills the rest."""
    start, killed, died = time.perf_counter(), 0, 0
    numbers = iter(range(sys.maxsize))
    workers = [_start(folder, next(numbers)) for _ in range(processes)]
    while _count(folder) < licenses or killed < kills:
        time.sleep(random.uniform(_SHORTEST, _LONGEST))
        place = random.randrange(processes)
        died += not _kill(workers[place])
        killed += 1
        workers[place] = _start(folder, next(numbers))
    died += sum(not _kill(worker) for worker in workers)
    return {"kills": killed + processes, "died_by_themselves": died, "issuing_seconds": time.perf_counter() - start}


def _start(folder: Path, number: int) -> int:
    worker = os.fork()
    if worker == 0:
        issue_for_ever(folder, folder / "logs" / f"{number}.log")
    return worker


def _kill(worker: int) -> bool:
    """Whether the kill was what ended it."""
    os.kill(worker, signal.SIGKILL)
    status = os.waitpid(worker, 0)[1]
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _count(folder: Path) -> int:
    # Not through the ledger: its connection would be open in the processes that are forked.
    with contextlib.closing(sqlite3.connect(folder / "issuer.ledger", timeout=60)) as db:
        return int(db.execute("SELECT count(*) FROM licenses").fetchone()[0])


def returned(folder: Path) -> Iterator[tuple[str, int]]:
    """What issuing returned to the workers; a line that a kill cut off was not returned yet."""
    for log in (folder / "logs").iterdir():
        for line in log.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                license_id, seq = line.split()
                yield license_id, int(seq)


def files(folder: Path) -> dict[str, str]:
    """License id to SHA-256, of the files that have their name; a kill leaves temporary ones."""
    found = (folder / "licenses").glob("*.license")
    return {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in found}


def compare(folder: Path) -> dict[str, Any]:
    """Compare the ledger, the workers' logs and the files."""
    before = files(folder)
    with Ledger.open(folder / "issuer.ledger") as ledger:
        entries = {entry.license_id: entry for entry in list_entries(ledger)}
        numbers = _numbers(ledger)
        reported = list(returned(folder))
        lost = [name for name, seq in reported if name not in entries or entries[name].seq != seq]
        false_files = [name for name, digest in before.items() if name not in entries or entries[name].sha256 != digest]
        disagreeing = _write_missing(folder, ledger, set(entries) - set(before))
        after = files(folder)
        with ledger.reading() as db:
            integrity = db.execute("PRAGMA integrity_check").fetchone()[0]
            foreign = len(db.execute("PRAGMA foreign_key_check").fetchall())
    return {
        "licenses": len(entries),
        "returned": len(reported),
        "files_before": len(before),
        "files_written_again": len(after) - len(before),
        "duplicate_numbers": len(numbers) - len(set(numbers)),
        "numbers_out_of_order": sum(a >= b for a, b in pairwise(numbers)),
        "lost_rows": len(lost),
        "files_without_their_row": len(false_files),
        "claims_that_disagree": disagreeing,
        "ledger_and_files_agree": after == {name: entry.sha256 for name, entry in entries.items()},
        "integrity_check": integrity,
        "broken_references": foreign,
    }


def _numbers(ledger: Ledger) -> list[int]:
    """Numbers in the order in which their rows were inserted."""
    with ledger.reading() as db:
        return [seq for (seq,) in db.execute("SELECT seq FROM licenses ORDER BY rowid")]


def _write_missing(folder: Path, ledger: Ledger, missing: set[str]) -> int:
    """Write the files that a kill kept from being written; count licenses, of all, whose claims are not their row's."""
    wrong = 0
    for entry in list_entries(ledger):
        license = read_recorded_license(ledger, entry.license_id)
        claims = read_claims_unverified(parse_license(license.serialize()))
        wrong += (claims.license_id, claims.seq) != (entry.license_id, entry.seq)
        if entry.license_id in missing:
            write_license(folder / "licenses" / f"{entry.license_id}.license", license)
    return wrong


def main() -> None:
    folder, *numbers = sys.argv[1:]
    licenses, processes, kills = map(int, numbers)
    prepare(Path(folder))
    done = issue_and_kill(Path(folder), licenses, processes, kills)
    print(json.dumps({"processes": processes, **done, **compare(Path(folder))}))


if __name__ == "__main__":
    main()
