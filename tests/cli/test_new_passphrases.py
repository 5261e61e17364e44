"""A new passphrase is typed twice on the terminal; one that exists, once."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_world import Command

from keylatch.keys import FileDeviceKey


def typed(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    asked: list[str] = []
    left = iter(answers)

    def answer(prompt: str, **_stream: object) -> str:
        asked.append(prompt)
        return next(left)

    monkeypatch.setattr("getpass.getpass", answer)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    return asked


def test_a_new_passphrase_is_asked_for_twice(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = typed(monkeypatch, "one", "one", "one")
    assert command("device", "init", "--protect").status == 0
    assert len(asked) == 2 and "again" in asked[1]
    assert command("device", "show", "--key", "file:device.key").status == 0
    assert len(asked) == 3
    assert FileDeviceKey.load("device.key", lambda _what: b"one")


def test_two_different_ones_make_no_key(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    typed(monkeypatch, "one", "two")
    outcome = command("device", "init", "--protect")
    assert outcome.status == 1 and "differ" in outcome.err and "hint" in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verb", "work", "out"),
    [("lock", "keylatch.locks.code_lock", "new.pt2"), ("stain", "keylatch.locks.stain", "new.pt")],
)
def test_a_vault_s_passphrase_is_asked_for_before_the_work(
    verb: str, work: str, out: str, folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []
    monkeypatch.setattr(work, lambda *_arguments, **_options: done.append(1))
    outcome = command(verb, "nets_for_cli:small", "--input", "3x32x32", "--out", out, "--secret", "new.secret")
    assert outcome.status == 1 and "passphrase for vault new.secret is needed" in outcome.err
    assert not done and not (folder / out).exists()
