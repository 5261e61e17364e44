"""What the user asked `keylatch audit` for."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from keylatch.errors import InputError

LEAST_SEEDS = 2
_KEY_URI = re.compile(r"(pkcs11|tpm|awskms):")


@dataclass(frozen=True, slots=True)
class AuditRequest:
    """The options of `keylatch audit`; None for what was not given."""

    artifact: Path
    images: Path | None
    labels: Path | None
    test_images: Path | None
    test_labels: Path | None
    secret: Path | None
    issuer: str | None
    passphrase_file: Path | None
    base: Path | None
    original: Path | None
    labeled: tuple[int, ...]
    training_images: int | None
    minutes: float
    seeds: int
    attacks: tuple[str, ...]
    folder: Path
    survival: bool

    def require_sensible(self) -> None:
        """Check what can be checked without loading anything.

        Raises:
            InputError: A number is out of range, or images or labels are missing.
            typer.BadParameter: Options do not go together.
        """
        if not 0 < self.minutes < math.inf:
            raise InputError(f"an audit of {self.minutes:g} minutes cannot be done", hint="give --minutes above 0")
        if self.seeds < LEAST_SEEDS:
            raise InputError(
                f"got --seeds {self.seeds}, expected at least {LEAST_SEEDS}",
                hint="one measurement says nothing about the spread",
            )
        _require_pair("images", self.images, "labels", self.labels)
        if self.images is None:
            raise InputError("an audit needs labeled images, got none", hint="give --images and --labels")
        _require_pair("test-images", self.test_images, "test-labels", self.test_labels)
        if self.issuer is not None and self.secret is None:
            raise typer.BadParameter("goes with the --secret that it opens", param_hint="--issuer")


def command_line(arguments: Sequence[str]) -> str:
    """The command for the record: file names without folders, key URIs without what may be a PIN.

    Args:
        arguments: As the command got them, without its own name.
    """
    return shlex.join(["keylatch", *(_for_the_record(argument) for argument in arguments)])


def _for_the_record(argument: str) -> str:
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    uri = _KEY_URI.match(value)
    shown = f"{uri[0]}..." if uri else Path(value.removeprefix("file:")).name
    return f"{option}{equals}{shown}"


def _require_pair(first: str, first_path: Path | None, second: str, second_path: Path | None) -> None:
    given, missing = (first, second) if second_path is None else (second, first)
    if (first_path is None) != (second_path is None):
        raise InputError(f"got --{given} without --{missing}", hint="an audit counts right answers: give both")
