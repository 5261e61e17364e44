"""Where an audit ran: figures say little without it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("keylatch", "torch", "onnx", "onnxruntime", "numpy")


def versions() -> dict[str, str]:
    """Exact versions of what took part."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def machine() -> dict[str, Any]:
    """The processor, its cores, the threads that were used, and the operating system; nothing that names the host."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.release()}",
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # onnxruntime also comes as onnxruntime-gpu
        return "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
