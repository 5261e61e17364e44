"""What does opening a locked model cost beside a plain session from its path? 10 MB to 1 GB, weights plain and sealed.

Plain and keyed openings run in turn in one process, files in the page cache. The process keeps the memory that an
opening frees: whether the kernel hands it out in pages of 4 KB or 2 MB, and what a page costs a virtual machine,
changes from one minute to the next and moved both by more than they differ. (Not above 1 GB: what is kept then no
longer fits.) What fresh processes take, one opening each, and their peak memory stand beside it.

    python benchmarks/open_time.py            # MobileNetV2 14 MB, ResNet-50 103 MB, ViT-L/16 1.2 GB
    python benchmarks/open_time.py --large    # and 4 GB: making it takes 22 GB of memory and 12 GB of disk
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime

import config_networks
from installing import Form, Installation, install, workplace
from keylatch.keys import Trust, current_time, decrypt_license, open_device_key, read_license, verify_license
from keylatch.runtime import InferenceSession
from measuring import THREADS, print_rows
from pairs import arguments, compare_for, figures, shown_ratio, write_rows

NETWORKS = ("mobilenet_v2", "resnet50", "vit_l16")
LARGE = "vit_g16"
FORMS = (Form(), Form(sealed_weights=True))
CPU = ["CPUExecutionProvider"]
_LEAST_PAIRS = 10
_FRESH_PROCESSES = 5
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h, and its defaults
_DEFAULT_TRIM_BYTES, _DEFAULT_MMAPS = 128 * 1024, 65536

Row = dict[str, Any]


def options() -> onnxruntime.SessionOptions:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = THREADS
    return settings


def keep_freed_memory(keep: bool) -> None:
    """Let this process give memory back to the system, or not (mallopt(3), glibc)."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0 if keep else _DEFAULT_MMAPS)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1 if keep else _DEFAULT_TRIM_BYTES)


def measure(place: Installation, settings: argparse.Namespace) -> Row:
    """Opening one installation, beside its plain twin."""

    def plain() -> object:
        return onnxruntime.InferenceSession(str(place.plain), options(), providers=CPU)

    def keyed() -> object:
        return InferenceSession(place.model, options(), providers=CPU, **place.credentials)

    def license_alone() -> object:
        license = read_license(Path(place.credentials["license"]))
        trust = Trust.load(place.credentials["trust"])
        claims = verify_license(license, trust, now=current_time())
        return decrypt_license(license, claims, open_device_key(place.credentials["key"]))

    opening = compare_for(settings, plain, keyed, least=_LEAST_PAIRS)
    secrets = compare_for(settings, license_alone, license_alone)
    fresh = {mode: _in_fresh_processes(mode, place, settings) for mode in ("plain", "keyed")}
    return {
        "network": place.name,
        "provider": "cpu",
        "precision": place.form.precision,
        "batch": None,
        "mode": "open, sealed" if place.form.sealed_weights else "open",
        "megabytes": sum(file.stat().st_size for file in place.model.iterdir()) / 1e6,
        **figures(opening),
        "plain_min_ms": float(opening.baseline_ms.min()),
        "keyed_min_ms": float(opening.candidate_ms.min()),
        "license_p50_ms": secrets.percentiles(50)[0],
        "fresh_p50_ms": {mode: found["ms"] for mode, found in fresh.items()},
        "peak_rss_mb": {mode: found["peak_mb"] for mode, found in fresh.items()},
        "rss_mb": {mode: found["mb"] for mode, found in fresh.items()},
    }


_OPEN_ONCE = """
import json, sys, time
import onnxruntime
from keylatch.runtime import InferenceSession
def mebibytes(field):  # not ru_maxrss, which starts from the parent's
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field)) / 1024
before = mebibytes("VmHWM")
mode, plain, model, license, key, trust = sys.argv[1:]
start = time.perf_counter()
if mode == "plain":
    session = onnxruntime.InferenceSession(plain, providers=["CPUExecutionProvider"])
else:
    session = InferenceSession(model, providers=["CPUExecutionProvider"], license=license, key=key, trust=trust)
ms = (time.perf_counter() - start) * 1e3
print(json.dumps({"ms": ms, "peak_mb": mebibytes("VmHWM") - before, "mb": mebibytes("VmRSS") - before}))
"""


def _in_fresh_processes(mode: str, place: Installation, settings: argparse.Namespace) -> dict[str, float]:
    """Medians of one opening's time and of the resident memory that it adds, at its peak and at its end."""
    credentials = [str(place.credentials[name]) for name in ("license", "key", "trust")]
    command = [sys.executable, "-c", _OPEN_ONCE, mode, str(place.plain), str(place.model), *credentials]
    processes = range(1 if settings.quick else _FRESH_PROCESSES)
    runs = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in processes]
    return {name: round(statistics.median(run[name] for run in runs), 1) for name in ("ms", "peak_mb", "mb")}


def _settings() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--network", choices=sorted(config_networks.ALL_NETWORKS), action="append")
    parser.add_argument("--large", action="store_true", help="4 GB too")
    settings = parser.parse_args()
    usual = [config_networks.TINY_NETWORK] if settings.quick else [*NETWORKS, *([LARGE] if settings.large else [])]
    settings.network = settings.network or usual
    return settings


def main() -> None:
    settings = _settings()
    rows = []
    for name in settings.network:
        with workplace(settings.artifacts) as folder:  # one network at a time: disks are small
            places = install(folder, name, FORMS)
            keep_freed_memory(name not in config_networks.LARGE_NETWORKS)
            rows += [measure(place, settings) for place in places]
    print_rows(
        (
            "network",
            "weights",
            "MB",
            "plain p50 (min), ms",
            "keyed p50 (min), ms",
            "ratio (95 %)",
            "license, ms",
            "fresh process, ms",
            "peak MB",
            "MB then",
        ),
        [
            (
                row["network"],
                "sealed" if "sealed" in row["mode"] else "plain",
                f"{row['megabytes']:.0f}",
                f"{row['plain_p50_ms']:.1f} ({row['plain_min_ms']:.1f})",
                f"{row['keyed_p50_ms']:.1f} ({row['keyed_min_ms']:.1f})",
                shown_ratio(row),
                f"{row['license_p50_ms']:.2f}",
                f"{row['fresh_p50_ms']['plain']:.0f} / {row['fresh_p50_ms']['keyed']:.0f}",
                f"{row['peak_rss_mb']['plain']:.0f} / {row['peak_rss_mb']['keyed']:.0f}",
                f"{row['rss_mb']['plain']:.0f} / {row['rss_mb']['keyed']:.0f}",
            )
            for row in rows
        ],
    )
    write_rows("open_time", rows, settings)


if __name__ == "__main__":
    main()
