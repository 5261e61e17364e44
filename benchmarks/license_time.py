"""What does opening a license take, without onnxruntime's part: by key store, by number of devices, with what else?

python benchmarks/license_time.py                              # file, hybrid, and swtpm and SoftHSM2 where installed
python benchmarks/license_time.py --key tpm:device.tpm         # a key that this machine has, instead of simulators
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keylatch.keys import (
    AnyDeviceKey,
    AnyDevicePublicKey,
    CosignerKey,
    DeviceState,
    FileDeviceKey,
    FileIssuerKey,
    HybridDeviceKey,
    Trust,
    check_revocations,
    current_time,
    decrypt_license,
    generate_device_key,
    issue_license,
    open_device_key,
    parse_license,
    sign_revocation_list,
    verify_license,
    verify_revocation_list,
)
from measuring import print_rows, write_results

ROUNDS, MANY = 200, 1000
# The code lock's license for ResNet-50 is about as large.
Array = np.ndarray[Any, np.dtype[Any]]
SECRET_VALUES: dict[str, Array] = {
    "gate.patch": np.arange(16 * 16 * 3, dtype=np.uint8),
    "gate.means": np.ones(2048, np.float32),
}
SOFTHSM = [Path(f"/usr/lib/{place}softhsm/libsofthsm2.so") for place in ("", "x86_64-linux-gnu/", "aarch64-linux-gnu/")]
ROOT = Path(__file__).resolve().parents[1]

Row = dict[str, Any]
OpenKey = Callable[[], AnyDeviceKey]


class Place:
    """An issuer in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.issuer, self.now = folder, FileIssuerKey.generate(), current_time()
        self.trust = Trust((self.issuer.public,))

    def license(self, *devices: AnyDevicePublicKey, cosigner: CosignerKey | None = None) -> bytes:
        """A license's bytes."""
        license = issue_license(
            issuer=self.issuer,
            devices=devices,
            model_id="3f9a" * 16,
            secret_values=SECRET_VALUES,
            customer="ACME Vision",
            not_before=self.now,
            expires_at=self.now + 86_400,
            cosigner=cosigner,
        )
        return license.serialize()

    def row(self, what: str, data: bytes, open_key: OpenKey, trust: Trust | None = None) -> Row:
        """Steps 1 to 4 and 8 to 10, the key's opening included."""

        def opening() -> None:
            license = parse_license(data)
            claims = verify_license(license, trust or self.trust, now=self.now)
            decrypt_license(license, claims, open_key())

        return timed(what, opening, len(data))


def timed(what: str, call: Callable[[], object], size_bytes: int) -> Row:
    """Median and p99 of a call, ms."""
    times = []
    for _ in range(ROUNDS + 10):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    kept = np.array(times[10:])
    return {
        "what": what,
        "p50_ms": float(np.median(kept)),
        "p99_ms": float(np.quantile(kept, 0.99)),
        "license_bytes": size_bytes,
        "rounds": ROUNDS,
    }


def file_rows(place: Place) -> list[Row]:
    """A key in a file: alone, cosigned, with a state and a list."""
    path, now = place.folder / "device.key", place.now
    key = FileDeviceKey.generate(path)
    data, cosigner = place.license(key.public), CosignerKey.generate()
    state = DeviceState.create(place.folder / "device.state", key, now=now)
    listed = sign_revocation_list(issuer=place.issuer, seq=1, license_ids=[], issued_at=now, max_age=86_400)

    def remembered() -> None:
        license = parse_license(data)
        claims = verify_license(license, place.trust, now=now)
        revocations = verify_revocation_list(listed, place.trust)
        moment = state.check(claims, revocations, now=now)
        check_revocations(claims, revocations, now=moment)
        decrypt_license(license, claims, open_device_key(path))
        state.remember(claims, revocations, now=moment)

    both = Trust((place.issuer.public,), (cosigner.public,))
    cosigned = place.license(key.public, cosigner=cosigner)
    return [
        place.row("file key", data, lambda: open_device_key(path)),
        place.row("file key, cosignature demanded", cosigned, lambda: open_device_key(path), both),
        timed("file key, device state and revocation list", remembered, len(data)),
    ]


