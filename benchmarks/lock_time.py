"""How long do locking and exporting take, and how exact is the unlocked network? By network."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import config_networks
from keylatch.exporters import export
from keylatch.locks import code_lock
from measuring import THREADS, print_rows, write_results

REPEATS = 3


def measure(name: str) -> dict[str, Any]:
    network = config_networks.build(name)
    lock_seconds, export_seconds = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        locked = code_lock(network, config_networks.NETWORKS[name].spec)
        lock_seconds.append(time.perf_counter() - start)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            exported = export(locked.module, locked.secret, Path(folder) / "model.latch", report=locked.report)
            export_seconds.append(time.perf_counter() - start)
    report = locked.report
    return {
        "network": name,
        "lock_seconds": lock_seconds,
        "export_seconds": export_seconds,
        "unlocked_error": report.unlocked_error,
        "keyed_onnx_error": exported.proof.keyed_error,
        "gated_parameters": report.gated_parameters,
        "parameters": report.parameters,
        "margin": report.margin,
        "layers": [layer.name for layer in report.layers],
    }


def main() -> None:
    torch.set_num_threads(THREADS)
    results = [measure(name) for name in config_networks.NETWORKS]
    rows: list[tuple[object, ...]] = [
        (
            result["network"],
            " / ".join(f"{seconds:.1f}" for seconds in result["lock_seconds"]),
            " / ".join(f"{seconds:.1f}" for seconds in result["export_seconds"]),
            f"{result['unlocked_error']:.1e}",
            f"{result['keyed_onnx_error']:.1e}",
            f"{result['gated_parameters'] / result['parameters']:.1%}",
        )
        for result in results
    ]
    header = ("network", "lock, s", "export, s", "unlocked error", "keyed ONNX error", "gated weights")
    print_rows(header, rows)
    write_results("lock_time", {"threads": THREADS, "results": results})


if __name__ == "__main__":
    main()
