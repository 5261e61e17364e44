"""`keylatch audit` from end to end, on a small model that is really locked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from audit_command import IMAGES, OWNER, Audit, errors_of

from keylatch.cli import _audit_run
from keylatch.cli._audit_request import command_line

QUICK = ("--attack", "no-key", "--attack", "near-key", "--attack", "random-key", "--no-survival")


def test_the_list_shows_every_attack(audit: Audit) -> None:
    left = audit("--list")
    assert left.status == 0 and left.err == ""
    found = json.loads(audit("--list", "--json").out)["attacks"]
    assert {"no-key", "random-key", "near-key"} <= {attack["name"] for attack in found}
    for attack in found:
        assert f" {attack['name']} " in left.out
        assert attack["summary"].endswith(".") and attack["summary"][:12] in left.out
        assert attack["needs"] and attack["needs"][:12] in left.out


def test_an_audit_gives_a_verdict_a_table_and_a_report(folder: Path, audit: Audit) -> None:
    left = audit("digits.latch", *IMAGES, *OWNER, "--original", "plain/model.onnx", *QUICK)
    assert left.status == 0, left.err
    assert left.out.index(" no-key ") < left.out.index(" labeled images ") < left.out.index("report ")
    assert "digits.audit/report.html" in left.out
    assert left.err.strip() == ""
    report = json.loads((folder / "digits.audit" / "report.json").read_text())
    assert left.out.startswith(f"{report['verdict']}  {report['summary']}\n")  # the verdict comes first
    # Ten classes and a network this small: without its key it may be right about more than chance, by luck.
    is_broken = any(attack["broken"] for attack in report["attacks"]) or report["effective_key_bits"] < 128
    assert report["verdict"] == ("broken" if is_broken else "holds")
    assert report["accuracy"]["original"] > 90 and report["accuracy"]["unlocked"] > 90
    assert report["accuracy"]["locked"] < 30
    assert {attack["name"] for attack in report["attacks"]} == {"no-key", "near-key", "random-key"}
    assert all(attack["seeds"] == 2 for attack in report["attacks"])
    assert 64 < report["effective_key_bits"] <= 160
    assert report["command"] == (
        "keylatch audit digits.latch --images images.npy --labels labels.npy --secret digits.secret "
        "--issuer issuer.key --original model.onnx --attack no-key --attack near-key --attack random-key --no-survival"
    )
    page = (folder / "digits.audit" / "report.html").read_text()
    assert "random-key" in page
    assert sorted(path.name for path in (folder / "digits.audit").iterdir()) == ["cells", "report.html", "report.json"]


def test_the_second_run_takes_what_the_first_one_measured(
    folder: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = audit("digits.latch", *IMAGES, *OWNER, *QUICK, "--json", "--out", "kept")
    assert first.status == 0, first.err
    cells = {path: path.stat().st_mtime_ns for path in (folder / "kept" / "cells").iterdir()}
    second = audit("digits.latch", *IMAGES, *OWNER, *QUICK, "--json", "--out", "kept")
    assert {path: path.stat().st_mtime_ns for path in (folder / "kept" / "cells").iterdir()} == cells
    before, after = json.loads(first.out), json.loads(second.out)
    assert before["attacks"] == after["attacks"]


def test_labeled_attacks_have_baselines_and_survival_has_rows(folder: Path, audit: Audit) -> None:
    left = audit(
        "digits.latch", *IMAGES, "--labeled", "12", "--attack", "key-gradient", "--minutes", "0.2", "--json",
        "--base", "plain/model.onnx",
    )  # fmt: skip
    assert left.status == 0, left.err
    found = json.loads(left.out)
    assert {("chance", 0), ("from scratch", 12), ("public base", 0), ("public base", 12)} <= {
        (row["name"], row["labeled"]) for row in [*found["baselines"], *_missing(found)]
    }
    assert found["accuracy"]["original"] is None and found["accuracy"]["unlocked"] is None
    measured = {row["name"] for row in found["survival"]} | {row["name"] for row in found["not_run"]}
    assert {"pruning", "JPEG"} <= measured


def _missing(found):  # type: ignore[no-untyped-def]
    rows = (row for row in found["not_run"] if row["name"] in ("from scratch", "public base"))
    return [{"name": row["name"], "labeled": 12 if row["variant"].startswith("12 ") else 0} for row in rows]


def test_a_break_is_an_error_only_if_that_is_asked_for(
    folder: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    from keylatch.audit import Outcome, Variant
    from keylatch.audit._attack import Given

    class Thief:
        name, summary, version = "theft", "Has stolen the original.", 1

        def variants(self, target, resources):  # type: ignore[no-untyped-def]
            return [Variant(Given())]

        def run(self, case):  # type: ignore[no-untyped-def]
            from keylatch.audit.onnx_network import load_onnx_network

            return Outcome(load_onnx_network(folder / "plain" / "model.onnx"))

    monkeypatch.setattr(_audit_run, "ATTACKS", (Thief(),))
    assert audit("digits.latch", *IMAGES, "--no-survival").status == 0
    left = audit("digits.latch", *IMAGES, "--no-survival", "--fail-on-break")
    assert left.status == 1
    assert left.out.startswith("broken  Broken: theft (the artifact only) recovers 9")


def test_a_stopped_audit_says_how_to_go_on(folder: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped:
        name, summary, version = "stopped", "Is stopped.", 1

        def variants(self, target, resources):  # type: ignore[no-untyped-def]
            from keylatch.audit import Given, Variant

            return [Variant(Given())]

        def run(self, case):  # type: ignore[no-untyped-def]
            raise KeyboardInterrupt

    monkeypatch.setattr(_audit_run, "ATTACKS", (Stopped(),))
    left = audit("digits.latch", *IMAGES, "--no-survival")
    assert left.status == 130 and left.out == ""
    assert "run the same command again to go on" in errors_of(left)
    assert not (folder / "digits.audit" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["/home/me/a.latch", "--images", "../data/x.npy"], "a.latch --images x.npy"),
        (["--images=/data/x y.npy"], "'--images=x y.npy'"),
        (["--issuer", "pkcs11:token=a;object=b?pin-value=1234"], "--issuer pkcs11:..."),
        (["--issuer=pkcs11:token=a?pin-value=1234"], "--issuer=pkcs11:..."),
        (["--issuer", "file:/keys/issuer.key", "--minutes", "0.5"], "--issuer issuer.key --minutes 0.5"),
    ],
)
def test_the_recorded_command_names_no_folders_and_no_pins(arguments: list[str], shown: str) -> None:
    assert command_line(arguments) == f"keylatch {shown}"
