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
from keylatch.keys import FileDeviceKey, FileIssuerKey, current_time, issue_license, write_license
from keylatch.locks import domain_lock
from keylatch.runtime import InferenceSession, values_to_license

_DAY_SECONDS = 86_400


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
        "with license": _opened(exported, target, folder, options),
    }
    tests = {role: bench.domains[name].test for role, name in (("source", source), ("target", target))}
    outputs = {
        name: {role: _outputs(session, test) for role, test in tests.items()} for name, session in sessions.items()
    }
    original, opened = outputs["original"]["target"], outputs["with license"]["target"]
    return {
        "source": source,
        "target": target,
        "license_bytes": (folder / "target.license").stat().st_size,
        "equal_target_outputs": bool(np.array_equal(original, opened)),
        "largest_difference": float(np.abs(original - opened).max() / np.ptp(original)),
        "accuracy": {
            name: {role: _accuracy(found[role], tests[role]) for role in tests} for name, found in outputs.items()
        },
    }


def _opened(exported: Exported, target: str, folder: Path, options: Any) -> InferenceSession:
    issuer, device = FileIssuerKey.generate(), FileDeviceKey.generate(folder / "device.key")
    issuer.public.save(folder / "issuer.pub")
    now = current_time()
    license = issue_license(
        issuer=issuer,
        devices=[device.public],
        model_id=exported.model_id,
        secret_values=values_to_license(exported.secret_values, [target]),
        customer="benchmark",
        not_before=now,
        expires_at=now + _DAY_SECONDS,
        domains=[target],
    )
    write_license(folder / "target.license", license)
    return InferenceSession(
        exported.path,
        options,
        license=folder / "target.license",
        key=f"file:{folder / 'device.key'}",
        trust=folder / "issuer.pub",
    )


def _outputs(session: Any, images: Labeled) -> Any:
    return np.asarray(session.run(None, {"image": SPEC.from_pixels(images.images).numpy()})[0])


def _accuracy(outputs: Any, images: Labeled) -> float:
    return float((outputs.argmax(1) == images.labels.numpy()).mean() * 100)
