"""What does opening a locked model cost beside a plain session from its path? ResNet-50, about 100 MB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime

import config_networks
from keylatch.keys import Trust, current_time, decrypt_license, open_device_key, read_license, verify_license
from keylatch.runtime import InferenceSession, compare
from measuring import THREADS, print_rows, write_results

PAIRS = 40


def options() -> onnxruntime.SessionOptions:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = THREADS
    return settings


def measure(name: str) -> list[dict[str, Any]]:
    with config_networks.installed(name) as place:

        def plain() -> object:
            return onnxruntime.InferenceSession(str(place.plain), options(), providers=["CPUExecutionProvider"])

        def keyed() -> object:
            return InferenceSession(place.model, options(), providers=["CPUExecutionProvider"], **place.credentials)

        def license_alone() -> object:
            license = read_license(Path(place.credentials["license"]))
            trust = Trust.load(place.credentials["trust"])
            claims = verify_license(license, trust, now=current_time())
            return decrypt_license(license, claims, open_device_key(place.credentials["key"]))

        opening = compare(plain, keyed, pairs=PAIRS)
        secrets = compare(license_alone, license_alone, pairs=PAIRS)
        size = sum(file.stat().st_size for file in place.model.iterdir())
        memory = {mode: _peak_mb(mode, place) for mode in ("plain", "keyed")}
    plain_ms, keyed_ms = opening.percentiles(50)
    return [
        {
            "network": name,
            "megabytes": size / 1e6,
            "plain_p50_ms": plain_ms,
            "keyed_p50_ms": keyed_ms,
            "plain_min_ms": float(opening.baseline_ms.min()),
            "keyed_min_ms": float(opening.candidate_ms.min()),
            "ratio_p50": opening.ratio,
            "ratio_ci95": opening.ratio_interval(),
            "license_p50_ms": secrets.percentiles(50)[0],
            "peak_rss_mb": memory,
            "pairs": PAIRS,
        }
    ]


_OPEN_ONCE = """
import sys
import onnxruntime
from keylatch.runtime import InferenceSession
def peak_kib():  # not ru_maxrss, which starts from the parent's
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak_kib()
mode, plain, model, license, key, trust = sys.argv[1:]
if mode == "plain":
    session = onnxruntime.InferenceSession(plain, providers=["CPUExecutionProvider"])
else:
    session = InferenceSession(model, license=license, key=key, trust=trust)
print((peak_kib() - before) / 1024)
"""


def _peak_mb(mode: str, place: config_networks.Installation) -> float:
    """Peak resident memory that opening adds, in a fresh process."""
    credentials = [str(place.credentials[name]) for name in ("license", "key", "trust")]
    command = [sys.executable, "-c", _OPEN_ONCE, mode, str(place.plain), str(place.model), *credentials]
    return round(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout), 1)


def main() -> None:
    results = measure("resnet50")
    rows: list[tuple[object, ...]] = [
        (
            row["network"],
            f"{row['megabytes']:.0f}",
            f"{row['plain_p50_ms']:.1f} ({row['plain_min_ms']:.1f})",
            f"{row['keyed_p50_ms']:.1f} ({row['keyed_min_ms']:.1f})",
            "{:.3f} ({:.3f} to {:.3f})".format(row["ratio_p50"], *row["ratio_ci95"]),
            f"{row['license_p50_ms']:.2f}",
            f"{row['peak_rss_mb']['plain']:.0f} / {row['peak_rss_mb']['keyed']:.0f}",
        )
        for row in results
    ]
    header = ("network", "MB", "plain p50 (min), ms", "keyed p50 (min), ms", "ratio (95 %)", "license, ms", "peak MB")
    print_rows(header, rows)
    write_results("open_time", {"threads": THREADS, "results": results})


if __name__ == "__main__":
    main()
