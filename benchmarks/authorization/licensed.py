"""SA-MAP cells as real artifacts: locked, exported, licensed for the target, and run."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime

from authorization.cells import SPEC, Bench, say
from authorization.digits import Labeled
from keylatch.exporters import Exported, export, export_plain
from keylatch.locks import domain_lock
from keylatch.runtime import InferenceSession
from licensing import license_to_device


def exported_cell(bench: Bench, source: str, target: str, folder: Path) -> Exported:
    """The network of a source, locked with the mask that SA-MAP learned for a target, as an artifact."""
    locked = domain_lock(bench.source_network(source), SPEC, {target: bench.masks("SA-MAP", source, target)[target]})
    return export(locked.module, locked.secret, folder / "digits.latch", report=locked.report)


def licensed_cell(bench: Bench, source: str, target: str) -> dict[str, Any]:
    """Accuracies in onnxruntime: the original, the file without a license, and with the target's license."""
    done = bench.work / f"licensed.{source}.{target}.json"
    if not done.exists():
        say(f"licensed, {source} -> {target}")
        with TemporaryDirectory() as folder:
            done.write_text(json.dumps(_measure(bench, source, target, Path(folder))))
    found: dict[str, Any] = json.loads(done.read_text())
    return found


def _measure(bench: Bench, source: str, target: str, folder: Path) -> dict[str, Any]:
    exported = exported_cell(bench, source, target, folder)
    plain = export_plain(bench.source_network(source), SPEC, folder / "plain")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        "original": onnxruntime.InferenceSession(str(plain), options, providers=["CPUExecutionProvider"]),
        "without license": InferenceSession.locked(exported.path, options),
        "with license": InferenceSession(exported.path, options, **license_to_device(exported, folder, [target])),
    }
    tests = {role: bench.domains[name].test for role, name in (("source", source), ("target", target))}
    outputs = {
        name: {role: _outputs(session, test) for role, test in tests.items()} for name, session in sessions.items()
    }
    original, opened = outputs["original"]["target"], outputs["with license"]["target"]
    return {
        "source": source,
        "target": target,
        "license_bytes": (folder / "model.license").stat().st_size,
        "equal_target_outputs": bool(np.array_equal(original, opened)),
        "largest_difference": float(np.abs(original - opened).max() / np.ptp(original)),
        "accuracy": {
            name: {role: _accuracy(found[role], tests[role]) for role in tests} for name, found in outputs.items()
        },
    }


def _outputs(session: Any, images: Labeled) -> Any:
    return np.asarray(session.run(None, {"image": SPEC.from_pixels(images.images).numpy()})[0])


def _accuracy(outputs: Any, images: Labeled) -> float:
    return float((outputs.argmax(1) == images.labels.numpy()).mean() * 100)
