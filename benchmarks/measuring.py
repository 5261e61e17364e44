"""What every benchmark shares: the machine and versions it ran on, and where its results go."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
THREADS = 2
_PACKAGES = ("keylatch", "torch", "onnx", "onnxruntime", "numpy", "cryptography")
_GPU_PACKAGES = ("onnxruntime-gpu", "nvidia-cuda-runtime", "nvidia-cudnn-cu13")


def machine() -> dict[str, Any]:
    """The processor, its cores, the operating system and the versions of what is measured; the GPUs, if there are."""
    gpus = _gpus()
    packages = (*_PACKAGES, *_GPU_PACKAGES) if gpus else _PACKAGES
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
        **({"gpus": gpus} if gpus else {}),
    }


def _gpus() -> list[dict[str, str]]:
    """Card, driver and memory of each GPU; none without NVIDIA's driver."""
    fields = ("name", "driver_version", "memory.total")
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    lines = found.stdout.splitlines() if found.returncode == 0 else []
    return [dict(zip(fields, line.split(", "), strict=True)) for line in lines]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in facts.items()}
    features = [name for name in ("avx512f", "amx_tile", "sha_ni", "vaes") if name in named.get("flags", "")]
    return f"{named.get('model name', platform.machine())} ({', '.join(features)})"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def write_results(name: str, results: Mapping[str, Any], *, folder: Path = RESULTS) -> Path:
    """Write a benchmark's results with the machine and the command, as NAME.json, by default in benchmarks/results."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *_public_arguments()])
    path.write_text(json.dumps({"command": command, "machine": machine(), **results}, indent=2) + "\n")
    return path


def result_name(name: str, provider: str) -> str:
    """Results on the CPU and on a GPU stand beside each other."""
    return name if provider == "cpu" else f"{name}_{provider}"


def _public_arguments() -> list[str]:
    return ["DATA" if Path(argument).is_absolute() else argument for argument in sys.argv[1:]]


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [""])[0]


def print_rows(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    sys.stdout.flush()
