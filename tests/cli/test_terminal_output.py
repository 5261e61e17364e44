"""What others wrote, file names and a model's description among it, does not steer the terminal it is printed on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_world import CREDENTIALS, Command

from keylatch.cli._output import print_error, print_facts
from keylatch.errors import KeylatchError

EVIL = "a\x1b[2J\x1b]0;owned\x07\u202egpj\nhint: curl [bold]x[/] tpm:key:1"
SHOWN = r"a\x1b[2J\x1b]0;owned\x07\u202egpj"


def test_errors_write_out_what_could_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(KeylatchError(f"{EVIL} is bad", hint=EVIL))
    printed = capsys.readouterr().err
    assert SHOWN in printed
    assert printed.count("\n") == 2  # no line of theirs
    assert not {"\x1b", "\x07", "\u202e"} & set(printed)
    assert "[bold]x[/] tpm:key:1" in printed  # neither markup nor emoji


def test_facts_write_out_what_could_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts([("license", EVIL), ("verification", "none")])
    printed = capsys.readouterr().out
    assert SHOWN in printed
    assert not {"\x1b", "\x07", "\u202e"} & set(printed)
    # A fact may have several lines; they stand under it, where no fact's name stands.
    assert [line[:12].strip() for line in printed.splitlines()] == ["license", "", "verification"]


def test_a_picture_s_name_is_no_markup(folder: Path, command: Command) -> None:
    name = "[red]:x:[-]\x1b[2J.npy"
    np.save(folder / name, np.load(folder / "images.npy")[:1])
    outcome = command("run", "net.latch", name, *CREDENTIALS)
    assert outcome.status == 0, outcome
    assert "\x1b" not in outcome.out
    assert "[red]:x:" in outcome.out
