"""The audit on the paper's locks: lock A falls to recentering, lock B to taking its gate out, both without labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attack_targets import RESOURCES, attacked, case_of, measured
from audit_command import IMAGES, OWNER, Audit
from audit_world import ship
from weak_locks import WeakLock

import networks
from keylatch.audit import Given
from keylatch.audit.attacks.gate_removal import GateRemoval
from keylatch.audit.attacks.logit_recentering import LogitRecentering
from keylatch.locks import detector_lock

FREE = Given(unlabeled=100)
QUICK = ("--attack", "no-key", "--attack", "logit-recentering", "--attack", "gate-removal", "--no-survival")
BREAKS = {"A": "logit-recentering", "B": "gate-removal"}


@pytest.fixture(scope="module")
def digits() -> networks.Digits:
    return networks.trained_digits()


@pytest.fixture(scope="module", params=["A", "B"])
def shipped(request: pytest.FixtureRequest, digits: networks.Digits, tmp_path_factory) -> tuple[str, Path, WeakLock]:
    """A folder as `keylatch audit` takes it."""
    folder = tmp_path_factory.mktemp(f"lock-{request.param}")
    locked = detector_lock(
        digits.network, networks.SPEC, kind=request.param, patch_size=networks.PATCH, calibration=digits.images[:32],
        rate=1e-2, seed=bytes(range(32)),
    )  # fmt: skip
    made = ship(locked, digits, folder)
    return request.param, folder, WeakLock(made.target, made.owner)


def test_one_attack_without_labels_undoes_each_and_the_other_does_not(
    shipped: tuple[str, Path, WeakLock], digits: networks.Digits
) -> None:
    kind, _, lock = shipped
    right = measured(lock.owner.unlocked(lock.target), digits)
    assert right > 95 and measured(lock.target.network(), digits) < 30
    recentered = measured(attacked(lock, digits, LogitRecentering(), FREE, divide=0).predict, digits)
    removed = [
        measured(GateRemoval().run(case).predict, digits)
        for case in _cases(lock, digits)
    ]  # fmt: skip
    if kind == "A":
        assert recentered >= right - 2
        assert not removed  # it has a sum, and no product to cut
    else:
        assert recentered < 30
        assert removed and removed[0] >= right - 2


def _cases(lock: WeakLock, digits: networks.Digits) -> list:
    variants = GateRemoval().variants(lock.target, RESOURCES)
    return [case_of(lock, digits, variant) for variant in variants if variant.given == FREE]


@pytest.mark.slow
def test_the_command_reports_the_break(
    shipped: tuple[str, Path, WeakLock], audit: Audit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kind, folder, _ = shipped
    monkeypatch.chdir(folder)
    left = audit("digits.latch", *IMAGES, *OWNER, "--original", "plain/model.onnx", *QUICK, "--out", tmp_path / "a")
    assert left.status == 0, left.err
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert report["verdict"] == "broken"
    broken = {row["name"] for row in report["attacks"] if row["broken"] and not row["labeled"]}
    assert broken == {BREAKS[kind]}
    assert all(row["seeds"] == 2 for row in report["attacks"] if row["broken"])
    assert report["summary"].startswith(f"Broken: {BREAKS[kind]} (")
