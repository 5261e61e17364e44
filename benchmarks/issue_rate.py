"""How fast does the ledger issue licenses, and does it lose any when its processes are killed?

python benchmarks/issue_rate.py                   # the rate, and ten thousand licenses under kills
python benchmarks/issue_rate.py --licenses 1000   # fewer under kills
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keylatch.keys import (
    CosignerKey,
    FileDeviceKey,
    FileIssuerKey,
    KnownDevice,
    Ledger,
    License,
    LicensedModel,
    LicenseTerms,
    current_time,
    issue_and_record,
    issue_license,
    read_claims_unverified,
    write_license,
)
from measuring import print_rows, write_results

ROUNDS = 5
LICENSES = 400
PROCESSES, KILLS = 4, 200
# The code lock's license for ResNet-50: a 16 x 16 patch and a known answer.
SECRET_VALUES = {"gate.patch": np.arange(768, dtype=np.uint8), "known_answer": np.zeros(32, np.uint8)}
CRASH_RUN = Path(__file__).resolve().parents[1] / "tests" / "keys" / "ledger" / "crash_run.py"


class Issuer:
    """A key, a device and a ledger in a folder, and the ways of issuing that are compared."""

    def __init__(self, folder: Path, ledger: Ledger, key: FileIssuerKey) -> None:
        self.folder, self.ledger, self.key = folder, ledger, key
        self.cosigner = CosignerKey.generate()
        self.device = FileDeviceKey.generate(folder / "device.key").public
        self.now = current_time()
        (folder / "licenses").mkdir()

    def alone(self) -> License:
        """Without a ledger."""
        return issue_license(
            issuer=self.key,
            devices=[self.device],
            model_id="3f9a" * 16,
            secret_values=SECRET_VALUES,
            customer="ACME Vision",
            not_before=self.now,
            expires_at=self.now + 86_400,
        )

    def recorded(self, cosigner: CosignerKey | None = None) -> License:
        """Through the ledger: on its disk when it returns."""
        return issue_and_record(
            self.ledger,
            issuer=self.key,
            model=LicensedModel(model_id="3f9a" * 16, name="resnet50", secret_values=SECRET_VALUES),
            devices=[KnownDevice(self.device)],
            terms=LicenseTerms(customer="ACME Vision", not_before=self.now, expires_at=self.now + 86_400),
            cosigner=cosigner,
        )

    def written(self) -> License:
        """Through the ledger, then the file, on its disk too."""
        license = self.recorded()
        write_license(self.folder / "licenses" / f"{read_claims_unverified(license).license_id}.license", license)
        return license

    def cosigned(self) -> License:
        """Through the ledger, with a second signature."""
        return self.recorded(self.cosigner)


def rate(issue: Callable[[], License]) -> dict[str, float]:
    """Licenses a second over some rounds, and the processor's time for one, which leaves the disk's out."""
    issue()
    rates, processor_start = [], time.process_time()
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(LICENSES):
            issue()
        rates.append(LICENSES / (time.perf_counter() - start))
    processor_ms = (time.process_time() - processor_start) / (ROUNDS * LICENSES) * 1e3
    median = float(np.median(rates))
    return {"median": median, "lowest": min(rates), "highest": max(rates), "processor_ms": processor_ms}


def measure_rates() -> dict[str, Any]:
    """On one core."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        with tempfile.TemporaryDirectory() as name:
            folder, key = Path(name), FileIssuerKey.generate()
            with Ledger.create(folder / "issuer.ledger", key.public) as ledger:
                issuer = Issuer(folder, ledger, key)
                before = _sync_ms(folder)
                ways = {way: rate(getattr(issuer, way)) for way in ("alone", "recorded", "written", "cosigned")}
            return {"sync_ms": (before + _sync_ms(folder)) / 2, **ways}
    finally:
        os.sched_setaffinity(0, allowed)


def _sync_ms(folder: Path) -> float:
    """What the disk takes for 4 KiB to be safe; on a RAM disk nothing, and the rates then say little."""
    times = []
    with (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(100):
            start = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def run_under_kills(licenses: int) -> dict[str, Any]:
    """The run that the tests have too, in a fresh process, because it forks."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = [str(number) for number in (licenses, PROCESSES, KILLS)]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(CRASH_RUN), folder, *numbers]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Rate of issuing, and what kills leave.")
    parser.add_argument("--licenses", type=int, default=10_000, help="how many to issue under kills")
    arguments = parser.parse_args()
    rates, kills = measure_rates(), run_under_kills(arguments.licenses)
    names = {
        "alone": "issue_license, no ledger",
        "recorded": "through the ledger",
        "written": "through the ledger, and the file written",
        "cosigned": "through the ledger, cosigned",
    }
    rows: list[tuple[object, ...]] = [
        (
            name,
            f"{rates[way]['median']:.0f}",
            f"{rates[way]['lowest']:.0f} to {rates[way]['highest']:.0f}",
            f"{rates[way]['processor_ms']:.2f}",
        )
        for way, name in names.items()
    ]
    print_rows(("one process, one core", "licenses/s, median", f"of {ROUNDS} rounds", "processor ms each"), rows)
    print(f"\n4 KiB are safe on this disk after {rates['sync_ms']:.2f} ms.\n")
    print_rows(("under kills", "value"), [(name.replace("_", " "), value) for name, value in kills.items()])
    write_results("issue_rate", {"rounds": ROUNDS, "licenses_a_round": LICENSES, "rates": rates, "under_kills": kills})


if __name__ == "__main__":
    main()
