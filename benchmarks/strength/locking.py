"""Lock a network once, and find artifact and secret again when the benchmark goes on another day."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from keylatch.audit import Owner, Target, load_target, owner_from_vault
from keylatch.exporters import export, export_plain
from keylatch.keys import FileIssuerKey, Vault, read_vault, write_vault
from keylatch.locks import Locked, code_lock
from strength.subjects import Subject


@dataclass(frozen=True, slots=True)
class Locking:
    """A way to lock.

    Attributes:
        name: What it is called in the results.
        sealed_share: Share of the weights that licenses carry; None for the default.
    """

    name: str
    sealed_share: float | None


DEFAULT = Locking("default", None)
SIGNS_ALONE = Locking("signs alone", 0.0)


def locked(subject: Subject, locking: Locking, network: nn.Module, work: Path) -> tuple[Target, Owner]:
    """The locked model with its owner's secrets, made now or on an earlier day."""

    def lock() -> Locked:
        return code_lock(network, subject.spec, patch_size=subject.patch_size, sealed_share=locking.sealed_share)

    return shipped(f"{subject.name}.{locking.name.replace(' ', '_')}", lock, work)


def shipped(name: str, lock: Callable[[], Locked], work: Path) -> tuple[Target, Owner]:
    """What a lock makes, exported, with its owner's secrets; made now or on an earlier day."""
    artifact, secret = work / f"{name}.latch", work / f"{name}.secret"
    issuer = _issuer(work / "issuer.key")
    if not secret.exists():
        shutil.rmtree(artifact, ignore_errors=True)
        made = lock()
        exported = export(made.module, made.secret, artifact, report=made.report, name=name)
        vault = Vault({"lock": made.secret.to_arrays(), exported.model_id: dict(exported.secret_values)})
        write_vault(secret, vault, issuer=issuer)
    target = load_target(artifact)
    return target, owner_from_vault(read_vault(secret, issuer=issuer), target)


def plain(name: str, network: nn.Module, subject: Subject, work: Path) -> Path:
    """A network without a lock as ONNX."""
    folder = work / name
    return folder / "model.onnx" if folder.exists() else export_plain(network, subject.spec, folder)


def _issuer(path: Path) -> FileIssuerKey:
    if path.exists():
        return FileIssuerKey.load(path)
    issuer = FileIssuerKey.generate()
    issuer.save(path)
    return issuer
