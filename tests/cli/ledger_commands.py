"""What the tests of the ledger's commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cli_world import Command, Outcome

from keylatch.keys import Trust, current_time, parse_license, verify_license

VAULT = ("--secret", "net.secret", "--issuer", "issuer.key")
TO_ME = ("--to", "device.pub", "--customer", "Bolt")


def issue(command: Command, out: str, *changes: object) -> dict[str, Any]:
    """Issue a license as one would, and return what the command says."""
    outcome = command("license", "issue", "net.latch", *VAULT, *TO_ME, "--out", out, "--json", *changes)
    assert outcome.status == 0, outcome.err
    return dict(json.loads(outcome.out))


def listed(command: Command, *filters: object) -> list[dict[str, Any]]:
    outcome = command("license", "list", "--json", *filters)
    assert outcome.status == 0, outcome.err
    return list(json.loads(outcome.out)["licenses"])


def done(outcome: Outcome) -> dict[str, Any]:
    assert outcome.status == 0, outcome.err
    return dict(json.loads(outcome.out))


def assert_refused(outcome: Outcome, words: str, hint: str = "") -> None:
    assert outcome.status == 1, outcome
    assert outcome.out == ""
    assert words in outcome.err, outcome.err
    assert "hint:" in outcome.err and hint in outcome.err, outcome.err
    assert "Traceback" not in outcome.err


def opens(command: Command, license: str, trust: str = "issuer.pub", *more: object) -> Outcome:
    credentials = ("--license", license, "--key", "file:device.key", "--trust", trust)
    return command("run", "net.latch", "images.npy", *credentials, *more)


def verified(path: str, trust: str) -> Any:
    return verify_license(parse_license(Path(path).read_bytes()), Trust.load(trust), now=current_time())
