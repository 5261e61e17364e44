"""The demo, with a shorter training; and each of the commands that it prints."""

from __future__ import annotations

import json
import shlex
import struct
from pathlib import Path

import pytest
from cli_world import Command

from keylatch.cli import demo as demo_command
from keylatch.cli._demo import training


def test_the_demo_shows_everything_and_its_commands_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "EPOCHS", 6)
    outcome = command("demo", "--json")
    assert outcome.status == 0, outcome.err
    result = json.loads(outcome.out)
    accuracy = result["accuracy"]
    assert accuracy["original"] > 85
    assert accuracy["unlocked"] == accuracy["original"]
    assert all(accuracy[name] < 25 for name in ("locked", "wrong_key", "random_patch"))
    assert result["refused"] == {"no_license": True, "expired": True, "other_device": True}
    assert "expired" in result["messages"]["expired"]
    assert result["latency"]["ratio_p50"] > 0
    assert result["folder"] == "keylatch-demo"
    picture = Path(result["picture"]).read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", picture[16:24])[0] > 800

    lines = demo_command.BY_HAND.format(folder=result["folder"]).replace("\\\n", " ").splitlines()
    assert lines[0] == "cd keylatch-demo"
    monkeypatch.chdir(tmp_path / "keylatch-demo")
    for line in lines[1:]:
        name, *arguments = shlex.split(line)
        assert name == "keylatch"
        # Not for minutes: tests/audit holds what it finds. Of options that are given twice, the last one counts.
        short = ["--attack", "no-key", "--no-survival", "--minutes", "1"] if arguments[0] == "audit" else []
        outcome = command(*arguments, *short)
        assert outcome.status == 0, (line, outcome.err)
        assert outcome.out


def test_the_demo_never_replaces_a_folder_it_did_not_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keylatch-demo").mkdir()
    (tmp_path / "keylatch-demo" / "thesis.txt").write_text("years of work")
    outcome = command("demo")
    assert outcome.status == 1 and "was not made by the demo" in outcome.err and outcome.out == ""
    assert (tmp_path / "keylatch-demo" / "thesis.txt").read_text() == "years of work"
