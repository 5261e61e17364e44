"""How far fine-tuning repairs a sealed network, beside a network trained from scratch on the same images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from keylatch.audit import AuditOptions, Clock, Scene, load_plain, run_audit
from keylatch.audit.attacks import ATTACKS
from keylatch.locks import seal_lock
from strength.lines import Lines
from strength.locking import plain, shipped
from strength.subjects import SUBJECTS

RECOVERING = ("fine-tune-all", "zero-refill")
PERCENT = (1, 5, 10)


def recovery(
    name: str, network: nn.Module, shares: Sequence[float], settings: argparse.Namespace
) -> list[dict[str, Any]]:
    """One row for each share, number of images and attack.

    Args:
        name: Of the subject.
        network: It.
        shares: To seal, by influence.
        settings: data, work, recovery (minutes for each share) and labeled.
    """
    subject, rows = SUBJECTS[name], []
    original = load_plain(plain(f"{name}.plain", network, subject, settings.work), subject.spec)
    images = subject.images(settings.data, original.classes)
    pool = len(images.attacker.labels)
    counts = tuple(settings.labeled or (pool * percent // 100 for percent in PERCENT))
    for share in shares:
        target, owner = shipped(
            f"{name}.sealed_{share:g}",
            lambda share=share: seal_lock(network, subject.spec, share=share, seed=bytes(32)),  # type: ignore[misc]
            settings.work,
        )
        print(f"{name}, {share:g} sealed", file=sys.stderr, flush=True)
        result = run_audit(
            Scene(target, images, owner, None, replace(original)),
            [attack for attack in ATTACKS if attack.name in RECOVERING],
            AuditOptions(counts, seeds=(0,), minutes=settings.recovery, command="python benchmarks/sealing.py"),
            folder=settings.work / f"{name}.sealed_{share:g}.cells",
            clock=Clock(60 * settings.recovery),
            watch=Lines(),
        )
        scratch = {found.labeled: found.accuracy for found in result.baselines if found.name == "from scratch"}
        rows += [
            {
                "share": share, "labeled": found.labeled, "attack": found.name, "recovered": found.recovered,
                "from_scratch": scratch.get(found.labeled), "truncated": found.truncated, "pool": pool,
            }
            for found in result.attacks
        ]  # fmt: skip
    return rows