def many_rows(place: Place) -> list[Row]:
    """A thousand devices in one license."""
    folder = place.folder / "many"
    folder.mkdir()
    p256 = [FileDeviceKey.generate(folder / f"{index}.key") for index in range(MANY)]
    hybrid = [HybridDeviceKey.generate(folder / f"{index}.hybrid") for index in range(MANY)]
    ours = FileDeviceKey.load(folder / "0.key"), HybridDeviceKey.load(folder / "0.hybrid")
    return [
        place.row(f"{MANY} devices, P-256", place.license(*(key.public for key in p256)), lambda: ours[0]),
        place.row(f"{MANY} devices, hybrid", place.license(*(key.public for key in hybrid)), lambda: ours[1]),
    ]


def hybrid_row(place: Place) -> Row:
    """One post-quantum device."""
    path = place.folder / "device.hybrid"
    public = HybridDeviceKey.generate(path).public
    return place.row("hybrid key", place.license(public), lambda: open_device_key(f"hybrid:{path}"))


def store_row(place: Place, what: str, uri: str, pin: bytes | None = None, *, make: bool = True) -> Row:
    """A key in a store."""
    ask = None if pin is None else (lambda _what: pin)
    key = (generate_device_key if make else open_device_key)(uri, passphrase=ask)
    data = place.license(key.public)
    return place.row(what, data, lambda: open_device_key(uri, passphrase=ask))


@contextlib.contextmanager
def simulated_tpm(folder: Path) -> Iterator[str]:
    """A TPM by swtpm; gives its TCTI."""
    sys.path.append(str(ROOT / "tests" / "keys" / "tpm"))
    from tpm_world import Simulator  # type: ignore[import-not-found]

    folder.mkdir()
    setup = ["swtpm_setup", "--tpm2", "--tpmstate", str(folder), "--createek", "--overwrite", "--pcr-banks", "sha256"]
    subprocess.run(setup, check=True, capture_output=True)
    simulator = Simulator(folder)
    try:
        yield simulator.tcti
    finally:
        simulator.stop()


def tpm_rows(place: Place) -> list[Row]:
    """A key in swtpm, through each of the two libraries."""
    if shutil.which("swtpm_setup") is None:
        return []
    rows = []
    with simulated_tpm(place.folder / "tpm") as tcti:
        for backend in ("pytss", "esys"):
            uri = f"tpm:{place.folder / backend}.tpm?tcti={tcti}&backend={backend}"
            rows.append(store_row(place, f"swtpm, {backend}", uri))
    return rows


def hsm_rows(place: Place) -> list[Row]:
    """A key in SoftHSM2; the module keeps one login for the process, so one key stays open."""
    module = next((path for path in SOFTHSM if path.exists()), None)
    if module is None:
        return []
    tokens = place.folder / "tokens"
    tokens.mkdir()
    settings = place.folder / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {tokens}\n")
    os.environ["SOFTHSM2_CONF"] = str(settings)
    made = ["softhsm2-util", "--init-token", "--free", "--label", "bench", "--pin", "1234", "--so-pin", "5678"]
    subprocess.run(made, check=True, capture_output=True)
    return [store_row(place, "SoftHSM2", f"pkcs11:token=bench;object=device?module-path={module}", b"1234")]


def main() -> None:
    """Measure and write benchmarks/results/license_time.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--key", help="a device key that exists, by its URI")
    uri = parser.parse_args().key
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        if uri is None:
            rows = [*file_rows(place), hybrid_row(place), *many_rows(place), *hsm_rows(place), *tpm_rows(place)]
        else:
            rows = [store_row(place, uri.partition(":")[0], uri, make=False)]
    print_rows(
        ("what", "p50, ms", "p99, ms", "license, bytes"),
        [(row["what"], f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}", row["license_bytes"]) for row in rows],
    )
    write_results("license_time", {"rows": rows})


if __name__ == "__main__":
    main()
