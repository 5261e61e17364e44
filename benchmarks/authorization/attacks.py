"""Attacks of the audit on the artifact of one SA-MAP cell, beside a network trained from scratch on the same images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from authorization.cells import IMAGES, SPEC, Bench, say
from authorization.licensed import exported_cell
from keylatch.audit._attack import Attack, Case, Given, Variant
from keylatch.audit._baselines import FromScratch
from keylatch.audit._clock import Clock
from keylatch.audit._target import Target, load_target
from keylatch.audit._training import accuracy
from keylatch.audit.attacks.fine_tuning import FineTuning
from keylatch.audit.attacks.noisy_fine_tuning import NoisyFineTuning
from keylatch.audit.attacks.zero_refill import ZeroRefill

SHARES = (0.01, 0.05, 0.10)  # of the target's training images
_SECONDS, _CLASSES = 600.0, 10


def attacked_cells(bench: Bench, source: str, target: str) -> list[dict[str, Any]]:
    """Accuracy on the target, and on the source, after each attack; test images that no attacker saw."""
    with TemporaryDirectory() as folder:
        artifact: list[Target] = []

        def locked() -> Target:
            if not artifact:
                artifact.append(load_target(exported_cell(bench, source, target, Path(folder)).path))
            return artifact[0]

        rows = []
        for attack, domain, count in _plan(source, target):
            done = bench.work / f"{attack.name.replace(' ', '-')}.{source}.{target}.{domain}.{count}.json"
            if not done.exists():
                say(f"{attack.name}, {source} -> {target}, {count} images of {domain}")
                done.write_text(json.dumps(_run(bench, locked(), attack, source, target, domain, count)))
            rows.append(json.loads(done.read_text()))
        return rows


def _plan(source: str, target: str) -> Iterator[tuple[Attack, str, int]]:
    """Attacks, whose images the attacker has, and how many."""
    for share in SHARES:
        count = round(share * IMAGES)
        for attack in (FineTuning("all"), ZeroRefill(), FromScratch()):
            yield attack, target, count
    yield NoisyFineTuning(), source, IMAGES // 10
    yield NoisyFineTuning(), source, IMAGES


def _run(
    bench: Bench, locked: Target, attack: Attack, source: str, target: str, domain: str, count: int
) -> dict[str, Any]:
    known = bench.domains[domain].train.first(count)
    case = Case(
        locked,
        Variant(Given(labeled=count)),
        SPEC.from_pixels(known.images),
        known.labels,
        _CLASSES,
        torch.Generator().manual_seed(0),
        Clock(_SECONDS),
    )
    outcome = attack.run(case)
    tests = {role: bench.domains[name].test for role, name in (("source", source), ("target", target))}
    reached = {
        role: accuracy(outcome.predict, SPEC.from_pixels(test.images), test.labels) for role, test in tests.items()
    }
    return {
        "attack": attack.name, "source": source, "target": target, "images_of": domain, "images": count,
        "accuracy": reached, "note": outcome.note, "truncated": outcome.truncated,
    }  # fmt: skip
