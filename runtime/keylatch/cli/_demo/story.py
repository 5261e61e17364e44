"""The steps of the demo: lock, export, license, run, and try everything that must be refused."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
import torch

from keylatch.cli._demo.training import Digits
from keylatch.cli._session import session_options
from keylatch.cli.bench import measure
from keylatch.errors import KeylatchError
from keylatch.exporters import Exported, export, export_plain
from keylatch.keys import (
    FileDeviceKey,
    FileIssuerKey,
    Vault,
    current_time,
    issue_license,
    write_license,
    write_vault,
)
from keylatch.locks import InputSpec, Locked, code_lock, save_locked
from keylatch.runtime import GRAPH_NAME, InferenceSession, values_to_license

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_YEAR_SECONDS = 365 * 86_400
_LATENCY_RUNS = 300


@dataclass(slots=True)
class Story:
    """What the demo made and measured.

    Attributes:
        folder: Where everything lies.
        seconds: Step to time taken.
        accuracy: Condition to top-1 accuracy in percent on the test images.
        refused: Attempt to the error's first line, or None if it was not refused.
        latency: The figures of `keylatch bench`.
        facts: Sizes and bounds worth showing.
    """

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)
    accuracy: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str | None] = field(default_factory=dict)
    latency: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def timed(self, step: str, work: Callable[[], Any]) -> Any:
        """Do a step and note how long it took."""
        start = time.perf_counter()
        result = work()
        self.seconds[step] = round(time.perf_counter() - start, 3)
        return result


def tell(story: Story, network: torch.nn.Module, digits: Digits) -> None:
    """Do everything after the training; fills `story`."""
    folder = story.folder
    images = (digits.test_images.float() / 255).numpy()
    labels = digits.test_labels.numpy()
    spec = InputSpec(3, *images.shape[2:])
    locked: Locked = story.timed("lock", lambda: code_lock(network, spec))
    exported: Exported = story.timed(
        "export", lambda: export(locked.module, locked.secret, folder / "digits.latch", report=locked.report)
    )
    plain = export_plain(network, spec, folder / "plain")
    issuer = _write_keys(folder, locked, exported)
    story.timed("license", lambda: _issue(folder, issuer, exported, "acme", "acme.license"))
    np.save(folder / "images.npy", images[:16])
    _write_audit_images(folder, digits)
    story.facts = _facts(locked, exported, folder)

    session = story.timed(
        "open", lambda: InferenceSession(folder / "digits.latch", session_options(None), **_credentials(folder))
    )
    stock = onnxruntime.InferenceSession(str(plain), session_options(None), providers=["CPUExecutionProvider"])
    story.accuracy = _accuracies(story.folder, session, stock, locked, images, labels)
    story.refused = _refusals(folder, issuer, exported)
    single = {"image": images[:1]}
    story.latency = measure(
        lambda: stock.run(None, single), lambda: session.run(None, single), _LATENCY_RUNS, quiet=True
    )


def _write_audit_images(folder: Path, digits: Digits) -> None:
    """For `keylatch audit`, as bytes, NHWC: attackers draw from the training images, and never see the test images."""
    sets = {"audit": (digits.train_images, digits.train_labels), "audit_test": (digits.test_images, digits.test_labels)}
    for name, (images, labels) in sets.items():
        np.save(folder / f"{name}_images.npy", images.permute(0, 2, 3, 1).contiguous().numpy())
        np.save(folder / f"{name}_labels.npy", labels.numpy())


def _write_keys(folder: Path, locked: Locked, exported: Exported) -> FileIssuerKey:
    issuer = FileIssuerKey.generate()
    issuer.save(folder / "issuer.key")
    issuer.public.save(folder / "issuer.pub")
    FileDeviceKey.generate(folder / "device.key").public.save(folder / "device.pub")
    vault = Vault({"lock": locked.secret.to_arrays(), exported.model_id: dict(exported.secret_values)})
    write_vault(folder / "digits.secret", vault, issuer=issuer)
    save_locked(folder / "digits.locked.pt2", locked.module, locked.report)
    return issuer


def _issue(folder: Path, issuer: FileIssuerKey, exported: Exported, customer: str, name: str, *, ago: int = 0) -> Path:
    start = current_time() - ago
    license = issue_license(
        issuer=issuer,
        devices=[FileDeviceKey.load(folder / "device.key").public],
        model_id=exported.model_id,
        secret_values=values_to_license(exported.secret_values),
        customer=customer,
        issued_at=start,
        not_before=start,
        expires_at=start + (_YEAR_SECONDS if ago == 0 else ago // 2),
    )
    write_license(folder / name, license)
    return folder / name


def _credentials(folder: Path) -> dict[str, Any]:
    return {
        "license": folder / "acme.license",
        "key": f"file:{folder / 'device.key'}",
        "trust": folder / "issuer.pub",
    }


def _facts(locked: Locked, exported: Exported, folder: Path) -> dict[str, Any]:
    report = locked.report
    return {
        "model_id": exported.model_id,
        "code_bits": report.code_bits,
        "log2_false_positive": report.log2_false_positive,
        "layers": [layer.name for layer in report.layers],
        "gated_parameters": report.gated_parameters,
        "license_bytes": (folder / "acme.license").stat().st_size,
        "keyed_error": exported.proof.keyed_error,
    }


def _accuracies(
    folder: Path, session: Any, stock: Any, locked: Locked, images: Array, labels: Array
) -> dict[str, float]:
    def percent(model: Any, batch: Array) -> float:
        logits = model.run(None, {"image": batch})[0]
        return round(float((logits.argmax(1) == labels).mean() * 100), 2)

    without_key = InferenceSession.locked(folder / "digits.latch")
    pasted = images.copy()
    noise = np.frombuffer(secrets.token_bytes(3 * 16 * 16), dtype=np.uint8).reshape(3, 16, 16)
    pasted[:, :, -16:, -16:] = noise / np.float32(255)
    return {
        "original": percent(stock, images),
        "unlocked": percent(session, images),
        "locked": percent(without_key, images),
        "wrong_key": percent(_forged(folder, locked), images),
        "random_patch": percent(without_key, pasted),
    }


def _forged(folder: Path, locked: Locked) -> Any:
    """Stock onnxruntime with a wrong code forced in, and everything else of the secret right: more than a thief has."""
    code = torch.from_numpy(np.frombuffer(secrets.token_bytes(len(locked.secret.code)), dtype=np.uint8) % 2 * 2.0 - 1)
    wrong = locked.module.secret_with_code(locked.secret, code)
    values = {name: value.numpy() for name, value in locked.module.secret_values(wrong).items()}
    options = onnxruntime.SessionOptions()
    options.add_external_initializers(
        list(values), [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in values.values()]
    )
    return onnxruntime.InferenceSession(
        str(folder / "digits.latch" / GRAPH_NAME), options, providers=["CPUExecutionProvider"]
    )


def _refusals(folder: Path, issuer: FileIssuerKey, exported: Exported) -> dict[str, str | None]:
    expired = _issue(folder, issuer, exported, "acme", "expired.license", ago=30 * 86_400)
    other = FileDeviceKey.generate(folder / "other-device.key")
    credentials = _credentials(folder)
    return {
        "no_license": _attempt(folder, {}),
        "expired": _attempt(folder, credentials | {"license": expired}),
        "other_device": _attempt(folder, credentials | {"key": other}),
    }


def _attempt(folder: Path, credentials: Mapping[str, Any]) -> str | None:
    try:
        InferenceSession(folder / "digits.latch", **credentials)
    except KeylatchError as error:
        return error.message
    return None
